"""One step of training, the same in all processes.

Axes: B a process's share of the batch, C H W the image, L tokens, K random numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from model.data import Batch, SampleError
from model.distributed import PeerError
from model.errors import InputError
from model.fsdp import average_scalars
from model.gradients import backward, batch_norms
from model.objectives.objective import Inputs, Outputs
from model.optim import learning_rate, set_learning_rate
from model.parts import whole
from model.training import Training

SAMPLES_NAMED = 8


class DivergedError(ArithmeticError):
    """The loss, a gradient or a weight is not finite, and leaving out steps did not help."""


class Skipped(NamedTuple):
    """A step that was left out."""

    why: str
    sample_ids: list[int]  # the samples whose rows are not finite, or else the first ones of the batch; at most 8


def train_step(training: Training, batch: Batch) -> Skipped | None:
    """One step of the optimiser, if loss and gradients of the global batch are finite.

    Else, in all processes alike, weights, optimiser and running statistics stay as they are, and it says why. Raises
    DivergedError if more than `max_skipped_steps` in a row would be left out.
    """
    objective, processes = training.objective, training.processes
    statistics = [buffer for norm in batch_norms(objective) for buffer in norm.buffers()]
    before = [buffer.clone() for buffer in statistics]
    loss, outputs = _backward(training, batch)
    mean_loss = processes.mean(loss)
    # The same in all processes, as the gradients are.
    training.scaler.unscale_(training.optimizer)
    weights = [weight for weight in objective.parameters() if weight.grad is not None]
    norm = whole(get_total_norm([weight.grad for weight in weights if weight.grad is not None]))
    training.scaler.update()
    if math.isfinite(mean_loss) and bool(norm.isfinite()):
        if training.config.train.clip_gradient_norm:
            clip_grads_with_norm_(weights, training.config.train.clip_gradient_norm, norm)
        set_learning_rate(training.optimizer, learning_rate(batch.step, training.steps, training.config.train))
        training.optimizer.step()
        objective.after_step(outputs, processes)
        if training.average is not None:
            training.average.update(batch.step)
        training.loss, training.gradient_norm, training.skipped_in_a_row = mean_loss, float(norm), 0
        return None
    for buffer, kept in zip(statistics, before, strict=True):
        buffer.copy_(kept)
    training.skipped_steps += 1
    training.skipped_in_a_row += 1
    skipped = _explain(training, batch, outputs, mean_loss)
    if training.skipped_in_a_row > training.config.train.max_skipped_steps:
        raise DivergedError(
            f"step {batch.step + 1}: {skipped.why}; train.max_skipped_steps lets "
            f"{training.config.train.max_skipped_steps} such steps in a row be left out; a lower learning_rate or more "
            "warmup_steps may help"
        )
    return skipped


def _explain(training: Training, batch: Batch, outputs: Outputs, mean_loss: float) -> Skipped:
    """What is not finite, and of which samples; the same in all processes, which must all ask."""
    what = "a gradient is not finite" if math.isfinite(mean_loss) else f"the loss is {mean_loss}"
    ids = training.order.sample_ids(batch.step)
    is_finite_B = torch.stack([row.isfinite().flatten(1).all(dim=1) for row in outputs.rows]).all(dim=0)
    (is_bad_G1,) = training.processes.gather((~is_finite_B).float()[:, None])
    bad_ids = ids[is_bad_G1[:, 0].bool().cpu().numpy()]
    if not 0 < len(bad_ids) < len(ids):
        named = ids[:SAMPLES_NAMED].tolist()
        return Skipped(f"{what}; the batch begins with samples {named}", named)
    named = bad_ids[:SAMPLES_NAMED].tolist()
    return Skipped(
        f"{what}; {len(bad_ids):,} of the batch's samples have features that are not finite, the first are {named} "
        f"({training.dataset.train.where(named[0])})",
        named,
    )


def require_finite(training: Training) -> None:
    """Raise DivergedError, in all processes, if a weight is not a finite number: a loss may be when its gradient is not."""
    for name, weight in training.objective.named_parameters():
        if not whole(torch.isfinite(weight).all()):
            raise DivergedError(
                f"step {training.step}: {name} is not finite; nothing of it was saved. Run the same command to go on "
                "from the last checkpoint, or start anew with a lower learning_rate or more warmup_steps"
            )


def _backward(training: Training, batch: Batch) -> tuple[Tensor, Outputs]:
    objective, processes, config = training.objective, training.processes, training.config.train
    _seed_step(config.seed, batch.step, processes.rank)
    training.optimizer.zero_grad(set_to_none=True)
    inputs = inputs_of(training, batch)
    processes.at("computing gradients")
    loss, outputs = backward(
        objective, training.wrapped, inputs, processes, config.micro_batch, config.precision, training.scaler.scale
    )
    if training.is_spread:
        average_scalars(objective, processes)
    return loss, outputs


def inputs_of(training: Training, batch: Batch) -> Inputs:
    """A batch with its samples' random numbers, where the loader put it."""
    draws_BK = training.order.draws(batch.step, batch.sample_ids, training.objective.draws)
    return Inputs(batch.image_BHWC, batch.tokens_BL, torch.from_numpy(draws_BK).to(torch.float32))


def _seed_step(seed: int, step: int, rank: int) -> None:
    """Dropout of a step depends on the step alone, so that a resumed run drops the same."""
    digest = hashlib.blake2b(repr(("step", seed, step, rank)).encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "little", signed=True))


def batches(training: Training, stop_requested: Callable[[], bool]) -> Iterator[Batch | None]:
    """This process's batches; None, as the last one, where any process was asked to stop.

    An error of one process's data, or of the checkpoint that process 0 writes, ends all of them at the same step.
    """
    local = training.loader().batches(training.step, training.steps)
    for step in range(training.step, training.steps):
        training.processes.at("reading its batch", step + 1)
        batch: Batch | None = None
        unread: SampleError | None = None
        unwritten: InputError | None = None
        try:
            batch = next(local)
        except SampleError as problem:
            unread = problem
        try:
            training.writer.check()
        except InputError as problem:
            unwritten = problem
        stopping, is_unread, is_unwritten = training.processes.any_flags(
            stop_requested(), unread is not None, unwritten is not None
        )
        error = unread or unwritten
        if error is not None:
            raise error
        if is_unread or is_unwritten:
            raise PeerError("another process cannot read its data" if is_unread else "process 0 failed")
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
    if training.processes.world_size <= 2 or training.is_spread or training.step == training.steps:
        return
    buffers = [buffer.clone() for buffer in training.objective.buffers()]
    batch = next(batches(training, stop_requested=lambda: False))
    assert batch is not None
    _backward(training, batch)
    training.optimizer.zero_grad(set_to_none=True)
    for buffer, before in zip(training.objective.buffers(), buffers, strict=True):
        buffer.copy_(before)
