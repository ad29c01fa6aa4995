"""Where the parts of a stage run: in threads of the flow's process, or in processes of their own."""

from __future__ import annotations

import os
from typing import Any, cast

from prefect.futures import PrefectFuture
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from flows.console import quiet_engine
from pipeline.errors import InputError

RUNNER_VARIABLE = "WIT_RUNNER"
PARTS_VARIABLE = "WIT_PARTS_AT_ONCE"
THREADS = 4  # of the flow's process: what they wait for is DuckDB, the network and other processes


def part_runner() -> TaskRunner[PrefectFuture[Any]]:
    """The task runner that $WIT_RUNNER names (threads, the default, or processes), $WIT_PARTS_AT_ONCE wide.

    Processes pay where a stage is Python: describing pairs (language detection) and reading Common Crawl. The answer is the
    same with either.
    """
    kind = os.environ.get(RUNNER_VARIABLE, "threads")
    width = os.environ.get(PARTS_VARIABLE, "")
    if width and not (width.isascii() and width.isdigit() and int(width)):
        raise InputError(f"{PARTS_VARIABLE}={width}: give a whole number from 1 on")
    if kind == "threads":
        runner: Any = ThreadPoolTaskRunner(max_workers=int(width or THREADS))
    elif kind == "processes":
        runner = ProcessPoolTaskRunner(max_workers=int(width or os.cpu_count() or 1), initializer=quiet_engine)
    else:
        raise InputError(f"{RUNNER_VARIABLE}={kind}: give threads or processes")
    return cast(TaskRunner[PrefectFuture[Any]], runner)
