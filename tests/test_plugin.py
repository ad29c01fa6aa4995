"""The plugin that makes `prefect deployment run build-dataset` work, by the literal command against a real server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import BIN, CHECKOUT, PrefectServer

from flows import plugin

FLOWS = ("build-dataset", "build-queries", "pretrain", "evaluate", "reproduce")
UNNAMED_DEPLOYMENTS = """
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    flow = client.create_flow_from_name("ambiguous")
    for name in ("alpha", "beta"):
        client.create_deployment(flow, name)
    flow = client.create_flow_from_name("lonely")
    client.create_deployment(flow, "anything")
"""


@pytest.fixture(scope="module")
def deployed(prefect_server: PrefectServer) -> PrefectServer:
    """The server with all that prefect.yaml names, and flows whose deployments are called otherwise."""
    told = prefect_server.run("python", "-m", "flows.stack", "bootstrap", timeout_s=120)
    assert told.returncode == 0, told.stdout + told.stderr
    told = prefect_server.run("python", "-c", UNNAMED_DEPLOYMENTS)
    assert told.returncode == 0, told.stderr
    return prefect_server


def ask(server: PrefectServer, path: str, body: dict[str, Any] | None = None) -> Any:
    """What the server's API answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{server.api_url}/{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


@pytest.mark.parametrize("flow", ["build-dataset", "build-queries", "pretrain"])
def test_bare_name_runs_the_default_deployment(deployed: PrefectServer, flow: str) -> None:
    told = deployed.run("prefect", "deployment", "run", flow)
    assert told.returncode == 0, told.stderr
    assert f"Creating flow run for deployment '{flow}/default'" in told.stdout
    run = ask(deployed, f"flow_runs/{told.stdout.split('UUID: ')[1].split()[0]}")
    assert run["state_type"] == "SCHEDULED"
    assert run["work_pool_name"] == "local"


def test_full_name_still_works(deployed: PrefectServer) -> None:
    told = deployed.run("prefect", "deployment", "run", "evaluate/default")
    assert told.returncode == 0, told.stderr
    assert "Created flow run" in told.stdout


def test_ambiguous_name_is_refused_with_the_choices(deployed: PrefectServer) -> None:
    told = deployed.run("prefect", "deployment", "run", "ambiguous")
    assert told.returncode == 1
    assert "ambiguous/alpha, ambiguous/beta" in told.stderr
    assert "Traceback" not in told.stdout + told.stderr


def test_unknown_name_says_what_to_do(deployed: PrefectServer) -> None:
    told = deployed.run("prefect", "deployment", "run", "build-datset")
    assert told.returncode == 1
    assert "'build-datset'" in told.stderr
    assert deployed.api_url in told.stderr
    assert "make up" in told.stderr
    assert "Traceback" not in told.stdout + told.stderr


def test_programs_get_bare_names_and_an_exception(deployed: PrefectServer) -> None:
    program = """
import asyncio
from prefect.client.orchestration import get_client
async def main():
    async with get_client() as client:
        print((await client.read_deployment_by_name("reproduce")).name)
with get_client(sync_client=True) as client:
    print(client.read_deployment_by_name("pretrain").name)
    print(client.read_deployment_by_name("lonely").name)
    try:
        client.read_deployment_by_name("nothing")
    except ValueError as error:
        print("refused:", error)
asyncio.run(main())
"""
    told = deployed.run("python", "-c", program)
    lines = told.stdout.splitlines()
    assert lines[:2] == ["default", "anything"], told.stderr
    assert lines[2].startswith("refused: No deployment of a flow 'nothing'")
    assert lines[3] == "default"


def test_deployments_hold_no_path_and_trainings_wait_for_each_other(deployed: PrefectServer) -> None:
    for flow in FLOWS:
        deployment = ask(deployed, f"deployments/name/{flow}/default")
        assert not deployment["pull_steps"]
        assert deployment["entrypoint"] == f"flows.{flow.replace('-', '_')}.{flow.replace('-', '_')}"
        assert str(CHECKOUT) not in json.dumps(deployment)
        assert deployment["description"]
        parameters = {"config", "workspace"} | ({"until"} if flow == "build-dataset" else set())
        assert set(deployment["parameter_openapi_schema"]["properties"]) == parameters
        limit = deployment["global_concurrency_limit"]
        assert (limit and limit["limit"]) == (1 if flow == "pretrain" else None)


def test_parameters_are_checked_before_a_run_exists(deployed: PrefectServer) -> None:
    told = deployed.run(
        "prefect", "deployment", "run", "pretrain", "--param", 'config={"name": "x y", "dataset": "tiny"}'
    )
    assert told.returncode == 1
    assert "Traceback" not in told.stdout + told.stderr
    assert "config.name" in told.stdout + told.stderr


def test_bootstrap_may_be_repeated(deployed: PrefectServer) -> None:
    again = deployed.run("python", "-m", "flows.stack", "bootstrap", timeout_s=120)
    assert again.returncode == 0, again.stdout + again.stderr
    automations = [found["name"] for found in ask(deployed, "automations/filter", {})]
    assert automations.count("crash-zombie-flow-runs") == 1


def test_bootstrap_without_a_server_says_so(tmp_path: Path) -> None:
    env = {**os.environ, "PREFECT_HOME": str(tmp_path)}
    command = [str(BIN / "python"), "-m", "flows.stack", "bootstrap"]
    told = subprocess.run(command, cwd=CHECKOUT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 1
    assert "PREFECT_API_URL is not set" in told.stderr
    assert "Traceback" not in told.stderr


def test_running_stack_is_found_only_while_it_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.setattr(plugin, "_accept_bare_names", lambda: None)  # would last beyond this test
    assert plugin.running_stack_url() is None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        plugin.address_file(tmp_path).write_text(url)
        assert plugin.running_stack_url() == url
        configured = plugin.setup_environment(ctx=SimpleNamespace(api_url="http://elsewhere/api"))  # type: ignore[arg-type]
        assert configured is None
        ours = plugin.setup_environment(ctx=SimpleNamespace(api_url=None))  # type: ignore[arg-type]
        assert ours is not None and ours.env == {
            "PREFECT_API_URL": url,
            "PREFECT_UI_URL": url.removesuffix("/api") + "/v2",
        }
        monkeypatch.setenv("PREFECT_UI_URL", "http://a.proxy/")
        ours = plugin.setup_environment(ctx=SimpleNamespace(api_url=None))  # type: ignore[arg-type]
        assert ours is not None and ours.env == {"PREFECT_API_URL": url}
    assert plugin.running_stack_url() is None
