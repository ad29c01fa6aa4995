"""A run in one process: what it is made of, and how it is set up or resumed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import nn

from model.checkpoint import (
    TOKENIZER,
    CheckpointRecord,
    DoneRecord,
    fingerprint,
    load_checkpoint,
    newest_checkpoint,
    read_config,
    read_done,
    write_text,
)
from model.clip import CLIP
from model.config import PretrainConfig
from model.data import Dataset, Loader, Order, open_dataset
from model.distributed import Processes
from model.metrics import Progress
from model.optim import build_optimizer
from model.tokenizer import Tokenizer

TOKENIZER_CAPTIONS = 10_000_000  # shards are shuffled: the first captions are a fair sample of a larger data set


@dataclass
class Training:
    """A run in this process."""

    run_dir: Path
    config: PretrainConfig
    dataset: Dataset
    order: Order
    tokenizer: Tokenizer
    fingerprint: str
    processes: Processes
    model: CLIP
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    progress: Progress
    step: int = 0  # steps taken
    loss: float = math.nan  # of the last step, over the global batch

    @property
    def steps(self) -> int:
        return self.config.train.epochs * self.order.steps_per_epoch

    @property
    def samples_seen(self) -> int:
        return self.step * self.order.global_batch

    def loader(self) -> Loader:
        """This process's share of the training batches."""
        image_px, threads = self.config.model.vision.image_px, self.config.train.loader_threads
        rank, world_size = self.processes.rank, self.processes.world_size
        return Loader(self.dataset.train, self.tokenizer, self.order, image_px, threads, rank, world_size)


def prepare(run_dir: Path, shards: str, processes: Processes) -> Training | None:
    """Everything up to the first step, resumed from the newest checkpoint; None if the run is finished.

    Raises ValueError or FileNotFoundError, in all processes, if the run cannot be made or is not the one in the folder.
    """
    config = read_config(run_dir)
    dataset = open_dataset(shards)
    order = Order(len(dataset.train), config.train.global_batch, config.train.seed)
    newest, done = newest_checkpoint(run_dir), read_done(run_dir)
    if newest is None and done is None:
        processes.first_alone(lambda: _train_tokenizer(run_dir, dataset, config))
    tokenizer = Tokenizer.load(run_dir / TOKENIZER, config.model.text.context_length)
    identity = fingerprint(config, dataset.digest, run_dir / TOKENIZER, processes.world_size)
    _require_same(run_dir, identity, done, newest[1] if newest else None)
    if done is not None:
        progress = Progress(done.steps, done.steps, processes.is_first)
        progress.say(f"{config.name}: already finished after {done.steps} steps, nothing to do")
        progress.close()
        return None
    torch.manual_seed(config.train.seed)
    model = CLIP(config.model).to(processes.device).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(model, config.train)
    step, loss = 0, math.nan
    if newest is not None:
        folder, checkpoint = newest
        load_checkpoint(folder, model, optimizer)
        step, loss = checkpoint.step, checkpoint.loss
    training = Training(
        run_dir=run_dir,
        config=config,
        dataset=dataset,
        order=order,
        tokenizer=tokenizer,
        fingerprint=identity,
        processes=processes,
        model=model,
        wrapped=processes.wrap(model),
        optimizer=optimizer,
        progress=Progress(step, config.train.epochs * order.steps_per_epoch, processes.is_first),
        step=step,
        loss=loss,
    )
    _introduce(training)
    return training


def _require_same(run_dir: Path, identity: str, done: DoneRecord | None, checkpoint: CheckpointRecord | None) -> None:
    for found, what in ((done, "a finished run"), (checkpoint, "checkpoints")):
        if found is not None and found.fingerprint != identity:
            raise ValueError(
                f"{run_dir} holds {what} of another configuration or data set; choose another name for the run, or remove that "
                "folder (a ResNet's batch norm also depends on the number of processes)"
            )


def _train_tokenizer(run_dir: Path, dataset: Dataset, config: PretrainConfig) -> None:
    captions = islice(dataset.train.captions(), TOKENIZER_CAPTIONS)
    text = config.model.text
    tokenizer = Tokenizer.train(captions, text.vocab_size, text.context_length)
    write_text(run_dir / TOKENIZER, tokenizer.to_json())


def _introduce(training: Training) -> None:
    order, processes, say = training.order, training.processes, training.progress.say
    parameters = sum(parameter.numel() for parameter in training.model.parameters())
    say(f"{training.config.name}: {parameters:,} parameters, {training.tokenizer.vocab_size:,} tokens")
    say(
        f"{order.samples:,} samples, {training.steps:,} steps of {order.global_batch:,} "
        f"on {processes.world_size} x {processes.device.type}"
    )
    if order.dropped_per_epoch:
        say(f"{order.dropped_per_epoch:,} samples of each epoch do not fill a global batch and are left out of it")
    if training.step:
        say(f"resumed at step {training.step}")
