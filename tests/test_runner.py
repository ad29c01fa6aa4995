"""The processes that run the parts of a stage."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
from conftest import CHECKOUT

from flows.runner import PARTS_VARIABLE, RUNNER_VARIABLE, SERVER_VARIABLE

FLOW = """
import os, time
from flows.runner import part_runner

if __name__ == "__main__":
    with part_runner() as runner:
        print(runner._executor.submit(os.getpid).result(), flush=True)
        runner._executor.submit(time.sleep, 600).result()
"""


def test_a_process_at_work_ends_when_the_flow_is_killed() -> None:
    settings = {RUNNER_VARIABLE: "processes", PARTS_VARIABLE: "1", SERVER_VARIABLE: "http://127.0.0.1:9/api"}
    flow = subprocess.Popen(
        [sys.executable, "-c", FLOW], cwd=CHECKOUT, env={**os.environ, **settings}, stdout=subprocess.PIPE, text=True
    )
    assert flow.stdout is not None
    with flow.stdout as told:
        worker = psutil.Process(int(told.readline()))
        flow.kill()
        flow.wait()
    deadline = time.monotonic() + 30
    while is_at_work(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_at_work(worker)


def is_at_work(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
