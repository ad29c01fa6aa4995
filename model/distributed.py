"""The processes of a run and the few things they tell each other. Only model/fsdp.py and parts.py know torch.distributed too.

One process needs no launcher; several are started by torchrun, which sets RANK, WORLD_SIZE and LOCAL_RANK.
Axes: B a process's share of the batch, G the global batch, D the shared space.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn.parallel import DistributedDataParallel

ResultT = TypeVar("ResultT")
NEVER = timedelta(days=365)
"""Torch's own timeout names nobody: model/hang.py ends a run that hangs."""
BOARD_TIMEOUT = timedelta(seconds=60)


class PeerError(RuntimeError):
    """Another process failed, and says itself why."""


class LoneError(ValueError):
    """An error that process 0 does not have: the process that has it must tell it."""


class At(Protocol):
    """Takes note of what this process begins, at which step."""

    def __call__(self, doing: str, step: int | None = None) -> None: ...


def _unwatched(doing: str, step: int | None = None) -> None:
    """Nobody waits for this process."""


@dataclass(frozen=True)
class Processes:
    """This process among all of them."""

    rank: int
    world_size: int
    device: torch.device
    at: At = _unwatched

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def any_flags(self, *flags: bool) -> tuple[bool, ...]:
        """Which flags are set in any process; the same answer in all. Does not wait for the GPU."""
        if self.world_size == 1:
            return flags
        self.at("agreeing with the others")
        mine = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(mine, dist.ReduceOp.MAX)
        return tuple(bool(flag) for flag in mine.tolist())

    def first_alone(self, work: Callable[[], ResultT]) -> ResultT | None:
        """Process 0 works while the others wait; its error ends them all, as a PeerError in the others.

        Returns what the work gave in process 0, None in the others.
        """
        self.at("letting process 0 read or write files")
        return self.together(lambda: work() if self.is_first else None, "process 0 failed")

    def together(self, work: Callable[[], ResultT], failed: str = "another process failed") -> ResultT:
        """All processes work; an error of any ends them all.

        The first process that had one raises it (as LoneError if that is not process 0), all others PeerError.
        """
        error: Exception | None = None
        try:
            result = work()
        except (ValueError, OSError) as problem:
            error = problem
        failures = self.any_flags(*(error is not None and rank == self.rank for rank in range(self.world_size)))
        if error is not None and not any(failures[: self.rank]):
            if self.is_first:
                raise error
            raise LoneError(str(error)) from error
        if any(failures):
            raise PeerError(failed)
        return result

    def total(self, count: int) -> int:
        """The sum of a number over all processes."""
        if self.world_size == 1:
            return count
        self.at("adding up a count")
        value = torch.tensor(count, dtype=torch.int64)
        dist.all_reduce(value, dist.ReduceOp.SUM)
        return int(value.item())

    def mean(self, value: Tensor) -> float:
        """The mean of a scalar over all processes; not finite if any of them is not."""
        value = value.detach().clone()
        if self.world_size > 1:
            self.at("taking a mean")
            dist.all_reduce(value, dist.ReduceOp.SUM)
        return value.item() / self.world_size

    def gather(self, *local: Tensor) -> list[Tensor]:
        """Rows of all processes in their order: each (B, ...) becomes (G, ...). Gradients flow back to their owners."""
        if self.world_size == 1:
            return list(local)
        self.at("gathering features")
        widths = [tensor.shape[1] for tensor in local]
        gathered: Tensor = _GatherRows.apply(torch.cat(local, dim=1))
        return list(torch.split(gathered, widths, dim=1))

    def merge_exponentials(self, largest_G: Tensor, sum_G: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of exponentials over each process's share, relative to exp(its largest), to those over all shares."""
        if self.world_size == 1:
            return largest_G, sum_G
        self.at("adding up the loss")
        largest_of_all_G = largest_G.clone()
        dist.all_reduce(largest_of_all_G, dist.ReduceOp.MAX)
        sum_of_all_G = sum_G * (largest_G - largest_of_all_G).exp()
        dist.all_reduce(sum_of_all_G, dist.ReduceOp.SUM)
        return largest_of_all_G, sum_of_all_G

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model with gradients averaged over all processes.

        Batch-norm statistics are not exchanged: only those of process 0 are ever used (see `share_buffers`).
        """
        if self.world_size == 1:
            return model
        device_ids = [self.device.index] if self.device.type == "cuda" else None
        with warnings.catch_warnings():
            # Its new name, forward_sync_buffers, is not in every version of torch that this project accepts.
            warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
            return DistributedDataParallel(
                model, device_ids=device_ids, broadcast_buffers=False, gradient_as_bucket_view=True
            )

    def gradients_kept_apart(self, wrapped: nn.Module, are_apart: bool) -> AbstractContextManager[None]:
        """While gradients only add up in each process; those of the next pass outside bring them together."""
        if are_apart and isinstance(wrapped, DistributedDataParallel):
            return wrapped.no_sync()
        return nullcontext()

    def share_buffers(self, buffers: Iterable[Tensor]) -> None:
        """Give all processes those of process 0."""
        if self.world_size > 1:
            self.at("sharing batch norm's statistics")
            for buffer in buffers:
                dist.broadcast(buffer, src=0)


def start() -> Processes:
    """Join the other processes; on GPUs if there are any (nccl), else on the CPU (gloo)."""
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    if world_size > 1:
        # Small agreements travel on the CPU even when the tensors live on GPUs.
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=NEVER)
    return Processes(rank, world_size, device)


def stop() -> None:
    """Leave the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


class Board:
    """What processes tell each other beside their work, over a connection of its own to where they met."""

    def __init__(self) -> None:
        store = dist.TCPStore(  # type: ignore[attr-defined]
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=BOARD_TIMEOUT
        )
        # A launcher that starts processes again keeps the place where the earlier ones met.
        again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self.store = dist.PrefixStore(f"webimagetext/{again}", store)  # type: ignore[attr-defined]

    def post(self, rank: int, text: str) -> None:
        """Tell all what `read` of this rank gives from now on. Raises RuntimeError if the place where they met is gone."""
        self.store.set(str(rank), text)

    def read(self, rank: int) -> str | None:
        """What that process told last, or None if nothing yet. Raises RuntimeError as `post` does."""
        return self.store.get(str(rank)).decode() if self.store.check([str(rank)]) else None


class _GatherRows(torch.autograd.Function):
    """All-gather along the first axis. Its backward adds up what every process has to say about each row."""

    @staticmethod
    def forward(ctx: FunctionCtx, local: Tensor) -> Tensor:
        local = local.contiguous()
        gathered = local.new_empty((dist.get_world_size() * len(local), *local.shape[1:]))
        dist.all_gather(list(gathered.chunk(dist.get_world_size())), local)
        return gathered

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        mine = gradient.new_empty((len(gradient) // dist.get_world_size(), *gradient.shape[1:]))
        dist.reduce_scatter(mine, list(gradient.chunk(dist.get_world_size())))
        return mine
