"""The process that started this one: when torchrun is gone, its processes must not train on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

STARTED_BY = os.getppid()
POLL_S = 0.5
GRACE_S = 30.0
"""Long enough for a step and a checkpoint."""


@contextmanager
def stopping_with_parent(grace_s: float = GRACE_S) -> Iterator[None]:
    """If the parent ends meanwhile, stop as SIGTERM does, and at the latest after `grace_s`.

    A process that waits for a dead peer never comes to see that it was asked; hence the end without asking. Watching
    works where the kernel's parent-death signal does not (macOS), and that one tells of a thread's end, not the process's.
    """
    if os.getppid() != STARTED_BY:
        raise SystemExit("the process that started this one has ended already")
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(over, grace_s), name="parent", daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()


def _watch(over: threading.Event, grace_s: float) -> None:
    while os.getppid() == STARTED_BY:
        if over.wait(POLL_S):
            return
    os.kill(os.getpid(), signal.SIGTERM)
    if not over.wait(grace_s):
        os.kill(os.getpid(), signal.SIGKILL)
