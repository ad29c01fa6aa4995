"""Processes of the learning side that are asked one thing after the other, so that torch and a model are loaded once for all.

A request is a line of JSON on standard input. The answer is a line that begins with `answer: `: JSON with `found`, or with
`error` where a person must mend something. Other lines are for people (model/evaluation/worker.py).
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flows.launcher import STOP_GRACE_S, TAIL_LINES, ProcessError, start_process, stop_process
from pipeline.errors import InputError, WorkError

ANSWER = "answer: "
Found = dict[str, Any]


class Conversation:
    """One process, started when it is first asked, and anew after it died; it is asked by one thread at a time.

    The kernel ends it with the thread that started it, so threads that ask must last as long: a flow's own, or its runner's.
    """

    def __init__(self, module: str, arguments: Sequence[str], environment: dict[str, str], log: Path) -> None:
        self._module, self._arguments, self._environment, self._log = module, arguments, environment, log
        self._process: subprocess.Popen[str] | None = None
        self._is_over = False
        self._lock = threading.Lock()  # so that none is started after the end

    def ask(self, request: Mapping[str, Any], on_line: Callable[[str], None]) -> Found:
        """What was found. Raises InputError where a person must mend something, ProcessError if the process ended."""
        process = self._running()
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        try:
            answer = self._answer(process, request, tail, on_line)
        except BaseException:
            # Its answer, which is still to come, would be taken for that to the next request.
            self._process = None
            stop_process(process)
            raise
        if answer is None:
            self._process = None
            raise ProcessError(self._module, process.wait(), tail)
        return _found(answer)

    def _answer(
        self,
        process: subprocess.Popen[str],
        request: Mapping[str, Any],
        tail: deque[str],
        on_line: Callable[[str], None],
    ) -> str | None:
        """The line that answers; those before it are logged, told and left in `tail`. None if the process ends instead."""
        assert process.stdin is not None and process.stdout is not None
        with self._log.open("a", encoding="utf-8") as file:
            with suppress(BrokenPipeError):  # it has died: what it said last is read below
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
            for line in process.stdout:
                if line.startswith(ANSWER):
                    return line
                file.write(line)
                file.flush()
                tail.append(line.rstrip("\n"))
                on_line(tail[-1])
        return None

    def end(self, at_once: bool) -> None:
        """End the process: after what it is doing, or at once. It cannot be asked again."""
        with self._lock:
            self._is_over, process = True, self._process
        if process is None:
            return
        if not at_once:
            assert process.stdin is not None
            process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_GRACE_S)
        stop_process(process)

    def _running(self) -> subprocess.Popen[str]:
        with self._lock:
            if self._is_over:
                raise WorkError("stopped before its turn; run the same command again to go on")
            if self._process is None:
                self._log.parent.mkdir(parents=True, exist_ok=True)
                command = [sys.executable, "-m", self._module, *self._arguments]
                self._process = start_process(command, self._environment, stdin=subprocess.PIPE)
            return self._process


class Conversations:
    """So many processes of one kind; who asks gets one that is idle, the longest started first."""

    def __init__(self, module: str, arguments: Sequence[str], processes: int, log: Path) -> None:
        # Else each would have as many threads as there are cores.
        threads = max(1, len(os.sched_getaffinity(0)) // processes)
        shared = {} if processes == 1 else {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
        self._all = [Conversation(module, arguments, shared, log) for _ in range(processes)]
        self._idle: queue.PriorityQueue[int] = queue.PriorityQueue()
        for number in range(processes):
            self._idle.put(number)

    def ask(self, request: Mapping[str, Any], on_line: Callable[[str], None]) -> Found:
        """As `Conversation.ask`, when one is idle."""
        number = self._idle.get()
        try:
            return self._all[number].ask(request, on_line)
        finally:
            self._idle.put(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for one in self._all:
            one.end(at_once=kind is not None)


def _found(line: str) -> Found:
    answer = json.loads(line.removeprefix(ANSWER))
    if "error" in answer:
        raise InputError(answer["error"])
    found: Found = answer["found"]
    return found
