"""Whose turn it is: how many connections a host may have, how long it is left alone, and when it is asked no more."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pipeline.fetch_error import FetchError

MAX_PAUSE_S = 60.0  # a host that asks for more is left to a later pass
MAX_REFUSALS = 3  # in a row; then as well
LEAST_PAUSE_S = 1.0  # after a refusal that does not say how long
PATIENCE = frozenset({"http_429", "http_503"})  # the reasons that ask for it (RFC 6585, 4; RFC 9110, 15.6.4)


class PoliteHost:
    """One host, whatever its ports."""

    def __init__(self, connections: int, delay_s: float) -> None:
        self.connections = asyncio.Semaphore(connections)
        self.delay_s = delay_s
        """Between the starts of two requests."""
        self.ready_at = 0.0
        """When it may be asked again, on the clock of the event loop."""
        self.waiting = 0
        """Requests that wait for their turn."""
        self.final_refusal: FetchError | None = None
        """What all further requests end with, unasked."""
        self._refusals = 0
        self._refused_at = 0.0

    def failed(self, error: FetchError, started_at: float, now: float) -> None:
        """A request that began at `started_at` ended with an error: if that asks for patience, the host gets it.

        What was under way together is one refusal, for none of it knew of the other's.
        """
        if error.reason not in PATIENCE:
            return
        if started_at >= self._refused_at:
            self._refusals += 1
            self._refused_at = now
        if error.retry_after_s > MAX_PAUSE_S or self._refusals >= MAX_REFUSALS:
            self.final_refusal = error
        self.ready_at = max(self.ready_at, now + max(error.retry_after_s, LEAST_PAUSE_S))

    def answered(self) -> None:
        """The host gave what it was asked for."""
        self._refusals = 0


class PoliteHosts:
    """All hosts of one event loop, with at most `slots` requests open in all."""

    def __init__(self, slots: int, connections_per_host: int, delay_s: float) -> None:
        self._slots = asyncio.Semaphore(slots)
        self._hosts: defaultdict[str, PoliteHost] = defaultdict(lambda: PoliteHost(connections_per_host, delay_s))

    def __getitem__(self, name: str) -> PoliteHost:
        return self._hosts[name]

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[PoliteHost]:
        """Wait until the host may be asked; hold a connection of it and a slot for the length of the block.

        A slot is never held while waiting for a host. Raises FetchError if the host is not to be asked any more.
        """
        loop = asyncio.get_running_loop()
        host = self._hosts[name]
        host.waiting += 1
        await asyncio.sleep(0)  # so that those who come together count each other
        async with host.connections:
            host.waiting -= 1
            while True:
                if (wait_s := host.ready_at - loop.time()) > 0 and host.final_refusal is None:
                    await asyncio.sleep(wait_s)
                async with self._slots:
                    if host.final_refusal is not None:
                        raise FetchError(host.final_refusal.reason, host.final_refusal.detail)
                    if host.ready_at > loop.time():
                        continue
                    host.ready_at = loop.time() + host.delay_s
                    yield host
                    return
