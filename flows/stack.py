"""The stack on this machine: Prefect's server, the deployments and a worker, without Docker.

    python -m flows.stack up           all of it, in the foreground, until Ctrl-C (`make up`)
    python -m flows.stack bootstrap    tell a running server what it must know
    python -m flows.stack worker       a worker whose runs may tidy up when it is stopped

docker-compose.yml runs the same `bootstrap` and `worker`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import tyro

from flows.console import HEARTBEAT_S
from flows.plugin import CHECKOUT, address_file, stack_home, ui_url
from flows.worker import POLL_S, POOL, PREFECT, end_process, interrupt_on_signals, running_worker, start_process, worker
from flows.workspace import WORKSPACE_VARIABLE

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

HOST = "127.0.0.1"
SERVER_START_S = 120
ZOMBIE_AFTER_S = 4 * HEARTBEAT_S
ZOMBIE_AUTOMATION = "crash-zombie-flow-runs"
LOG_TAIL_LINES = 15


def up(port: int = 4200) -> None:
    """Start server, deployments and worker; stay until Ctrl-C, then leave no process behind.

    Database and logs lie in $PREFECT_HOME, else in workspace/prefect of the checkout.

    Args:
        port: Port of the server on the loopback address.
    """
    _require_free(port)
    interrupt_on_signals()
    home, api_url = stack_home(), f"http://{HOST}:{port}/api"
    home.mkdir(parents=True, exist_ok=True)
    environment = _environment(home, api_url)
    print("Starting Prefect's server ...", flush=True)
    with suppress(KeyboardInterrupt):
        with _server(port, home, environment) as server:
            _wait_until_healthy(api_url, server, home / "server.log")
            print("Deploying the flows ...", flush=True)
            _bootstrap_logged(home / "bootstrap.log", environment)
            with running_worker("make-up", (), environment) as worker_process, _address_published(home, api_url):
                _greet(port, home)
                _wait_for_any(server, worker_process)
        # Here only if one of the two ended by itself; Ctrl-C leaves the blocks as KeyboardInterrupt.
        _fail(f"Server or worker ended by itself; its lines are above or here:\n{_tail(home / 'server.log')}")
    print("The stack is down. What was stopped goes on where it was when it is started again.", flush=True)


def bootstrap() -> None:
    """Tell the server at $PREFECT_API_URL of work pool, automation and the deployments of prefect.yaml.

    May be repeated: what is there already is left, or brought up to date.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():
        _fail("PREFECT_API_URL is not set: say which server, or use `make up`, which starts one.")
    with get_client(sync_client=True) as client:
        _ensure_pool(client)
        _ensure_zombie_automation(client)
    deployed = subprocess.run([*PREFECT, "--no-prompt", "deploy", "--all"], cwd=CHECKOUT, check=False)
    if deployed.returncode != 0:
        _fail(f"`prefect deploy --all` ended with status {deployed.returncode}; its message is above.")


def _environment(home: Path, api_url: str) -> dict[str, str]:
    """What server, bootstrap and worker share; a variable that is set wins, but for those that make this stack."""
    defaults = {
        WORKSPACE_VARIABLE: str(CHECKOUT / "workspace"),  # a worker runs flows in folders of its own
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_UI_URL": ui_url(api_url),
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
    }
    if "PREFECT_SERVER_API_AUTH_STRING" in os.environ:
        defaults["PREFECT_API_AUTH_STRING"] = os.environ["PREFECT_SERVER_API_AUTH_STRING"]
    ours = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": api_url,
        # Bare names are for people; a worker's helpers import Prefect in a running loop, where no plugin can start.
        "PREFECT_PLUGINS_ENABLED": "false",
        "PYTHONUNBUFFERED": "1",
    }
    return {**defaults, **os.environ, **ours}


@contextmanager
def running_server(port: int) -> Iterator[str]:
    """Prefect's server alone, on the database of `up`, for the length of the block; gives the URL of its API."""
    home, api_url = stack_home(), f"http://{HOST}:{port}/api"
    home.mkdir(parents=True, exist_ok=True)
    with _server(port, home, _environment(home, api_url)) as server:
        _wait_until_healthy(api_url, server, home / "server.log")
        yield api_url


def port_problem(port: int) -> str | None:
    """Why no server can listen on a port of the loopback address; None if one can."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            return error.strerror
    return None


def _require_free(port: int) -> None:
    if problem := port_problem(port):
        _fail(
            f"Port {port} on {HOST}: {problem}. If a stack runs already, use it or stop it; "
            f"for a second one choose another port: make up PORT={port + 1}"
        )


@contextmanager
def _server(port: int, home: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    command = [*PREFECT, "server", "start", "--host", HOST, "--port", str(port)]
    with (home / "server.log").open("wb") as log:
        process = start_process(command, environment, log.fileno())
    try:
        yield process
    finally:
        end_process(process)


def _wait_until_healthy(api_url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + SERVER_START_S
    while time.monotonic() < deadline and server.poll() is None:
        # Without a password too: /health is open, and an URLError only says that it does not listen yet.
        with (
            suppress(urllib.error.URLError, TimeoutError, ConnectionError),
            urllib.request.urlopen(f"{api_url}/health", timeout=2),
        ):
            return
        time.sleep(POLL_S)
    _fail(f"Prefect's server did not come up in {SERVER_START_S} s; the last lines of {log}:\n{_tail(log)}")


def _bootstrap_logged(log: Path, environment: dict[str, str]) -> None:
    with log.open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "flows.stack", "bootstrap"],
            cwd=CHECKOUT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != 0:
        _fail(f"The flows could not be deployed; the last lines of {log}:\n{_tail(log)}")


@contextmanager
def _address_published(home: Path, api_url: str) -> Iterator[None]:
    """While the stack is up, Prefect's commands in this checkout find it (flows/plugin.py)."""
    address_file(home).write_text(api_url, encoding="utf-8")
    try:
        yield
    finally:
        address_file(home).unlink(missing_ok=True)


def _greet(port: int, home: Path) -> None:
    print(
        f"""
Prefect is up: http://{HOST}:{port}   (database and logs: {home})

In another shell, in this directory:

    source .venv/bin/activate
    prefect deployment run build-dataset
    prefect deployment run pretrain
    prefect deployment run evaluate

Anywhere else, or if your Prefect profile names another server: export PREFECT_API_URL=http://{HOST}:{port}/api
Ctrl-C ends server and worker.
""",
        flush=True,
    )


def _wait_for_any(*processes: subprocess.Popen[bytes]) -> None:
    while all(process.poll() is None for process in processes):
        time.sleep(POLL_S)


def _ensure_pool(client: SyncPrefectClient) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    with suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=POOL, type=ProcessWorker.type, base_job_template=template))


def _ensure_zombie_automation(client: SyncPrefectClient) -> None:
    """Mark a run as crashed when its heartbeats stop: its machine died, and nobody else would ever say so."""
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    heartbeat = "prefect.flow-run.heartbeat"
    ends = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
    automation = AutomationCore(
        name=ZOMBIE_AUTOMATION,
        description=f"A flow says every {HEARTBEAT_S} s that it lives; {ZOMBIE_AFTER_S} s of silence mean death.",
        trigger=EventTrigger(
            after={heartbeat},
            expect={heartbeat, *ends},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=ZOMBIE_AFTER_S),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED, message=f"No heartbeat for {ZOMBIE_AFTER_S} s: its machine died."
            )
        ],
    )
    existing = client.read_automations_by_name(ZOMBIE_AUTOMATION)
    if existing:
        client.update_automation(existing[0].id, automation)
    else:
        client.create_automation(automation)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:])


def _fail(message: str) -> NoReturn:
    sys.exit(message)


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict(
        {"up": up, "bootstrap": bootstrap, "worker": worker}, prog="python -m flows.stack"
    )
