"""Writing checkpoints while the training goes on: a copy in memory, and one thread that brings it to the disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model.checkpoint import (
    BEST,
    CHECKPOINT,
    CONFIG,
    DONE,
    MODEL,
    STATE,
    TOKENIZER,
    CheckpointRecord,
    DoneRecord,
    Position,
    checkpoint_dir,
    checkpoints,
    save_weights,
    weights_of,
)
from model.files import sha256_file, to_disk, writing
from model.parts import whole


class Snapshot(NamedTuple):
    """All that a checkpoint holds, as it was at its step, in memory that nobody writes to."""

    position: Position
    weights: dict[str, Tensor]
    state: dict[str, Any]  # what the training holds besides the model: state dicts by name


def take_snapshot(position: Position, model: nn.Module, state: dict[str, Any], is_kept: bool = True) -> Snapshot:
    """Copies, on the CPU. Of what is spread over processes all must ask; `is_kept` for the one that writes them, the others
    get a snapshot without tensors.
    """
    return Snapshot(position, _copied(weights_of(model, is_kept), is_kept), _copied(state, is_kept))


def _copied(value: Any, is_kept: bool) -> Any:
    if isinstance(value, Tensor):
        tensor = whole(value.detach())
        return tensor.to("cpu", copy=True) if is_kept else None
    if isinstance(value, dict):
        return {name: _copied(part, is_kept) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_copied(part, is_kept) for part in value)
    return value


class Writer:
    """One piece of work at a time, in a thread of its own. An error of it is raised by whatever is called next."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._work: Future[object] | None = None

    def begin(self, work: Callable[[], object]) -> None:
        """Return at once, if the work before has ended, and else when it has."""
        self.wait()
        self._work = self._pool.submit(work)

    def check(self) -> None:
        """Raise the error of work that has ended; does not wait."""
        if self._work is not None and self._work.done():
            self.wait()

    def wait(self) -> None:
        """Return when nothing is left to do."""
        work, self._work = self._work, None
        if work is not None:
            work.result()

    def close(self) -> None:
        """As `wait`, but raises nothing: where another error has ended the training already."""
        self._pool.shutdown()


def save_checkpoint(run_dir: Path, snapshot: Snapshot, run_fingerprint: str, keep: int) -> Path:
    """Write a checkpoint, then remove all but the newest `keep`. Raises InputError if it cannot be written."""
    final = checkpoint_dir(run_dir, snapshot.position.step)
    scratch = final.with_name(f".{final.name}.partial")
    with writing(final):
        for stale in (*final.parent.glob(".step-*.partial"), final):
            if stale.exists():
                shutil.rmtree(stale)
        scratch.mkdir(parents=True)
        save_file(snapshot.weights, scratch / MODEL)
        _save_state(snapshot.state, scratch / STATE)
        record = CheckpointRecord(
            **snapshot.position._asdict(),
            fingerprint=run_fingerprint,
            model_sha256=sha256_file(scratch / MODEL),
            state_sha256=sha256_file(scratch / STATE),
            tokenizer_sha256=sha256_file(run_dir / TOKENIZER),
        )
        (scratch / CHECKPOINT).write_text(record.model_dump_json(indent=2), encoding="utf-8")
        for path in scratch.iterdir():
            to_disk(path)
        scratch.rename(final)
        to_disk(final.parent)
        # One of a later step is a damaged one that this run has left behind.
        earlier = [folder for folder in checkpoints(run_dir) if folder <= final]
        for old in {*checkpoints(run_dir)} - {*earlier[-keep:]}:
            shutil.rmtree(old)
    return final


def save_best(
    run_dir: Path, weights: dict[str, Tensor], steps: int, samples_seen: int, loss: float, run_fingerprint: str
) -> None:
    """Let RUN/best be a finished run with these weights. Raises InputError if it cannot be written.

    It is a link to a folder that is whole: a kill leaves the link at the former one, or at this one.
    """
    final = run_dir / f"{BEST}-{steps:08d}"
    scratch, link = run_dir / f".{final.name}.partial", run_dir / f".{BEST}.partial"
    with writing(final):
        # A resumed run may come to the same step again; then what is there is this.
        if not (final.is_dir() and DoneRecord.read(final / DONE).fingerprint == run_fingerprint):
            for stale in (*run_dir.glob(f".{BEST}-*.partial"), final):
                if stale.exists():
                    shutil.rmtree(stale)
            scratch.mkdir()
            for name in (CONFIG, TOKENIZER):
                shutil.copyfile(run_dir / name, scratch / name)
                to_disk(scratch / name)
            save_weights(scratch, weights, steps, samples_seen, loss, run_fingerprint)
            scratch.rename(final)
            to_disk(run_dir)
        link.unlink(missing_ok=True)
        link.symlink_to(final.name)
        link.replace(run_dir / BEST)
        for old in {*run_dir.glob(f"{BEST}-*")} - {final}:
            shutil.rmtree(old)


def _save_state(state: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch's word for whatever went wrong while it wrote
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
