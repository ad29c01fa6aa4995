"""The Makefile: what each target would do, with uv and without, and what a too old Python is told."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import CHECKOUT

TARGETS = ("demo", "test", "check", "bench", "up", "lock", "clean", "help")
LOCKED = "--require-hashes"
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in which nothing is installed yet."""
    shutil.copy(CHECKOUT / "Makefile", tmp_path)
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    return tmp_path


def programs(folder: Path, **scripts: str) -> str:
    """A PATH with the shell's basic programs and the given ones, nothing else."""
    folder.mkdir()
    for name in ("sh", "sed", "expand", "touch", "make"):
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return str(folder)


def make(checkout: Path, *words: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    # `make test` runs these tests: what it hands down would make this make a part of that one.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}
    env = {**inherited, "PATH": path or os.environ["PATH"]}
    for name in ("PORT", "PYTHON", "PREFECT_SERVER_ANALYTICS_ENABLED"):
        env.pop(name, None)
    return subprocess.run(["make", *words], cwd=checkout, env=env, capture_output=True, text=True, check=False)


def test_help_lists_every_target(checkout: Path) -> None:
    told = make(checkout)
    assert [line.split()[1] for line in told.stdout.splitlines()] == sorted(TARGETS, key=told.stdout.index)
    assert all(f"make {target} " in told.stdout for target in TARGETS)


@pytest.mark.parametrize("target", ["demo", "test", "check", "bench", "up"])
def test_every_target_installs_the_lock_first(checkout: Path, target: str) -> None:
    lines = make(checkout, "-n", target, path=programs(checkout / "bin", uv="")).stdout.splitlines()
    locked = next(number for number, line in enumerate(lines) if line.startswith("uv pip sync") and LOCKED in line)
    ours = next(
        number for number, line in enumerate(lines) if line.startswith("uv pip install") and "--no-deps" in line
    )
    used = next(number for number, line in enumerate(lines) if line.startswith(".venv/bin/") and "pip" not in line)
    assert locked < ours < used


def test_pip_is_used_where_uv_is_missing_or_broken(checkout: Path) -> None:
    for folder, scripts in {"without": {}, "broken": {"uv": "exit 127"}}.items():
        told = make(checkout, "-n", "test", path=programs(checkout / folder, **scripts)).stdout
        assert "uv pip" not in told.replace("or install uv", "")
        assert "-m venv .venv" in told and LOCKED in told and "--no-deps --editable ." in told


def test_nothing_is_installed_twice(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / ".installed").touch()
    (command,) = make(checkout, "-n", "test").stdout.splitlines()
    assert command.split()[0] == ".venv/bin/pytest"
    os.utime(checkout / "requirements.lock", (2_000_000_000, 2_000_000_000))
    assert LOCKED in make(checkout, "-n", "test").stdout


def test_old_python_is_told_what_to_do(checkout: Path) -> None:
    told = make(checkout, "test", path=programs(checkout / "bin", python3="exit 1"))
    assert told.returncode != 0
    assert "older than 3.11" in told.stderr and "PYTHON=python3.11" in told.stderr
    assert not (checkout / ".venv").exists()


def test_port_reaches_the_stack(checkout: Path) -> None:
    assert "flows.stack up --port 4321" in make(checkout, "-n", "up", "PORT=4321").stdout


def test_ci_runs_the_same_words() -> None:
    script = CHECKOUT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-1] == "make check test"
    subprocess.run(["bash", "-n", script], check=True)
