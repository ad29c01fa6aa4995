"""Work that is killed at a given step, as `kill -9` does; light to import, for each kill is a process that imports this."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from typing import Any


def killed(step: int, work: Callable[..., object], *arguments: object) -> bool:
    """Do `work` in another process, which dies when it opens a file to write, renames or removes one for the `step`th time.

    Returns whether there was such a step.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__])
    process = context.Process(target=_work, args=(step, work, *arguments))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def _work(step: int, work: Callable[..., object], *arguments: object) -> None:
    seen = 0

    def count(event: str, given: tuple[Any, ...]) -> None:
        nonlocal seen
        writes = event == "open" and isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir"):
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    work(*arguments)
