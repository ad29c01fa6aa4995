"""Gradients of a batch that is too large for one forward pass.

GradCache (Gao et al. 2021, arXiv:2101.06983): the rows of all pieces are computed without a graph, the loss and its gradients
with respect to the rows once over all of them, then each piece again with its graph, through which its rows' gradients flow.
The second pass draws the random numbers of the first. Batch norm normalises each piece by itself, both times alike (as
if each were a smaller share), and its running statistics take in each piece once, in the second pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from model.config import Precision
from model.distributed import Processes
from model.objectives.objective import Inputs, Objective, Outputs
from model.precision import autocast


def _as_it_is(loss: Tensor) -> Tensor:
    return loss


def backward(
    objective: Objective,
    wrapped: nn.Module,
    inputs: Inputs,
    processes: Processes,
    micro_batch: int,
    precision: Precision,
    scaled: Callable[[Tensor], Tensor] = _as_it_is,
) -> tuple[Tensor, Outputs]:
    """Add the gradients of a share to the parameters; `micro_batch` samples at once, 0 = all.

    `wrapped` is the objective as `Processes.wrap` gives it; the gradients are those of the `scaled` loss. Inputs come to the
    device as they are needed: of a large share the images alone would fill it. Returns the loss of the share and its outputs,
    without graphs.
    """
    if not micro_batch or micro_batch >= len(inputs.image_BHWC):
        with autocast(precision, processes.device):
            outputs: Outputs = wrapped(inputs.to(processes.device))
        loss = objective.loss(outputs, processes)
        scaled(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach(), _without_graph(outputs)
    pieces = inputs.split(micro_batch)
    states, cached = _first_pass(objective, pieces, processes, precision)
    loss = objective.loss(cached, processes)
    scaled(loss).backward()  # type: ignore[no-untyped-call]
    gradients = [
        torch.split(row.grad, micro_batch) if row.grad is not None else [None] * len(pieces) for row in cached.rows
    ]
    for number, (piece, state, *row_gradients) in enumerate(zip(pieces, states, *gradients, strict=True), 1):
        is_last = number == len(pieces)
        _set_random_state(processes.device, state)
        with processes.gradients_kept_apart(wrapped, not is_last):
            with autocast(precision, processes.device):
                outputs = wrapped(piece.to(processes.device))
            # The shared scalars' gradient is that of the whole batch: it counts once.
            shared_gradients = [scalar.grad if is_last else torch.zeros_like(scalar) for scalar in cached.shared]
            paired = zip((*outputs.rows, *outputs.shared), (*row_gradients, *shared_gradients), strict=True)
            flowing = [(tensor, gradient) for tensor, gradient in paired if tensor.requires_grad]
            torch.autograd.backward(*zip(*flowing, strict=True))  # type: ignore[arg-type]
    return loss.detach(), _without_graph(cached)


def _first_pass(
    objective: Objective, pieces: list[Inputs], processes: Processes, precision: Precision
) -> tuple[list[Tensor], Outputs]:
    """The state of the random numbers before each piece, and what a loss of all of them is made of, as leaves of its graph."""
    states, parts = [], []
    with torch.no_grad(), running_statistics_kept(objective):
        for piece in pieces:
            states.append(_random_state(processes.device))
            with autocast(precision, processes.device):
                parts.append(objective(piece.to(processes.device)))
    rows = zip(*(part.rows for part in parts), strict=True)
    return states, Outputs(
        rows=tuple(torch.cat(row_parts).requires_grad_() for row_parts in rows),
        shared=tuple(scalar.clone().requires_grad_() for scalar in parts[0].shared),
    )


def _without_graph(outputs: Outputs) -> Outputs:
    return Outputs(tuple(row.detach() for row in outputs.rows), tuple(scalar.detach() for scalar in outputs.shared))


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """The batch norms in a module."""
    return [part for part in module.modules() if isinstance(part, _BatchNorm)]


@contextmanager
def running_statistics_kept(module: nn.Module) -> Iterator[None]:
    """Batch norm in training normalises as ever, but takes nothing into its running statistics."""
    norms = batch_norms(module)
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
