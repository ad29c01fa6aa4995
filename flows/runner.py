"""Where the parts of a stage run: in threads of the flow's process, in processes of their own, or on a Ray cluster."""

from __future__ import annotations

import os
import threading
from multiprocessing import parent_process
from typing import Any, Self, cast

from prefect.client.orchestration import get_client
from prefect.futures import PrefectFuture
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from flows.console import quiet_engine
from pipeline.errors import InputError

RUNNER_VARIABLE = "WIT_RUNNER"
PARTS_VARIABLE = "WIT_PARTS_AT_ONCE"
SERVER_VARIABLE = "PREFECT_API_URL"  # Prefect's own
CLUSTER_VARIABLE = "RAY_ADDRESS"  # Ray's own
THREADS = 4  # of the flow's process: what they wait for is DuckDB, the network and other processes


class ProcessRunner(ProcessPoolTaskRunner):
    """Processes of this machine that report to the flow's server, also where that is a temporary one.

    Left alone, each process would start a server of its own.
    """

    def __enter__(self) -> Self:
        self._url_before = os.environ.get(SERVER_VARIABLE)
        os.environ[SERVER_VARIABLE] = _server_url()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        del os.environ[SERVER_VARIABLE]
        if self._url_before is not None:
            os.environ[SERVER_VARIABLE] = self._url_before


def begin_worker() -> None:
    """What a process of the pool does first: it is to end when the flow's process does, however that ends.

    Left alone it would write its part to the end and wait for ever, beside the same command that was begun again.
    """
    quiet_engine()
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _end_with_parent() -> None:
    if parent := parent_process():
        parent.join()
        os._exit(1)


def part_runner() -> TaskRunner[PrefectFuture[Any]]:
    """The task runner that $WIT_RUNNER names: threads (the default), processes or ray; $WIT_PARTS_AT_ONCE parts at once.

    Processes pay where a stage is Python: describing pairs (language detection) and reading Common Crawl. Ray runs the parts on
    the cluster at $RAY_ADDRESS, else on processes of this machine. The answer is the same with any of them.
    """
    kind = os.environ.get(RUNNER_VARIABLE, "threads")
    width = os.environ.get(PARTS_VARIABLE, "")
    if width and not (width.isascii() and width.isdigit() and int(width)):
        raise InputError(f"{PARTS_VARIABLE}={width}: give a whole number from 1 on")
    runner: Any
    if kind == "threads":
        runner = ThreadPoolTaskRunner(max_workers=int(width or THREADS))
    elif kind == "processes":
        runner = ProcessRunner(max_workers=int(width or os.cpu_count() or 1), initializer=begin_worker)
    elif kind == "ray":
        runner = _ray_runner(int(width) if width else None)
    else:
        raise InputError(f"{RUNNER_VARIABLE}={kind}: give threads, processes or ray")
    return cast(TaskRunner[PrefectFuture[Any]], runner)


def _ray_runner(parts_at_once: int | None) -> Any:
    try:
        from prefect_ray import RayTaskRunner
    except ImportError as error:
        raise InputError(f"{RUNNER_VARIABLE}=ray: install the extra, pip install 'webimagetext[ray]'") from error

    class RayRunner(RayTaskRunner):  # type: ignore[misc]  # prefect-ray has no types
        """Ray's workers report to the flow's server, as in ProcessRunner."""

        def __enter__(self) -> Self:
            environment = {SERVER_VARIABLE: _server_url()}
            self.init_kwargs["runtime_env"] = {"env_vars": environment, "worker_process_setup_hook": quiet_engine}
            return cast(Self, super().__enter__())

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if CLUSTER_VARIABLE not in os.environ:
        return RayRunner(init_kwargs={"num_cpus": parts_at_once or os.cpu_count(), "include_dashboard": False})
    if SERVER_VARIABLE not in os.environ:
        raise InputError(
            f"{RUNNER_VARIABLE}=ray with {CLUSTER_VARIABLE}: set {SERVER_VARIABLE} to a server that the cluster's machines reach"
        )
    if parts_at_once is not None:
        raise InputError(
            f"{PARTS_VARIABLE}: the cluster at {CLUSTER_VARIABLE} decides how many parts run at once; unset it"
        )
    return RayRunner()


def _server_url() -> str:
    """Address of the server that this process uses."""
    with get_client(sync_client=True) as client:
        return str(client.api_url)
