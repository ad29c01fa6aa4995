"""A process that does not come: the others end in time, and name it and what it did last."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch.distributed as dist
from ranks import Exited, run_ranks
from small_runs import new_run

from model import hang
from model.distributed import Board, Processes
from model.hang import EXIT_HUNG, HangWatch, Post, judge, watching
from model.train import run

TIMEOUT_S = 3


def told_to(folder: Path, rank: int) -> None:
    """This process's stderr is a file of the folder, its id another."""
    os.dup2(os.open(folder / f"stderr-{rank}", os.O_CREAT | os.O_WRONLY), 2)
    (folder / f"process-{rank}").write_text(str(os.getpid()))


def agree_until_one_stops(processes: Processes, folder: Path) -> bool:
    """Eight steps of a loop like the trainer's; the second process stops while it reads the batch of the last one."""
    told_to(folder, processes.rank)
    processes.any_flags(False)
    with watching(processes, TIMEOUT_S) as watched:
        for step in range(1, 9):
            watched.at("reading its batch", step)
            if (watched.rank, step) == (1, 8):
                time.sleep(TIMEOUT_S / 2)  # it posts where it is several times in the timeout
                os.kill(os.getpid(), signal.SIGSTOP)
            watched.any_flags(False)
    return True


def train_without_the_second(processes: Processes, folder: Path) -> bool:
    told_to(folder, processes.rank)
    if processes.rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    run(folder, "shards", processes, lambda: False)
    return True


def kill_the_second_after_the_first(folder: Path) -> None:
    """As a launcher does; else this test would wait for it."""
    while not (folder / "process-0").exists() or not (folder / "process-1").exists():
        time.sleep(0.05)
    first, second = (int((folder / f"process-{rank}").read_text()) for rank in range(2))
    while psutil.pid_exists(first) and psutil.Process(first).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.05)
    os.kill(second, signal.SIGKILL)


def said_by_the_first(work: Callable[[Processes, Path], bool], folder: Path) -> str:
    """Its stderr, when the second has stopped and it has ended by itself."""
    helper = threading.Thread(target=kill_the_second_after_the_first, args=(folder,))
    helper.start()
    waiting, stopped = run_ranks(2, work, folder)
    helper.join()
    assert isinstance(waiting, Exited) and waiting.code == EXIT_HUNG
    assert isinstance(stopped, Exited) and stopped.code == -signal.SIGKILL
    return (folder / "stderr-0").read_text()


def test_a_stopped_process_is_named_with_what_it_did_last(tmp_path: Path) -> None:
    said = said_by_the_first(agree_until_one_stops, tmp_path)
    second = (tmp_path / "process-1").read_text()
    assert re.fullmatch(
        r"error: nothing has gone on for 3 s \(train.hang_timeout_s\): 1 of 2 processes did not come: process 1 "
        rf"\(.+, id {second}\) answers no more, it is stopped or gone, and was last at step 8, reading its batch; "
        r"process 0 waits at step 8, agreeing with the others\. Run the same command to go on from the last checkpoint\n",
        said,
    ), said


def test_a_training_ends_when_one_never_comes(tmp_path: Path) -> None:
    said = said_by_the_first(train_without_the_second, new_run(tmp_path / "run", hang_timeout_s=TIMEOUT_S))
    assert "1 of 2 processes did not come: process 1 was never heard of; process 0 waits at step 0, agreeing" in said


def test_a_meeting_place_that_is_stopped_itself_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a launcher, process 0 keeps it."""
    reading, writing = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        os.write(writing, str(store.port).encode())
        time.sleep(60)
        os._exit(0)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", os.read(reading, 10).decode())
    monkeypatch.setattr(hang, "ANSWER_S", 0.5)
    ended: list[int] = []
    watch = HangWatch(1, 2, Board(), 1.0, ended.append)
    os.kill(keeper, signal.SIGSTOP)
    watch.start()
    deadline_s = time.monotonic() + 50
    while not ended and time.monotonic() < deadline_s:
        time.sleep(0.05)
    os.kill(keeper, signal.SIGKILL)
    os.waitpid(keeper, 0)
    watch.stop()
    assert ended == [EXIT_HUNG]
    assert (
        "the place where the processes met does not answer: process 0, or the launcher, is stopped"
        in capsys.readouterr().err
    )


def post(number: int, arrivals: int, place: str) -> Post:
    return Post(number=number, arrivals=arrivals, place=place, host="here", process=1)


@pytest.mark.parametrize(
    ("later", "missing", "says"),
    [
        (
            [(2, 9, "b"), (2, 8, "a"), (2, 9, "b")],
            [1],
            "process 1 (here, id 1) still runs, and was last at a; process 0",
        ),
        ([(1, 9, "b"), (2, 8, "a"), (2, 9, "b")], [0], "process 0 (here, id 1) answers no more"),
        ([(2, 9, "b"), (2, 9, "b"), None], [2], "process 2 was never heard of; process 0 waits at b"),
        ([(2, 9, "b"), (2, 9, "b"), (2, 9, "b")], [], "all processes are at b and run; raise it"),
    ],
)
def test_who_is_missing(later: list[tuple[int, int, str] | None], missing: list[int], says: str) -> None:
    now = [None if given is None else post(*given) for given in later]
    before = [given and given.model_copy(update={"number": 1}) for given in now]
    found = judge(before, now, 60)
    assert found is not None and found.missing == missing and says in found.message


def test_a_process_that_went_on_is_no_hang() -> None:
    assert judge([post(1, 8, "a"), post(1, 9, "b")], [post(2, 9, "b"), post(2, 9, "b")], 60) is None
