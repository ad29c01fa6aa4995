"""Fixtures that several test files share: real Prefect, never the developer's own."""

from __future__ import annotations

import os

# Before anything imports Prefect: tests must not find a stack that `make up` runs in this checkout.
os.environ.update(PREFECT_PLUGINS_ENABLED="false", PREFECT_SERVER_ANALYTICS_ENABLED="false", DO_NOT_TRACK="1")
os.environ.pop("PREFECT_API_URL", None)
# Before anything imports torch or NumPy: as many processes as cores run tests, and their idle threads would spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

CHECKOUT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
SERVER_START_S = 120
SHARED_VARIABLE = "WIT_TESTS_SHARED"  # names the folder that all processes of one test run share
SERVER_FILE = "prefect-server.json"
MOST_PROCESSES = 4  # each may start Prefect, Chromium and processes that train
# Begun first where files are shared out to several processes, so that none of them is left for the end.
LONG_FILES = (
    "test_walk",
    "test_train",
    "test_parent",
    "test_weights",
    "test_compose",
    "test_balanced_flow",
    "test_download",
)


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: a third of the tests' time is waiting for servers, deadlines and processes."""
    return min(len(os.sched_getaffinity(0)) + 1, MOST_PROCESSES)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of long files first."""
    rank = {name: number for number, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@dataclass(frozen=True)
class PrefectServer:
    """A real server on a loopback port, with a database of its own."""

    api_url: str
    env: dict[str, str]
    """Environment of a process that is to use it: a user's shell in this checkout, plugin on."""

    def run(self, *command: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment in the checkout, as a user would, and return what it said."""
        return subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            cwd=CHECKOUT,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_open(url: str, process: subprocess.Popen[bytes], log: Path, limit_s: float = SERVER_START_S) -> None:
    """Poll `url` until it answers 200; fail with the end of the log if `process` ends or time is up."""
    deadline = time.monotonic() + limit_s
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(urllib.error.URLError, ConnectionError, TimeoutError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.2)
    pytest.fail(f"{url} never answered; the end of {log.name}:\n{log.read_text()[-3000:]}")


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(15)
    process.kill()
    process.wait()


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder that the processes of this test run share."""
    if not hasattr(config, "workerinput"):  # the process that the others are started by, or the only one
        os.environ[SHARED_VARIABLE] = tempfile.mkdtemp(prefix="wit-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the Prefect server, if a test wanted one, whichever process had started it."""
    if hasattr(config, "workerinput"):
        return
    shared = Path(os.environ.pop(SHARED_VARIABLE))
    with suppress(FileNotFoundError, ProcessLookupError):
        os.kill(json.loads((shared / SERVER_FILE).read_text())["pid"], signal.SIGTERM)
    shutil.rmtree(shared, ignore_errors=True)  # the server may still write its log


@pytest.fixture(scope="session")
def prefect_server() -> PrefectServer:
    """One Prefect server (SQLite) for all processes of the test run: starting one costs 17 s of the processor.

    No worker runs, and what is deployed there is what tests/test_plugin.py deploys.
    """
    shared = Path(os.environ[SHARED_VARIABLE])
    home, told = shared / "prefect-server", shared / SERVER_FILE
    with FileLock(shared / "prefect-server.lock"):
        if not told.exists():
            home.mkdir()
            told.write_text(json.dumps(_start_server(home)))
    api_url = json.loads(told.read_text())["api_url"]
    return PrefectServer(api_url, _server_environment(home) | {"PREFECT_API_URL": api_url})


def _server_environment(home: Path) -> dict[str, str]:
    env = {**os.environ, "PREFECT_HOME": str(home), "COLUMNS": "200"}
    env.pop("PREFECT_PLUGINS_ENABLED")  # pyproject.toml decides, as for a user
    return env


def _start_server(home: Path) -> dict[str, str | int]:
    port, log = free_port(), home / "server.log"
    api_url = f"http://127.0.0.1:{port}/api"
    with log.open("wb") as file:
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        env = _server_environment(home)
        process = subprocess.Popen(command, cwd=home, env=env, stdout=file, stderr=subprocess.STDOUT)
    wait_until_open(f"{api_url}/health", process, log)
    return {"api_url": api_url, "pid": process.pid}


@pytest.fixture(scope="session")
def prefect_harness(prefect_server: PrefectServer) -> Iterator[None]:
    """Flows that are called inside this process report to the server of the test run."""
    from prefect import context
    from prefect.settings import PREFECT_API_URL, temporary_settings

    # For all threads, as Prefect's own test harness does it: one without these settings would start a server of its own.
    with (
        temporary_settings({PREFECT_API_URL: prefect_server.api_url}),
        context._temporary_global_settings_context(context.get_settings_context()),
    ):
        yield
