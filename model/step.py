"""One step of training, the same in all processes.

Axes: B a process's share of the batch, C H W the image, L tokens, K random numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from model.data import Batch, SampleError
from model.distributed import PeerError
from model.gradients import backward
from model.objectives.objective import Inputs, Outputs
from model.optim import learning_rate, set_learning_rate
from model.training import Training


class DivergedError(ArithmeticError):
    """The loss is not finite."""


def train_step(training: Training, batch: Batch) -> float:
    """One step of the optimiser; returns the loss of the global batch before it.

    Raises DivergedError instead of taking the step if that loss is not finite.
    """
    loss, outputs = _backward(training, batch)
    mean_loss = training.processes.mean(loss)
    if not math.isfinite(mean_loss):
        first_ids = training.order.sample_ids(batch.step)[:8].tolist()
        raise DivergedError(
            f"step {batch.step + 1}: the loss is {mean_loss}; the batch begins with samples {first_ids}; "
            "a lower learning_rate or more warmup_steps may help"
        )
    set_learning_rate(training.optimizer, learning_rate(batch.step, training.steps, training.config.train))
    training.optimizer.step()
    training.objective.after_step(outputs, training.processes)
    return mean_loss


def require_finite(training: Training) -> None:
    """Raise DivergedError, in all processes, if a weight is not a finite number: a loss may be when its gradient is not."""
    for name, weight in training.objective.named_parameters():
        if not torch.isfinite(weight).all():
            raise DivergedError(
                f"step {training.step}: {name} is not finite; nothing of it was saved. Run the same command to go on "
                "from the last checkpoint, or start anew with a lower learning_rate or more warmup_steps"
            )


def _backward(training: Training, batch: Batch) -> tuple[Tensor, Outputs]:
    objective, processes, config = training.objective, training.processes, training.config.train
    _seed_step(config.seed, batch.step, processes.rank)
    training.optimizer.zero_grad(set_to_none=True)
    draws_BK = training.order.draws(batch.step, batch.sample_ids, objective.draws)
    inputs = Inputs(
        image_BHWC=batch.image_BHWC.to(processes.device, non_blocking=True),
        tokens_BL=batch.tokens_BL.to(processes.device, non_blocking=True),
        draws_BK=torch.from_numpy(draws_BK).to(processes.device, torch.float32),
    )
    return backward(objective, training.wrapped, inputs, processes, config.micro_batch, config.precision == "bf16")


def _seed_step(seed: int, step: int, rank: int) -> None:
    """Dropout of a step depends on the step alone, so that a resumed run drops the same."""
    digest = hashlib.blake2b(repr(("step", seed, step, rank)).encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "little", signed=True))


def batches(training: Training, stop_requested: Callable[[], bool]) -> Iterator[Batch | None]:
    """This process's batches; None, as the last one, where any process was asked to stop.

    An error of one process's data ends all of them at the same step.
    """
    local = training.loader().batches(training.step, training.steps)
    for _ in range(training.step, training.steps):
        batch: Batch | None = None
        error: SampleError | None = None
        try:
            batch = next(local)
        except SampleError as problem:
            error = problem
        stopping, failing = training.processes.any_flags(stop_requested(), error is not None)
        if error is not None:
            raise error
        if failing:
            raise PeerError("another process cannot read its data")
        if stopping:
            yield None
            return
        yield batch


def rehearse(training: Training) -> None:
    """One step whose result is thrown away, where the order of sums depends on it.

    After its first backward pass DDP lays its gradients out anew, and with more than two processes a sum depends on
    where in the layout it stands. With that done before the first real step, a resumed run adds in the same order as an
    undisturbed one.
    """
    if training.processes.world_size <= 2 or training.step == training.steps:
        return
    buffers = [buffer.clone() for buffer in training.objective.buffers()]
    batch = next(batches(training, stop_requested=lambda: False))
    assert batch is not None
    _backward(training, batch)
    training.optimizer.zero_grad(set_to_none=True)
    for buffer, before in zip(training.objective.buffers(), buffers, strict=True):
        buffer.copy_(before)
