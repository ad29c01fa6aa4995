"""Ranks and torchrun: when the one that started them is killed, the others end too, by themselves."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from conftest import CHECKOUT
from shards_for_model import write_shards
from small_runs import ALONE, TRAIN, VAL, new_run

from model.checkpoint import newest_checkpoint, read_done
from model.errors import InputError
from model.metrics import LINE_EVERY_S
from model.train import run

LIMIT_S = 60


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def all_end(pids: list[int], limit_s: float = LIMIT_S) -> bool:
    deadline = time.monotonic() + limit_s
    while not all(gone(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    return all(gone(pid) for pid in pids)


@contextmanager
def training(tmp_path: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], list[int], Path]]:
    """A real torchrun in the midst of a long training of two ranks; torchrun, the ranks' ids, and the run's folder."""
    shards = write_shards(tmp_path / "shards", TRAIN, VAL)
    run = new_run(tmp_path / "run", epochs=5_000, checkpoint_every_steps=100_000, validate_every_epochs=5_000)
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "model.train", str(run)]
    torchrun = subprocess.Popen(
        [sys.executable, "-m", *command, "--shards", str(shards)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environment},
    )
    ranks: list[int] = []
    try:
        assert torchrun.stderr is not None
        assert any(re.match(r"step \d+/20000 ", line) for line in torchrun.stderr)
        ranks = [child.pid for child in psutil.Process(torchrun.pid).children() if "model.train" in child.cmdline()]
        assert len(ranks) == 2
        yield torchrun, ranks, run
    finally:
        for pid in (torchrun.pid, *ranks):
            if not gone(pid):
                os.kill(pid, signal.SIGKILL)
        torchrun.communicate()


def test_ranks_of_a_killed_torchrun_stop_after_a_checkpoint(tmp_path: Path) -> None:
    with training(tmp_path) as (torchrun, ranks, run):
        torchrun.kill()
        assert torchrun.stderr is not None
        rest = torchrun.stderr.read()  # ends when the last rank does
        assert all_end(ranks)
    stopped = re.search(r"stopped at step (\d+); run the same command to go on", rest)
    newest = newest_checkpoint(run)
    assert stopped and newest is not None and newest[1].step == int(stopped[1])


def test_they_do_so_when_nobody_reads_what_they_say(tmp_path: Path) -> None:
    """As when `wit` is killed with its torchrun: the pipe is closed."""
    with training(tmp_path) as (torchrun, ranks, run):
        assert torchrun.stderr is not None
        torchrun.stderr.close()
        time.sleep(LINE_EVERY_S + 1)  # in which a rank says something
        torchrun.kill()
        assert all_end(ranks)
        torchrun.stderr = None
    assert newest_checkpoint(run) is not None


def test_a_killed_rank_takes_the_others_along(tmp_path: Path) -> None:
    with training(tmp_path) as (torchrun, ranks, _):
        os.kill(ranks[1], signal.SIGKILL)
        assert torchrun.stderr is not None
        torchrun.stderr.read()
        assert all_end([torchrun.pid, *ranks]) and torchrun.wait() != 0


@pytest.mark.parametrize("when", ["while it waits", "before it looks"])
def test_a_process_that_does_not_heed_the_signal_is_ended(when: str) -> None:
    """A rank in a collective whose peer is gone never comes to look at its flag."""
    child = (
        "import os, signal, sys, time\n"
        "from model.parent import stopping_with_parent\n"
        "print(os.getpid(), flush=True)\n"
        f"if {when == 'before it looks'}: time.sleep(2)\n"
        "signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "with stopping_with_parent(grace_s=0.5):\n"
        "    print('watching', flush=True)\n"
        "    deadline = time.monotonic() + 300\n"
        "    while time.monotonic() < deadline: time.sleep(1)\n"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    if when == "while it waits":
        assert process.stdout.readline() == "watching\n"
    process.kill()
    process.wait()
    assert all_end([pid])


def test_a_second_training_waits_for_the_first_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ranks whose `wit` was killed may still be writing their checkpoint when the command is given again."""
    shards = str(write_shards(tmp_path / "shards", TRAIN, VAL))
    folder = new_run(tmp_path / "run", epochs=1)
    first = (
        "import sys\n"
        "from pathlib import Path\n"
        "from model.distributed import Processes\n"
        "import model.train, torch\n"
        f"with model.train._only_trainer(Path({str(folder)!r}), Processes(0, 1, torch.device('cpu'))):\n"
        "    print('training', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", first], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline() == "training\n"
        with monkeypatch.context() as patch:
            patch.setattr("model.train.WAIT_FOR_OTHERS_S", 0.1)
            with pytest.raises(InputError, match="another process is still training there; wait for it"):
                run(folder, shards, ALONE, lambda: False)
        assert not (folder / "tokenizer.json").exists()
        threading.Timer(1, process.stdin.close).start()
        run(folder, shards, ALONE, lambda: False)
    finally:
        process.kill()
        process.wait()
    assert f"another process is training in {folder}; waiting for it to end" in capfd.readouterr().err
    assert read_done(folder) is not None
