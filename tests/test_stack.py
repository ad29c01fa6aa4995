"""`make up`: it comes up, is found by the literal command, stops its runs in order and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import psutil
import pytest
from conftest import BIN, CHECKOUT, end, free_port

UP_S = 120
SLEEPY = """
import subprocess, sys
from pathlib import Path
from prefect import flow

HERE = Path(__file__).parent

@flow(name="sleepy")
def sleepy() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        (HERE / "child.pid").write_text(str(child.pid))
        child.wait()
    finally:
        (HERE / "tidied").write_text("yes")
        child.terminate()
        child.wait()
"""
DEPLOY_SLEEPY = """
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    flow = client.create_flow_from_name("sleepy")
    client.create_deployment(flow, "default", entrypoint="sleepy.sleepy", work_pool_name="local", pull_steps=[])
"""
PARENT = """
import os, sys, time
from flows.worker import start_process
print(start_process([sys.executable, "-c", "import time; time.sleep(600)"], dict(os.environ)).pid, flush=True)
time.sleep(600)
"""


def wait_for(path: Path, limit_s: float = 60) -> str:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if path.exists() and path.read_text():
            return path.read_text()
        time.sleep(0.2)
    pytest.fail(f"{path.name} never appeared")


def user_env(home: Path) -> dict[str, str]:
    """A shell in the checkout that knows nothing of the server's address."""
    # The flow of this test; and this checkout, whichever is installed.
    path = os.pathsep.join([str(home), str(CHECKOUT)])
    env = {**os.environ, "PREFECT_HOME": str(home), "PYTHONPATH": path, "WIT_WORKSPACE": str(home / "workspace")}
    env.pop("PREFECT_PLUGINS_ENABLED")
    return env


def in_checkout(env: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=CHECKOUT,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def start_stack(home: Path, port: int) -> subprocess.Popen[bytes]:
    with (home / "stack.log").open("wb") as log:
        command = [sys.executable, "-m", "flows.stack", "up", "--port", str(port)]
        return subprocess.Popen(command, cwd=CHECKOUT, env=user_env(home), stdout=log, stderr=subprocess.STDOUT)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    (tmp_path / "sleepy.py").write_text(SLEEPY)
    process = start_stack(tmp_path, free_port())
    try:
        deadline = time.monotonic() + UP_S
        while "Ctrl-C ends" not in (tmp_path / "stack.log").read_text():
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "stack.log").read_text()
            time.sleep(0.2)
        yield process
    finally:
        end(process)


@pytest.mark.slow
@pytest.mark.timeout(600)  # a busy machine starts servers slowly
def test_up_runs_the_literal_command_and_leaves_nothing(stack: subprocess.Popen[bytes], tmp_path: Path) -> None:
    env = user_env(tmp_path)
    told = in_checkout(env, "python", "-c", DEPLOY_SLEEPY)
    assert told.returncode == 0, told.stderr
    told = in_checkout(env, "prefect", "deployment", "run", "sleepy")
    assert told.returncode == 0, told.stdout + told.stderr
    page = re.search(r"URL: (http\S+)", told.stdout)
    assert page is not None
    asked = Request(page[1], headers={"Accept": "text/html"})
    assert b'src="/v2/' in urlopen(asked).read(), "a link to a UI that draws no charts"

    # The worker has started it; now a person presses Ctrl-C.
    grandchild = int(wait_for(tmp_path / "child.pid"))
    everything = psutil.Process(stack.pid).children(recursive=True)
    assert grandchild in {process.pid for process in everything}
    stack.send_signal(signal.SIGINT)
    assert stack.wait(90) == 0, (tmp_path / "stack.log").read_text()

    assert (tmp_path / "tidied").exists(), "the run was killed before it could tidy up"
    gone, alive = psutil.wait_procs(everything, timeout=5)
    assert not alive, gone
    assert not (tmp_path / "stack.url").exists()
    # The database outlives the server, and knows how the run ended.
    with sqlite3.connect(tmp_path / "prefect.db") as database:
        assert database.execute("select state_name from flow_run").fetchall() == [("Crashed",)]


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_children_die_even_with_a_killed_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.kill()
    _, alive = psutil.wait_procs([child], timeout=30)
    assert not alive


def test_port_in_use_is_one_line_and_a_remedy(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        told = in_checkout(user_env(tmp_path), "python", "-m", "flows.stack", "up", "--port", str(port))
    assert told.returncode == 1
    assert f"Port {port}" in told.stderr and f"make up PORT={port + 1}" in told.stderr
    assert len(told.stderr.splitlines()) == 1
    assert not told.stdout
