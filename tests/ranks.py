"""Several real processes that talk over gloo, started from a server that has imported torch once."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch.distributed as dist


def run_ranks(world_size: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """`work(processes, *arguments)` in each process; their results by rank. A process that died gives its exit code as
    an `Exited`.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "model.train"])  # each optimiser needs torch._dynamo
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    running = []
    for rank in range(world_size):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_child, args=(rank, world_size, store.port, theirs, work, arguments))
        process.start()
        theirs.close()
        running.append((process, ours))
    results = []
    for process, ours in running:
        result = Exited(0)
        with contextlib.suppress(EOFError):
            result = pickle.loads(ours.recv_bytes())
        process.join(60)
        if process.is_alive():
            process.kill()
            process.join()
        results.append(Exited(process.exitcode or 0) if isinstance(result, Exited) else result)
    return results


class Exited:
    """A process ended without a result."""

    def __init__(self, code: int) -> None:
        self.code = code

    def __repr__(self) -> str:
        return f"Exited({self.code})"


def _child(
    rank: int, world_size: int, port: int, pipe: Connection, work: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    import torch

    from model import distributed

    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK=str(rank), CUDA_VISIBLE_DEVICES="")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_USE_AGENT_STORE="True")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    processes = distributed.start()
    try:
        pipe.send_bytes(pickle.dumps(work(processes, *arguments)))  # not torch's way, whose memory dies with us
    finally:
        distributed.stop()
