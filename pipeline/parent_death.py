"""No orphan: a process that ends when the one that started it does, even by `kill -9`. Only Linux can."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
# Loaded here, for between fork and exec nothing may be loaded: another thread could have held the loader's lock.
_LIBC = ctypes.CDLL(None)


def die_with_parent(parent_pid: int, by: signal.Signals) -> None:
    """Ask the kernel for the signal `by` when the *thread* that started this process ends.

    To be called in the child: first of all, or between fork and exec.
    """
    if sys.platform != "linux":
        return
    _LIBC.prctl(PR_SET_PDEATHSIG, by)
    if os.getppid() != parent_pid:  # it died before the kernel was asked
        os._exit(1)
