"""Processes that are asked one thing after the other: answers, lines for people, death, and the end."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows.conversation import Conversation, Conversations
from flows.launcher import ProcessError
from pipeline.errors import InputError, WorkError

ANSWERING = """
import json, os, sys, time
for line in sys.stdin:
    asked = json.loads(line)
    print("asked for", asked["do"], flush=True)
    if asked["do"] == "die":
        print("this is the end", file=sys.stderr)
        sys.exit(7)
    if asked["do"] == "meet":  # another process must be there too
        open(f"{asked['at']}/{os.getpid()}", "w").close()
        while len(os.listdir(asked["at"])) < 2:
            time.sleep(0.01)
    if asked["do"] == "sleep":
        time.sleep(600)
    found = {"error": "mend it"} if asked["do"] == "fail" else {"found": {"pid": os.getpid()}}
    print("answer: " + json.dumps(found), flush=True)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "answering.py").write_text(ANSWERING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "answering"


@pytest.fixture
def conversation(module: str, tmp_path: Path) -> Iterator[Conversation]:
    conversation = Conversation(module, [], {}, tmp_path / "log")
    yield conversation
    conversation.end(at_once=True)


def test_one_process_answers_all(conversation: Conversation, tmp_path: Path) -> None:
    lines: list[str] = []
    pids = {conversation.ask({"do": word}, lines.append)["pid"] for word in ("one", "two")}
    assert len(pids) == 1 and os.getpid() not in pids
    with pytest.raises(InputError, match="mend it"):
        conversation.ask({"do": "fail"}, lines.append)
    assert conversation.ask({"do": "three"}, lines.append)["pid"] in pids
    assert lines == ["asked for one", "asked for two", "asked for fail", "asked for three"]
    assert (tmp_path / "log").read_text().splitlines() == lines
    conversation.end(at_once=False)
    assert not psutil.pid_exists(pids.pop())
    with pytest.raises(WorkError, match="stopped before its turn"):
        conversation.ask({"do": "four"}, lines.append)


def test_another_process_follows_one_that_died(conversation: Conversation) -> None:
    first = conversation.ask({"do": "one"}, print)["pid"]
    with pytest.raises(ProcessError, match="status 7") as death:
        conversation.ask({"do": "die"}, print)
    assert death.value.tail == ("asked for die", "this is the end")
    second = conversation.ask({"do": "one"}, print)["pid"]
    assert second != first
    psutil.Process(second).kill()
    with pytest.raises(ProcessError, match="status -9"):
        conversation.ask({"do": "one"}, print)
    assert conversation.ask({"do": "one"}, print)["pid"] not in (first, second)


def test_an_answer_that_was_not_waited_for_is_not_taken_for_another(conversation: Conversation) -> None:
    def no_room(line: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    first = conversation.ask({"do": "one"}, print)["pid"]
    with pytest.raises(OSError, match="No space left"):
        conversation.ask({"do": "fail"}, no_room)
    assert conversation.ask({"do": "two"}, print)["pid"] != first and not psutil.pid_exists(first)


def test_as_many_work_at_once_as_there_are_processes(module: str, tmp_path: Path) -> None:
    (meeting := tmp_path / "meeting").mkdir()
    found: list[int] = []
    with Conversations(module, [], 2, tmp_path / "log") as workers:
        first = workers.ask({"do": "one"}, print)["pid"]
        assert workers.ask({"do": "one"}, print)["pid"] == first, "a second is started only where it is needed"
        ask = {"do": "meet", "at": str(meeting)}
        threads = [threading.Thread(target=lambda: found.append(workers.ask(ask, print)["pid"])) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(set(found)) == 2 and first in found
    assert not any(map(psutil.pid_exists, found))


def test_an_error_ends_what_is_under_way(module: str, tmp_path: Path) -> None:
    pids: list[int] = []
    ended: list[BaseException] = []

    def sleep(workers: Conversations) -> None:
        try:
            workers.ask({"do": "sleep"}, print)
        except ProcessError as error:
            ended.append(error)

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Conversations(module, [], 1, tmp_path / "log") as workers:
        pids.append(workers.ask({"do": "one"}, print)["pid"])
        thread = threading.Thread(target=sleep, args=(workers,))
        thread.start()
        while "asked for sleep" not in (tmp_path / "log").read_text():
            time.sleep(0.01)
        raise KeyboardInterrupt
    thread.join(60)
    assert ended and not psutil.pid_exists(pids[0])
    assert time.monotonic() - started < 20
