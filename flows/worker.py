"""A Prefect worker whose runs may tidy up when it is stopped, and the processes it is made of."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import psutil

from flows.launcher import ending_with_parent
from flows.plugin import CHECKOUT

POOL = "local"
PREFECT = (sys.executable, "-m", "prefect")
# A flow gives its training 25 s to save (flows/launcher.py) and reports. One that still lives is asked again: Python
# can miss a signal that comes while it hands its lock to another thread on the way into a blocking call.
RUN_GRACE_S = (32, 8)
PROCESS_GRACE_S = 15
POLL_S = 0.2


def worker(name: str = "worker", queues: tuple[str, ...] = (), health_port: int = 0) -> None:
    """Run a worker of the pool `local` until SIGTERM or Ctrl-C, then let its runs stop in order.

    Prefect's own worker kills its runs outright: nothing is tidied up, and the server shows them as running for ever.

    Args:
        name: How the server calls it.
        queues: Work queues it takes runs from; none = all.
        health_port: Port of GET /health on all addresses; 0 = none.
    """
    interrupt_on_signals()
    # A worker's helpers import Prefect in a running loop, where no plugin can start.
    environment = {
        **os.environ,
        "PREFECT_PLUGINS_ENABLED": "false",
        "PREFECT_WORKER_WEBSERVER_PORT": str(health_port or 8080),
    }
    with (
        suppress(KeyboardInterrupt),
        running_worker(name, queues, environment, with_health=health_port > 0) as process,
    ):
        sys.exit(process.wait())


@contextmanager
def running_worker(
    name: str, queues: Iterable[str], environment: dict[str, str], with_health: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """`prefect worker start`, for the length of the block."""
    command = [*PREFECT, "worker", "start", "--pool", POOL, "--type", "process", "--name", name]
    command += [part for queue in queues for part in ("--work-queue", queue)]
    process = start_process([*command, "--with-healthcheck"] if with_health else command, environment)
    try:
        yield process
    finally:
        _stop_runs(process)
        end_process(process)


def interrupt_on_signals() -> None:
    """Make SIGINT and SIGTERM a KeyboardInterrupt."""
    # Also where a shell started us in the background with SIGINT ignored, which the children would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def start_process(command: list[str], environment: dict[str, str], log: int | None = None) -> subprocess.Popen[bytes]:
    """A child in a process group of its own, which dies with this process; it writes to the file descriptor `log`."""
    return subprocess.Popen(
        command,
        cwd=CHECKOUT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=None if log is None else subprocess.STDOUT,
        process_group=0,  # the terminal's Ctrl-C reaches only this process, which ends the others in order
        preexec_fn=ending_with_parent(),
    )


def _stop_runs(worker_process: subprocess.Popen[bytes]) -> None:
    """Stop a worker's runs as `prefect flow-run cancel` would, and wait until they have reported.

    The worker is frozen first, or it would start the next run in the queue; if it had runs, it is killed at the end.
    """
    if worker_process.poll() is not None:
        return
    worker_process.send_signal(signal.SIGSTOP)
    runs = psutil.Process(worker_process.pid).children()
    if not runs:
        worker_process.send_signal(signal.SIGCONT)
        return
    print(f"Stopping {len(runs)} run(s), at most {sum(RUN_GRACE_S)} s; Ctrl-C again kills them ...", flush=True)
    everyone = psutil.Process(worker_process.pid).children(recursive=True)
    with suppress(KeyboardInterrupt):
        for grace_s in RUN_GRACE_S:
            _terminate_and_wait(runs, grace_s)
    worker_process.kill()
    for left in everyone:
        with suppress(psutil.NoSuchProcess):
            left.kill()


def _terminate_and_wait(processes: Iterable[psutil.Process], grace_s: float) -> None:
    alive = [process for process in processes if _is_alive(process)]
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    deadline = time.monotonic() + grace_s
    while any(map(_is_alive, alive)) and time.monotonic() < deadline:
        time.sleep(POLL_S)


def _is_alive(process: psutil.Process) -> bool:
    # Its parent is frozen and does not collect it: a process that has ended stays as a zombie.
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end_process(process: subprocess.Popen[bytes]) -> None:
    """Ask a child to end, wait, kill it."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
        process.wait(PROCESS_GRACE_S)
    process.kill()
    process.wait()
