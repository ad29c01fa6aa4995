"""The server that a command starts where none is configured: it answers, and a kill of the command ends it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from conftest import CHECKOUT, free_port
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.temporary_server import server
from pipeline.errors import InputError

COMMAND = """
import sys
from prefect.settings import PREFECT_API_URL
from prefect.utilities.urls import url_for
from flows.temporary_server import server

with server():
    print(PREFECT_API_URL.value(), url_for("flow-run", "00000000-0000-0000-0000-000000000000"), flush=True)
    sys.stdin.read()
print("ended", flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's parent-death signal")
def test_it_answers_and_ends_with_the_killed_command(tmp_path: Path) -> None:
    # A database without tables answers soon, and is all that this asks for.
    switched_off = dict.fromkeys(("PREFECT_API_DATABASE_MIGRATE_ON_START", "PREFECT_API_BLOCKS_REGISTER_ON_START"), "0")
    environment = {**os.environ, **switched_off, "PREFECT_HOME": str(tmp_path)}
    command = subprocess.Popen(
        [sys.executable, "-c", COMMAND],
        cwd=CHECKOUT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert command.stdin is not None and command.stdout is not None
    try:
        address, page = command.stdout.readline().split()
        (process,) = psutil.Process(command.pid).children()
        assert page == "None", "a link to a page that this server does not have"
        assert urllib.request.urlopen(f"{address}/health").read() == b"true"
    finally:
        command.kill()
        command.wait()
    deadline = time.monotonic() + 30
    while not ended(process) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ended(process)


def test_a_configured_server_that_does_not_answer_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}/api"
    with (
        temporary_settings({PREFECT_API_URL: url}),
        pytest.raises(InputError, match=rf"PREFECT_API_URL={url}: no server answers \(.*\); start it, or unset"),
        server(),
    ):
        pass


def ended(process: psutil.Process) -> bool:
    """Also where nobody collects it."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
