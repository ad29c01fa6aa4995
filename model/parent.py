"""The process that started this one: when torchrun is gone, its processes must not train on."""

from __future__ import annotations

import os
import signal
import threading
import time

STARTED_BY = os.getppid()
POLL_S = 0.5
GRACE_S = 30.0
"""Long enough for a step and a checkpoint."""


def stop_with_parent(grace_s: float = GRACE_S) -> None:
    """From now on, if the parent ends, stop as SIGTERM does, and at the latest after `grace_s`.

    A process that waits for a dead peer never comes to see that it was asked; hence the end without asking. Watching
    works where the kernel's parent-death signal does not (macOS), and that one tells of a thread's end, not the process's.
    """
    if os.getppid() != STARTED_BY:
        raise SystemExit("the process that started this one has ended already")
    threading.Thread(target=_watch, args=(grace_s,), name="parent", daemon=True).start()


def _watch(grace_s: float) -> None:
    while os.getppid() == STARTED_BY:
        time.sleep(POLL_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s)
    os.kill(os.getpid(), signal.SIGKILL)
