"""Starting the learning side: a process of its own, its lines passed on as they come, no orphan left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from pipeline.errors import InputError, WorkError
from pipeline.parent_death import die_with_parent

STOP_GRACE_S = 25
SHUTDOWN_TIMEOUT_S = 15
TAIL_LINES = 50
USER_ERROR = "error: "


class ProcessError(WorkError):
    """A process of the learning side ended with a status that is not 0; the message holds its last lines."""

    def __init__(self, module: str, status: int, tail: Sequence[str]) -> None:
        self.status = status
        self.tail = tuple(tail)
        super().__init__(f"python -m {module} ended with status {status}; its last lines:\n" + "\n".join(tail))


class Launcher(Protocol):
    """Runs `python -m module arguments` on so many processes that find each other."""

    def run(
        self, module: str, arguments: Sequence[str], processes: int, log: Path, on_line: Callable[[str], None]
    ) -> None:
        """Return when all processes have ended well.

        Raises InputError with the line that tells a person what to mend if there is one, else ProcessError.
        """
        ...


class LocalTorchrun:
    """torchrun on this machine.

    Call it from the main thread: the kernel's parent-death signal fires when the *thread* that forked ends.
    """

    def run(
        self, module: str, arguments: Sequence[str], processes: int, log: Path, on_line: Callable[[str], None]
    ) -> None:
        torchrun = [
            "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
            f"--shutdown-timeout={SHUTDOWN_TIMEOUT_S}", "-m", module,
        ]  # fmt: skip
        # One thread a process unless asked otherwise: torchrun's own default, said aloud so that it does not warn.
        environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        run_process(module, [sys.executable, *torchrun, *arguments], environment, log, on_line)


class LocalPython:
    """One plain Python process on this machine."""

    def run(
        self, module: str, arguments: Sequence[str], processes: int, log: Path, on_line: Callable[[str], None]
    ) -> None:
        if processes != 1:
            raise ValueError(f"one process only, not {processes}")
        run_process(module, [sys.executable, "-m", module, *arguments], {}, log, on_line)


def run_process(
    module: str, command: Sequence[str], environment: dict[str, str], log: Path, on_line: Callable[[str], None]
) -> None:
    """Run a command, append its lines to `log`, hand each to `on_line`; stop it if this process is stopped.

    Raises InputError with the last line that tells a person what to mend, else ProcessError. Such a line is not handed on, nor
    what torchrun says of it afterwards, which is long.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    process = start_process(command, environment, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    has_failed = False
    try:
        with log.open("a", encoding="utf-8") as file:
            for line in process.stdout:
                file.write(line)
                file.flush()
                tail.append(line.rstrip("\n"))
                has_failed = has_failed or line.startswith(USER_ERROR)
                if not has_failed:
                    on_line(tail[-1])
        status = process.wait()
    finally:
        stop_process(process)
    if status != 0:
        error = ProcessError(module, status, tail)
        if told := [line for line in tail if line.startswith(USER_ERROR)]:
            raise InputError(told[-1].removeprefix(USER_ERROR)) from error
        raise error


def start_process(command: Sequence[str], environment: dict[str, str], stdin: int) -> subprocess.Popen[str]:
    """A process whose lines, stdout and stderr, can be read as they come; it ends with the thread that starts it."""
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=stdin,
        text=True,
        errors="replace",
        preexec_fn=ending_with_parent(),
    )


def ending_with_parent() -> Callable[[], None]:
    """The `preexec_fn` of a child that the kernel asks to end, by SIGTERM, when the thread that starts it does."""
    return partial(die_with_parent, os.getpid(), signal.SIGTERM)


def stop_process(process: subprocess.Popen[str]) -> None:
    """Ask it to end, and end it if it does not in time."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
