"""The launcher: lines as they come, the last ones told on failure, nothing left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows.launcher import LocalTorchrun, ProcessError, run_process
from pipeline.errors import InputError

PYTHON = [sys.executable, "-u", "-c"]


def wait_until_gone(pid: int, limit_s: float = 30) -> bool:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


def test_lines_come_one_by_one_and_are_kept(tmp_path: Path) -> None:
    lines: list[str] = []
    run_process(
        "m", [*PYTHON, "import sys; print('a'); print('b', file=sys.stderr)"], {}, tmp_path / "log", lines.append
    )
    assert lines == ["a", "b"]
    assert (tmp_path / "log").read_text() == "a\nb\n"


def test_failure_tells_status_and_last_lines(tmp_path: Path) -> None:
    program = "import sys; [print(n) for n in range(200)]; sys.exit(2)"
    with pytest.raises(ProcessError, match="status 2") as failure:
        run_process("model.train", [*PYTHON, program], {}, tmp_path / "log", lambda _line: None)
    assert len(failure.value.tail) == 50 and failure.value.tail[-1] == "199"


def test_what_a_person_is_to_mend_is_told_once_and_without_what_follows_it(tmp_path: Path) -> None:
    program = (
        "import sys; print('step 1'); print('error: no such data set'); print('Traceback of the launcher'); sys.exit(2)"
    )
    lines: list[str] = []
    with pytest.raises(InputError, match=r"^no such data set$"):
        run_process("model.train", [*PYTHON, program], {}, tmp_path / "log", lines.append)
    assert lines == ["step 1"]
    assert (tmp_path / "log").read_text().splitlines()[1:] == ["error: no such data set", "Traceback of the launcher"]


def test_an_interrupted_parent_stops_its_child(tmp_path: Path) -> None:
    pids: list[int] = []

    def interrupt(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_process(
            "m", [*PYTHON, "import os, time; print(os.getpid()); time.sleep(600)"], {}, tmp_path / "log", interrupt
        )
    assert not psutil.pid_exists(pids[0])


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_a_killed_parent_takes_its_child_along(tmp_path: Path) -> None:
    child = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    parent = (
        "import sys; from pathlib import Path; from flows.launcher import run_process; "
        f"run_process('m', [sys.executable, '-u', '-c', {child!r}], {{}}, Path({str(tmp_path / 'log')!r}), "
        "lambda line: print(line, flush=True))"
    )
    process = subprocess.Popen([*PYTHON, parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert wait_until_gone(pid)


@pytest.mark.slow
def test_torchrun_gives_each_process_its_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "say_rank.py").write_text(
        "import os\nprint('rank ' + os.environ['RANK'] + '\\n', end='', flush=True)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    lines: list[str] = []
    LocalTorchrun().run("say_rank", [], 2, tmp_path / "log", lines.append)
    assert sorted(line for line in lines if line.startswith("rank")) == ["rank 0", "rank 1"]


@pytest.mark.parametrize(("asked", "policy"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "active"}, "ACTIVE")])
def test_threads_of_torch_sleep_while_they_wait_unless_they_are_asked_to_spin(
    asked: dict[str, str], policy: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    told = subprocess.run(
        [sys.executable, "-c", "import model.clip"],
        env={**environment, **asked, "OMP_DISPLAY_ENV": "true"},
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    assert f"OMP_WAIT_POLICY = '{policy}'" in told
