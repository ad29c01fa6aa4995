"""Random choices as pure functions of names: no generator, no state, the same on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draws:
    """Choices decided by the sha256 of (ids, name of the choice).

    The order in which they are asked for does not matter, and a new choice leaves the others as they were.
    """

    def __init__(self, *ids: object) -> None:
        self._key = "/".join(str(part) for part in ids)

    def digest(self, name: str) -> bytes:
        """The 32 bytes that decide the choice `name`."""
        return hashlib.sha256(f"{self._key}#{name}".encode()).digest()

    def number(self, name: str) -> float:
        """A number in [0, 1)."""
        return int.from_bytes(self.digest(name)[:6], "big") / float(1 << 48)

    def between(self, name: str, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self.number(name)

    def chance(self, name: str, share: float) -> bool:
        """True in this share of cases."""
        return self.number(name) < share

    def choice(self, name: str, options: Sequence[T]) -> T:
        """One of the options, each as likely."""
        return options[int(self.number(name) * len(options))]

    def noise(self, name: str, size_bytes: int) -> bytes:
        """Uniform bytes (SHAKE-128), for the grain of a picture."""
        return hashlib.shake_128(f"{self._key}#{name}".encode()).digest(size_bytes)
