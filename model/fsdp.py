"""A model spread over all processes (FSDP2, torch's fully_shard): each holds a part of every weight, of its gradient and of
what the optimiser keeps of it. A block is whole in every process while it computes, and no longer.

Outside of forward and backward passes the parameters are parts (model/parts.py). A scalar cannot be cut: it is whole in every
process, and its gradient is averaged here.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from model.config import TrainConfig
from model.distributed import Processes
from model.errors import InputError
from model.recompute import blocks_of


def require_several(config: TrainConfig, processes: Processes) -> None:
    """Raise InputError if a model is to be spread over one process."""
    if config.parallel == "fsdp" and processes.world_size == 1:
        raise InputError(
            "train.parallel is fsdp, which spreads the model over several processes, but this run has one; start more "
            "(train.processes, or --nproc-per-node of torch.distributed.run), or set it to ddp"
        )


def spread(model: nn.Module, processes: Processes) -> nn.Module:
    """Leave every process its part of each weight; build what refers to parameters afterwards, as they become other objects.

    All processes must have the same weights, in the usual layout of memory.
    """
    from torch.distributed.fsdp import fully_shard  # it takes long to import

    # The group that exists: one made for a mesh would have a timeout that model/hang.py does not know.
    group = dist.group.WORLD
    assert group is not None
    mesh = DeviceMesh.from_group(group, processes.device.type)
    # It warns of writing to what is returned, which nobody does.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor", category=UserWarning)
    scalars = {weight for weight in model.parameters() if not weight.ndim}
    for part in (*blocks_of(model), model):
        # Also the model itself: else its own weights would stay whole after a pass that no backward pass follows.
        fully_shard(part, mesh=mesh, reshard_after_forward=True, ignored_params=scalars)
    return model


def average_scalars(model: nn.Module, processes: Processes) -> None:
    """Bring the gradients of scalars together, as torch does those of all other parameters."""
    gradients = [weight.grad for weight in model.parameters() if not weight.ndim and weight.grad is not None]
    if not gradients:
        return
    processes.at("averaging gradients")
    sums = torch.stack(gradients)
    dist.all_reduce(sums, dist.ReduceOp.SUM)
    for gradient, total in zip(gradients, sums, strict=True):
        gradient.copy_(total / processes.world_size)


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Every process has the whole model, so that parts of it may be called one by one, in each process as often as it likes.

    No gradients, and no change of weights. All processes must begin and end it.
    """
    from torch.distributed.fsdp import FSDPModule

    parts = [part for part in model.modules() if isinstance(part, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()
            part.set_reshard_after_forward(True, recurse=False)
