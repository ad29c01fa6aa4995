"""A run in one process: what it is made of, and how it is set up or resumed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from model.average import Average
from model.checkpoint import (
    DONE,
    MODEL,
    TOKENIZER,
    CheckpointRecord,
    DoneRecord,
    Position,
    Record,
    Say,
    fingerprint,
    load_checkpoint,
    newest_checkpoint,
    read_done,
    require_final,
    tell,
    weights_of,
)
from model.compiling import compile_blocks, require_compiler
from model.config import PretrainConfig
from model.data import Dataset, Loader, Order
from model.data.mixture import MixedOrder, MixedSplit
from model.data.sources import open_data, order_of
from model.distributed import Processes
from model.errors import InputError
from model.files import sha256_file, write_text
from model.fsdp import gathered, require_several, spread
from model.judging import evaluation_sets_of, require_judged
from model.metrics import Progress
from model.objectives.build import build_objective
from model.objectives.objective import Objective
from model.optim import build_optimizer, restore_optimizer
from model.parts import cut
from model.precision import build_scaler
from model.recompute import recompute_blocks
from model.saving import Writer
from model.start import copy_weights, load_start
from model.tokenizer import TRAINED, Tokenizer

if TYPE_CHECKING:
    from model.evaluation.sets import EvaluationSet

TOKENIZER_CAPTIONS = 10_000_000  # shards are shuffled: the first captions are a fair sample of a larger data set


@dataclass
class Training:
    """A run in this process."""

    run_dir: Path
    config: PretrainConfig
    dataset: Dataset
    order: Order | MixedOrder
    tokenizer: Tokenizer
    fingerprint: str
    processes: Processes
    objective: Objective
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: GradScaler
    average: Average | None
    progress: Progress
    sets: list[EvaluationSet]
    step: int = 0  # steps taken
    loss: float = math.nan  # of the last step that was not left out, over the global batch
    gradient_norm: float = math.nan  # of that step, before it is clipped
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    best: tuple[str, float] | None = None  # what train.keep_best names, and its best value so far
    writer: Writer = field(default_factory=Writer)

    @property
    def steps(self) -> int:
        return self.config.train.epochs * self.order.steps_per_epoch

    @property
    def samples_seen(self) -> int:
        return self.step * self.order.global_batch

    @property
    def position(self) -> Position:
        """What a checkpoint tells of it."""
        loss, norm = (None if math.isnan(value) else value for value in (self.loss, self.gradient_norm))
        return Position(self.step, self.samples_seen, loss, norm, self.skipped_steps, self.skipped_in_a_row, self.best)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it besides the model."""
        state = {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}
        return state if self.average is None else {**state, "average": self.average.weights}

    def restore(self, checkpoint: CheckpointRecord, state: dict[str, Any]) -> None:
        """Be where a checkpoint was; `state` is as above."""
        self.step = checkpoint.step
        self.loss = math.nan if checkpoint.loss is None else checkpoint.loss
        self.gradient_norm = math.nan if checkpoint.gradient_norm is None else checkpoint.gradient_norm
        self.skipped_steps, self.skipped_in_a_row = checkpoint.skipped_steps, checkpoint.skipped_in_a_row
        if checkpoint.best is not None and checkpoint.best[0] == self.config.train.keep_best:
            self.best = checkpoint.best
        restore_optimizer(self.optimizer, state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            for name, weight in self.average.weights.items():
                weight.copy_(cut(state["average"][name], weight))

    def averaged(self) -> AbstractContextManager[None]:
        """The weights that are judged and kept: their average where there is one."""
        return nullcontext() if self.average is None else self.average.in_place()

    @property
    def is_spread(self) -> bool:
        """Whether each process holds a part of the model."""
        return self.config.train.parallel == "fsdp"

    def gathered(self) -> AbstractContextManager[None]:
        """Each process may use the model as often as it likes, whatever the others do."""
        return gathered(self.objective) if self.is_spread else nullcontext()

    def weights(self) -> dict[str, Tensor]:
        """The model's, in process 0; all must ask."""
        self.processes.at("bringing weights together")
        return weights_of(self.objective, self.processes.is_first)

    @property
    def samples_of_step(self) -> dict[str, dict[str, int]]:
        """Of a mix, what a line of metrics tells: how many samples of the last step each data set gave."""
        if not isinstance(self.order, MixedOrder):
            return {}
        return {"samples_of": dict(zip(self.config.data.mix, self.order.counts(self.step - 1), strict=True))}

    def loader(self) -> Loader:
        """This process's share of the training batches."""
        image_px, threads = self.config.model.vision.image_px, self.config.train.loader_threads
        rank, world_size = self.processes.rank, self.processes.world_size
        scaled = self.config.data.decoding == "scaled"
        return Loader(self.dataset.train, self.tokenizer, self.order, image_px, threads, rank, world_size, scaled)


def prepare(
    run_dir: Path, config: PretrainConfig, shards: str, processes: Processes, mixed: Sequence[str] = ()
) -> Training | None:
    """Everything up to the first step, resumed from the newest checkpoint; None if the run is finished.

    `shards` and `mixed` are as for `open_data`.

    Raises InputError, in all processes, if the run cannot be made or is not the one in the folder.
    """
    require_several(config.train, processes)
    dataset = processes.together(lambda: open_data(shards, mixed, config))
    order = order_of(dataset, config)
    say = tell if processes.is_first else _say_nothing
    done = read_done(run_dir)
    is_final = done is not None and _is_final_whole(run_dir, done, say)
    newest = None if is_final else newest_checkpoint(run_dir, say)
    record = done or (newest[1] if newest else None)
    processes.first_alone(lambda: _ensure_tokenizer(run_dir, dataset, config, record, say))
    tokenizer = Tokenizer.load(run_dir / TOKENIZER, config.model.text.context_length)
    identity = fingerprint(config, dataset.digest, run_dir / TOKENIZER, processes.world_size)
    for found, what in ((done, "a finished run"), (newest[1] if newest else None, "checkpoints")):
        _require_same(run_dir, identity, found, what)
    if done is not None and is_final:
        say(f"{config.name}: already finished after {done.steps} steps, nothing to do")
        return None
    if done is not None:
        _reopen(run_dir, newest is not None, processes)
    torch.manual_seed(config.train.seed)
    objective = build_objective(config).to(processes.device)
    if config.train.parallel == "ddp":
        objective = objective.to(memory_format=torch.channels_last)  # FSDP2 takes weights of the usual layout alone
    if config.start_from and newest is None:
        copy_weights(load_start(run_dir, config), objective.towers)
    if config.train.locked != "none":
        objective.lock(config.train.locked)
    if config.train.compile:
        processes.together(lambda: require_compiler(processes.device))
        compile_blocks(objective)
    if config.train.gradient_checkpointing:
        recompute_blocks(objective)
    require_judged(config, dataset, objective)
    sets = evaluation_sets_of(config, objective)
    state = load_checkpoint(newest[0], objective) if newest else {}
    wrapped = spread(objective, processes) if config.train.parallel == "fsdp" else processes.wrap(objective)
    optimizer = build_optimizer(objective, config.train)
    step = newest[1].step if newest else 0
    training = Training(
        run_dir=run_dir,
        config=config,
        dataset=dataset,
        order=order,
        tokenizer=tokenizer,
        fingerprint=identity,
        processes=processes,
        objective=objective,
        wrapped=wrapped,
        optimizer=optimizer,
        scaler=build_scaler(config.train.precision, processes.device),
        average=Average(objective, config.train.ema_decay) if config.train.ema_decay else None,
        progress=Progress(step, config.train.epochs * order.steps_per_epoch, processes.is_first),
        sets=sets,
    )
    if newest is not None:
        training.restore(newest[1], state)
    _introduce(training)
    return training


def _is_final_whole(run_dir: Path, done: DoneRecord, say: Say) -> bool:
    try:
        require_final(run_dir, done)
    except InputError as error:
        say(f"{error}; it is written again from the last checkpoint")
        return False
    return True


def _reopen(run_dir: Path, has_checkpoint: bool, processes: Processes) -> None:
    """Let a finished run whose model was damaged go on from its checkpoint; without one that would be another training."""
    if not has_checkpoint:
        raise InputError(
            f"{run_dir / MODEL} is damaged and there is no checkpoint to write it again from; copy the run again, or "
            f"delete {run_dir} to train anew"
        )
    processes.first_alone((run_dir / DONE).unlink)


def _ensure_tokenizer(run_dir: Path, dataset: Dataset, config: PretrainConfig, record: Record | None, say: Say) -> None:
    """Learn or read the tokenizer of a new run; do so again for an older one whose file was damaged: it comes out the same."""
    path, text = run_dir / TOKENIZER, config.model.text
    if record is not None:
        if path.is_file() and sha256_file(path) == record.tokenizer_sha256:
            return
        is_learned = config.tokenizer == TRAINED and not config.start_from
        again = "learned again from the same captions" if is_learned else "read again"
        say(f"{path} is missing or damaged; it is {again}")
    if config.start_from:
        tokenizer = load_start(run_dir, config).tokenizer
    elif config.tokenizer == TRAINED:
        captions = islice(dataset.train.captions(), TOKENIZER_CAPTIONS)
        tokenizer = Tokenizer.train(captions, text.vocab_size, text.context_length)
    else:
        tokenizer = Tokenizer.ready_made(config.tokenizer, text.context_length)
    if tokenizer.vocab_size > text.vocab_size:
        raise InputError(
            f"model.text.vocab_size is {text.vocab_size:,}, but the tokenizer {config.tokenizer!r} has "
            f"{tokenizer.vocab_size:,} entries; set it to as many"
        )
    write_text(path, tokenizer.to_json())


def _require_same(run_dir: Path, identity: str, found: Record | None, what: str) -> None:
    if found is not None and found.fingerprint != identity:
        raise InputError(
            f"{run_dir} holds {what} of another configuration or data set; choose another name for the run, or remove that "
            "folder (a ResNet's batch norm also depends on the number of processes)"
        )


def _say_nothing(message: str) -> None:
    """What all processes but the first say."""


def _introduce(training: Training) -> None:
    order, processes, say = training.order, training.processes, training.progress.say
    parameters = sum(parameter.numel() for parameter in training.objective.parameters())
    say(f"{training.config.name}: {parameters:,} parameters, {training.tokenizer.vocab_size:,} tokens")
    say(
        f"{order.samples:,} samples, {training.steps:,} steps of {order.global_batch:,} "
        f"on {processes.world_size} x {processes.device.type}{', the model spread over them' if training.is_spread else ''}"
    )
    if order.dropped_per_epoch:
        say(f"{order.dropped_per_epoch:,} samples of each epoch do not fill a global batch and are left out of it")
    if isinstance(order, MixedOrder) and isinstance(training.dataset.train, MixedSplit):
        counts = zip(training.dataset.train.parts.items(), order.samples_of, strict=True)
        say("of each epoch " + ", ".join(f"{count:,} of {name} ({len(part):,})" for (name, part), count in counts))
    if training.step:
        say(f"resumed at step {training.step}")
