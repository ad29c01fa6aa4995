"""Processes that wait for one that does not come: after a time they end, and say which one it is and what it did last.

Every process has two threads. One posts, several times in that time, where the process is; the other one, when the process
is at one place for too long, reads what all posted. A process that posts nothing any more is stopped or dead; one that
posts, but has arrived at fewer places than the others, is stuck in its own work.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from model.distributed import Board, Processes

EXIT_HUNG = 4
POSTS_PER_TIMEOUT = 10
MOST_BETWEEN_POSTS_S = 2.0
RANKS_NAMED = 8
ANSWER_S = 30.0


class Post(BaseModel):
    """Where a process is, as it says itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int  # of the post
    arrivals: int  # places that it came to; all processes come to the same ones, in the same order
    place: str
    host: str
    process: int


class Found(NamedTuple):
    """What one process found out about all."""

    missing: list[int]  # ranks; empty if all are at the same place and alive
    message: str


class HangWatch:
    """Where this process is, for the others to read, and the clock that ends it."""

    def __init__(self, rank: int, world_size: int, board: Board, timeout_s: float, end: Callable[[int], None]) -> None:
        self.rank, self.world_size, self.board, self.timeout_s, self.end = rank, world_size, board, timeout_s, end
        self.every_s = min(MOST_BETWEEN_POSTS_S, timeout_s / POSTS_PER_TIMEOUT)
        self._step, self._here, self._posts = 0, (0, "starting", time.monotonic()), 0
        self._over = threading.Event()
        # Whoever keeps the board may be the one that is stopped, and then a question to it has no answer and no end.
        self._threads = [threading.Thread(target=work, name="hang", daemon=True) for work in (self._tell, self._watch)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(MOST_BETWEEN_POSTS_S)

    def at(self, doing: str, step: int | None = None) -> None:
        """The main thread begins something in which, or after which, it meets the others; `step` counts from 1."""
        self._step = self._step if step is None else step
        arrivals, _, _ = self._here
        self._here = (arrivals + 1, f"step {self._step}, {doing}", time.monotonic())

    def _tell(self) -> None:
        with suppress(RuntimeError):  # who keeps the board is gone; if nothing goes on, `_look` says so
            while not self._over.wait(self.every_s):
                arrivals, place, _ = self._here
                self._posts += 1
                post = Post(
                    number=self._posts, arrivals=arrivals, place=place, host=socket.gethostname(), process=os.getpid()
                )
                self.board.post(self.rank, post.model_dump_json())

    def _watch(self) -> None:
        while not self._over.wait(self.every_s):
            arrivals, _, since_s = self._here
            if time.monotonic() - since_s < self.timeout_s:
                continue
            found = self._look()
            if found is None or self._over.is_set() or self._here[0] != arrivals:
                continue
            reporter = min(set(range(self.world_size)) - {*found.missing}, default=self.rank)
            if self.rank == reporter:
                print(f"error: {found.message}", file=sys.stderr, flush=True)
            else:
                time.sleep(3 * self.every_s)  # the end of this one must not be what the reporter sees first
            self.end(EXIT_HUNG)
            return

    def _look(self) -> Found | None:
        """What all posted, twice in a time in which who lives posts again. None if some process has gone on meanwhile."""
        looks: list[list[Post | None]] = []

        def look() -> None:
            with suppress(RuntimeError):
                looks.append([self._read(rank) for rank in range(self.world_size)])
                self._over.wait(3 * self.every_s)
                looks.append([self._read(rank) for rank in range(self.world_size)])

        asking = threading.Thread(target=look, name="hang-look", daemon=True)
        asking.start()
        asking.join(3 * self.every_s + ANSWER_S)
        if len(looks) == 2:
            return judge(looks[0], looks[1], self.timeout_s)
        return Found(
            [0],
            f"nothing has gone on for {self.timeout_s:g} s (train.hang_timeout_s), and the place where the processes met does "
            "not answer: process 0, or the launcher, is stopped or gone. Run the same command to go on from the last checkpoint",
        )

    def _read(self, rank: int) -> Post | None:
        text = self.board.read(rank)
        return None if text is None else Post.model_validate_json(text)


def judge(before: list[Post | None], now: list[Post | None], timeout_s: float) -> Found | None:
    """Which processes the others wait for, by two posts of each, the second a few posts later; None if one has gone on."""
    if any(old and new and old.arrivals != new.arrivals for old, new in zip(before, now, strict=True)):
        return None
    silent = [rank for rank, post in enumerate(now) if post is None or post == before[rank]]
    arrivals = [post.arrivals if post else 0 for post in now]
    late = [rank for rank, count in enumerate(arrivals) if count < max(arrivals)]
    missing = silent or late
    others = [(rank, post) for rank, post in enumerate(now) if rank not in missing and post is not None]
    if missing:
        told = "; ".join(_told(rank, now[rank], rank in silent) for rank in missing[:RANKS_NAMED])
        waiting = f"; process {others[0][0]} waits at {others[0][1].place}" if others else ""
        what = f"{len(missing)} of {len(now)} processes did not come: {told}{waiting}"
    else:
        what = f"all processes are at {others[0][1].place} and run; raise it if that may take so long"
    return Found(
        missing,
        f"nothing has gone on for {timeout_s:g} s (train.hang_timeout_s): {what}. Run the same command to go on from the "
        "last checkpoint",
    )


def _told(rank: int, post: Post | None, is_silent: bool) -> str:
    if post is None:
        return f"process {rank} was never heard of"
    state = "answers no more, it is stopped or gone" if is_silent else "still runs"
    return f"process {rank} ({post.host}, id {post.process}) {state}, and was last at {post.place}"


@contextmanager
def watching(processes: Processes, timeout_s: float) -> Iterator[Processes]:
    """The processes, watched: if one stands for so long that another one has waited `timeout_s`, all end with EXIT_HUNG."""
    if processes.world_size == 1:
        yield processes
        return
    watch = HangWatch(processes.rank, processes.world_size, Board(), timeout_s, os._exit)
    watch.start()
    try:
        yield replace(processes, at=watch.at)
    finally:
        watch.stop()
