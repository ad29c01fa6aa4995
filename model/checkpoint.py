"""Checkpoints, the finished run, and loading one for use.

    RUN/config.json, tokenizer.json, metrics.jsonl
    RUN/checkpoints/step-00000123/{model.safetensors, training_state.pt, checkpoint.json}
    RUN/best -> RUN/best-00000100/          with train.keep_best: config, tokenizer, weights and done.json, as a finished run's
    RUN/model.safetensors, done.json        when it is finished; done.json is the last file written

A checkpoint is written to a folder of another name that is renamed when it is whole. checkpoint.json and done.json hold
the sha256 of the files they vouch for, so that a disk's mistake is found before it is learned from.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model.clip import CLIP
from model.config import PretrainConfig, deciding_settings
from model.errors import InputError
from model.files import sha256_file, to_disk, write_text, writing
from model.objectives.build import build_objective
from model.objectives.objective import Objective
from model.parts import whole
from model.tokenizer import Tokenizer

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
METRICS = "metrics.jsonl"
MODEL = "model.safetensors"
STATE = "training_state.pt"
CHECKPOINT = "checkpoint.json"
DONE = "done.json"
BEST = "best"
TOWERS = "towers."

Say = Callable[[str], None]


class Record(BaseModel):
    """Base of what vouches for other files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str
    model_sha256: str
    tokenizer_sha256: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """The record in a file. Raises FileNotFoundError, or InputError if it is not one."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise InputError(f"{path} is damaged, or of another version") from error


class Position(NamedTuple):
    """Where a run is."""

    step: int
    samples_seen: int
    loss: float | None  # None, as the next, if all steps so far were left out
    gradient_norm: float | None
    skipped_steps: int
    skipped_in_a_row: int
    best: tuple[str, float] | None = None  # the figure that train.keep_best names, of the best validation so far


class CheckpointRecord(Record):
    """What `checkpoint.json` holds: a position, and what vouches for the files."""

    step: int
    samples_seen: int
    loss: float | None
    gradient_norm: float | None
    skipped_steps: int
    skipped_in_a_row: int
    best: tuple[str, float] | None = None
    state_sha256: str


class DoneRecord(Record):
    """What `done.json` holds."""

    steps: int
    samples_seen: int
    final_loss: float | None  # None for weights that came from elsewhere


@dataclass(frozen=True)
class Run:
    """A trained model, ready for use: evaluation mode, on the CPU."""

    objective: Objective
    tokenizer: Tokenizer
    config: PretrainConfig
    model_sha256: str
    """Of the file that the weights came from."""

    @property
    def model(self) -> CLIP:
        """Both towers. Raises InputError if the objective trained no text tower."""
        if not isinstance(self.objective.towers, CLIP):
            raise InputError(f"the run {self.config.name!r} learned {self.config.objective.kind}: it has no two towers")
        return self.objective.towers


def read_config(run_dir: Path) -> PretrainConfig:
    """`config.json` of a run. Raises InputError that says what to do."""
    return PretrainConfig.read(run_dir / CONFIG)


def fingerprint(config: PretrainConfig, data_digest: str, tokenizer_path: Path, world_size: int) -> str:
    """Identity of what a run learns: its settings, its data and its tokenizer.

    Batch norm normalises over each process's share of the batch, so there the number of processes is part of it.
    """
    parts = {
        "settings": deciding_settings(config),
        "data": data_digest,
        "tokenizer": sha256_file(tokenizer_path),
        "shares": world_size if config.model.vision.kind != "vit" else None,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def tell(message: str) -> None:
    """A line for a person."""
    print(message, file=sys.stderr, flush=True)


def newest_checkpoint(run_dir: Path, say: Say = tell) -> tuple[Path, CheckpointRecord] | None:
    """The newest whole checkpoint of a run, or None if it has none; says which ones are damaged.

    Raises InputError if all are.
    """
    folders = checkpoints(run_dir)
    for folder in reversed(folders):
        try:
            record = CheckpointRecord.read(folder / CHECKPOINT)
            if checkpoint_dir(run_dir, record.step) != folder:
                raise InputError(f"{folder / CHECKPOINT} is damaged: it says step {record.step}")
            _require_whole(folder / MODEL, record.model_sha256)
            _require_whole(folder / STATE, record.state_sha256)
            return folder, record
        except (InputError, FileNotFoundError) as error:
            say(f"left aside the damaged checkpoint {folder.name}: {error}")
    if folders:
        raise InputError(
            f"{run_dir / 'checkpoints'}: none of its {len(folders)} checkpoints is whole; delete that folder to train "
            "from the start, or copy it again"
        )
    return None


def load_checkpoint(folder: Path, objective: Objective) -> dict[str, Any]:
    """Put a checkpoint's weights into `objective`; returns the other state, as it was given to be saved."""
    _load_weights(objective, folder / MODEL)
    state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    return state


def save_final(
    run_dir: Path, model: nn.Module, steps: int, samples_seen: int, loss: float | None, run_fingerprint: str
) -> DoneRecord:
    """As `save_weights`, of a model that this process has whole."""
    return save_weights(run_dir, weights_of(model), steps, samples_seen, loss, run_fingerprint)


def save_weights(
    run_dir: Path, weights: dict[str, Tensor], steps: int, samples_seen: int, loss: float | None, run_fingerprint: str
) -> DoneRecord:
    """Write the finished model, then `done.json`. Raises InputError if they cannot be written."""
    partial = run_dir / f".{MODEL}.partial"
    with writing(run_dir / MODEL):
        save_file(weights, partial)
        to_disk(partial)
        partial.replace(run_dir / MODEL)
    done = DoneRecord(
        steps=steps,
        samples_seen=samples_seen,
        fingerprint=run_fingerprint,
        final_loss=loss,
        model_sha256=sha256_file(run_dir / MODEL),
        tokenizer_sha256=sha256_file(run_dir / TOKENIZER),
    )
    write_text(run_dir / DONE, done.model_dump_json(indent=2))
    return done


def read_done(run_dir: Path) -> DoneRecord | None:
    """`done.json` of a run, or None if it is not finished. Raises InputError if it is damaged."""
    try:
        return DoneRecord.read(run_dir / DONE)
    except FileNotFoundError:
        return None
    except InputError as error:
        raise InputError(
            f"{error}; delete it and train {run_dir} once more: that ends at once, from its last checkpoint"
        ) from error


def require_final(run_dir: Path, done: DoneRecord) -> None:
    """Raise InputError unless the finished model is the one that was written."""
    _require_whole(run_dir / MODEL, done.model_sha256)


def load_run(run_dir: Path) -> Run:
    """The finished model of a run, or else its newest checkpoint, in evaluation mode on the CPU.

    Raises InputError if there is none, or what there is was damaged.
    """
    config, record, weights = read_config(run_dir), *_trained(run_dir)
    try:
        _require_whole(weights, record.model_sha256)
        _require_whole(run_dir / TOKENIZER, record.tokenizer_sha256)
    except InputError as error:
        raise InputError(
            f"{error}; train {run_dir} once more, which writes it again from the last checkpoint, or copy the run again"
        ) from error
    objective = build_objective(config)
    try:
        _load_weights(objective, weights)
    except RuntimeError as error:  # torch names every tensor that is absent or of another shape, line by line
        first = str(error).splitlines()[1:2] or [str(error)]
        raise InputError(
            f"{weights} is not of the model that {run_dir / CONFIG} describes ({first[0].strip()}); copy both from one run"
        ) from error
    tokenizer = Tokenizer.load(run_dir / TOKENIZER, config.model.text.context_length)
    return Run(objective.eval(), tokenizer, config, record.model_sha256)


def _trained(run_dir: Path) -> tuple[Record, Path]:
    done = read_done(run_dir)
    if done is not None:
        return done, run_dir / MODEL
    newest = newest_checkpoint(run_dir)
    if newest is None:
        raise InputError(f"{run_dir} has neither a finished model nor a checkpoint; train it first")
    return newest[1], newest[0] / MODEL


def _require_whole(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise InputError(f"{path} is missing")
    if sha256_file(path) != sha256:
        raise InputError(f"{path} is damaged: its sha256 is not the one that was recorded")


def weights_of(model: nn.Module, is_kept: bool = True) -> dict[str, Tensor]:
    """By the names of the official checkpoints; what an objective adds to the towers goes by its own.

    Of a model that is spread over processes all must ask; `is_kept` for the one that has a use for them, the others get none.
    """
    weights = {}
    for name, part in model.state_dict().items():
        tensor = whole(part.detach())
        if is_kept:
            weights[name.removeprefix(TOWERS)] = tensor.cpu().contiguous()
    return weights


def _load_weights(objective: Objective, path: Path) -> None:
    found = load_file(path)
    names = {name.removeprefix(TOWERS): name for name in objective.state_dict()}
    objective.load_state_dict({names.get(name, name): tensor for name, tensor in found.items()})


def checkpoint_dir(run_dir: Path, step: int) -> Path:
    """The folder of one."""
    return run_dir / "checkpoints" / f"step-{step:08d}"


def checkpoints(run_dir: Path) -> list[Path]:
    """The folders of all that a run has, oldest first."""
    return sorted((run_dir / "checkpoints").glob("step-*"))
