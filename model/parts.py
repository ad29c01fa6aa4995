"""Tensors of which every process holds a part, some rows of the first axis: torch's DTensor, as model/fsdp.py makes them.

Every other tensor is whole, and is left as it is. What brings parts together must be called in all processes, in the same order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def _is_part(tensor: Tensor) -> TypeGuard[DTensor]:
    # By what it alone has: the class takes a second to import, also where nothing is spread.
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """All of it, brought together from all processes."""
    return tensor.full_tensor() if _is_part(tensor) else tensor


def own(tensor: Tensor) -> Tensor:
    """The part of it that this process holds; what is written to it, without gradients, is written to the tensor."""
    return tensor.to_local() if _is_part(tensor) else tensor


def cut(tensor: Tensor, like: Tensor) -> Tensor:
    """Of a whole tensor, the same in all processes, the part that this one holds of `like`, on its device."""
    if not _is_part(like):
        return tensor
    from torch.distributed.tensor import DTensor

    mesh = like.device_mesh
    parts = (*tensor.chunk(mesh.size()), *[tensor[:0]] * mesh.size())  # some have no rows of a short tensor
    part = parts[mesh.get_local_rank()].to(like.device, copy=True)
    return DTensor.from_local(
        part.contiguous(), mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def largest(values: Tensor, like: Tensor) -> Tensor:
    """Of each of some numbers of parts of `like`, the largest that any process has."""
    if _is_part(like):
        dist.all_reduce(values, dist.ReduceOp.MAX, group=like.device_mesh.get_group())
    return values
