"""Temporary folders that a killed process does not leave for ever: the next one that needs some removes them.

Each process has one folder below the system's temporary folder and holds a lock on it, which the kernel gives back however the
process ends. What bears this machine's name and is not locked is nobody's.
"""

from __future__ import annotations

import atexit
import fcntl
import functools
import os
import platform
import shutil
import tempfile
import threading
from pathlib import Path

PREFIX = f"wit-scratch-{platform.node()}-"  # the temporary folder may be one that machines share
_lock = threading.Lock()


def scratch_folder(name: str) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder, for a `with`; `name` tells a person what lies in it."""
    with _lock:
        own = _folder_of_process()
    return tempfile.TemporaryDirectory(prefix=f"{name}-", dir=own)


@functools.cache
def _folder_of_process() -> Path:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        _remove_if_left(folder)
    while True:
        own = Path(tempfile.mkdtemp(prefix=PREFIX))
        _locked(own)  # for as long as this process lives
        if own.exists():  # else another process took it for one that was left, before it was locked
            atexit.register(shutil.rmtree, own, ignore_errors=True)
            return own


def _remove_if_left(folder: Path) -> None:
    held = _locked(folder)
    if held is not None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def _locked(folder: Path) -> int | None:
    """A file descriptor that holds the lock; None where another has it, the folder is gone, or its file system has no locks."""
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(opened)
        return None
    return opened
