"""Checkpoints, the finished run, and loading one for use.

    RUN/config.json, tokenizer.json, metrics.jsonl
    RUN/checkpoints/step-00000123/{model.safetensors, training_state.pt, checkpoint.json}
    RUN/model.safetensors, done.json        when it is finished; done.json is the last file written

A checkpoint is written to a folder of another name that is renamed when it is whole: what has its name can be trusted.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.clip import CLIP
from model.config import PretrainConfig, deciding_settings
from model.tokenizer import Tokenizer

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
METRICS = "metrics.jsonl"
MODEL = "model.safetensors"
STATE = "training_state.pt"
CHECKPOINT = "checkpoint.json"
DONE = "done.json"
CHUNK_BYTES = 1 << 20


class CheckpointRecord(BaseModel):
    """What `checkpoint.json` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    samples_seen: int
    loss: float
    fingerprint: str


class DoneRecord(BaseModel):
    """What `done.json` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int
    samples_seen: int
    fingerprint: str
    final_loss: float
    sha256: str


@dataclass(frozen=True)
class Run:
    """A trained model, ready for use: evaluation mode, on the CPU."""

    model: CLIP
    tokenizer: Tokenizer
    config: PretrainConfig


def read_config(run_dir: Path) -> PretrainConfig:
    """`config.json` of a run. Raises FileNotFoundError or ValueError that say what to do."""
    path = run_dir / CONFIG
    try:
        return PretrainConfig.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing; write the run's PretrainConfig there as JSON") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'config'}: {item['msg']}" for item in error.errors())
        raise ValueError(f"{path}: {problems}") from error


def fingerprint(config: PretrainConfig, data_digest: str, tokenizer_path: Path, world_size: int) -> str:
    """Identity of what a run learns: its settings, its data and its tokenizer.

    A ResNet normalises over each process's share of the batch, so there the number of processes is part of it.
    """
    parts = {
        "settings": deciding_settings(config),
        "data": data_digest,
        "tokenizer": _sha256_file(tokenizer_path),
        "shares": world_size if config.model.vision.kind == "resnet" else None,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def save_checkpoint(
    run_dir: Path, model: CLIP, optimizer: torch.optim.Optimizer, record: CheckpointRecord, keep: int
) -> Path:
    """Write a checkpoint, then remove all but the newest `keep`."""
    final = run_dir / "checkpoints" / f"step-{record.step:08d}"
    scratch = final.with_name(f".{final.name}.partial")
    for stale in (scratch, final):
        if stale.exists():
            shutil.rmtree(stale)
    scratch.mkdir(parents=True)
    save_file(_weights(model), scratch / MODEL)
    torch.save(optimizer.state_dict(), scratch / STATE)
    (scratch / CHECKPOINT).write_text(record.model_dump_json(indent=2), encoding="utf-8")
    for path in scratch.iterdir():
        _to_disk(path)
    scratch.rename(final)
    _to_disk(final.parent)
    for old in _checkpoints(run_dir)[:-keep]:
        shutil.rmtree(old)
    return final


def newest_checkpoint(run_dir: Path) -> tuple[Path, CheckpointRecord] | None:
    """The newest whole checkpoint of a run, or None."""
    folders = _checkpoints(run_dir)
    if not folders:
        return None
    record = CheckpointRecord.model_validate_json((folders[-1] / CHECKPOINT).read_text(encoding="utf-8"))
    return folders[-1], record


def load_checkpoint(folder: Path, model: CLIP, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's weights and optimiser state into `model` and `optimizer`."""
    model.load_state_dict(load_file(folder / MODEL))
    optimizer.load_state_dict(torch.load(folder / STATE, map_location="cpu", weights_only=True))


def save_final(
    run_dir: Path, model: CLIP, steps: int, samples_seen: int, loss: float, run_fingerprint: str
) -> DoneRecord:
    """Write the finished model, then `done.json`."""
    partial = run_dir / f".{MODEL}.partial"
    save_file(_weights(model), partial)
    _to_disk(partial)
    partial.replace(run_dir / MODEL)
    done = DoneRecord(
        steps=steps,
        samples_seen=samples_seen,
        fingerprint=run_fingerprint,
        final_loss=loss,
        sha256=_sha256_file(run_dir / MODEL),
    )
    write_text(run_dir / DONE, done.model_dump_json(indent=2))
    return done


def read_done(run_dir: Path) -> DoneRecord | None:
    """`done.json` of a run, or None if it is not finished."""
    try:
        return DoneRecord.model_validate_json((run_dir / DONE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def load_run(run_dir: Path) -> Run:
    """The finished model of a run, or else its newest checkpoint, in evaluation mode on the CPU."""
    config = read_config(run_dir)
    newest = newest_checkpoint(run_dir)
    if read_done(run_dir) is not None:
        weights = run_dir / MODEL
    elif newest is not None:
        weights = newest[0] / MODEL
    else:
        raise FileNotFoundError(f"{run_dir} has neither a finished model nor a checkpoint; train it first")
    model = CLIP(config.model)
    model.load_state_dict(load_file(weights))
    tokenizer = Tokenizer.load(run_dir / TOKENIZER, config.model.text.context_length)
    return Run(model.eval(), tokenizer, config)


def write_text(path: Path, text: str) -> None:
    """Write a file that is either whole or absent."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    _to_disk(partial)
    partial.replace(path)


def _weights(model: CLIP) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}


def _checkpoints(run_dir: Path) -> list[Path]:
    return sorted((run_dir / "checkpoints").glob("step-*"))


def _to_disk(path: Path) -> None:
    """A rename must not overtake the bytes it names when the power fails."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _sha256_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
