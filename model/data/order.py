"""Which samples a step sees, as arithmetic: no state but the step's number.

An epoch's order is a keyed permutation of the sample numbers, computed one position at a time (a Feistel network over
the next power of four, walked along its cycles until it lands inside). So a run resumes at any step at no cost, and any
number of processes and threads sees the same batches. Where a sample is cropped is a hash of (seed, epoch, sample).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.float64]

Crop = tuple[float, float] | None  # which of the equally likely squares, each in [0, 1); None is the middle one

ROUNDS = 8
KEYED_COLUMNS = 8  # what one digest of blake2b is enough for


class BatchOrder(Protocol):
    """What a loader asks for."""

    @property
    def global_batch(self) -> int: ...

    def sample_ids(self, step: int) -> Ints: ...

    def crops(self, step: int, sample_ids: Ints) -> list[Crop]: ...

    def draws(self, step: int, sample_ids: Ints, columns: int) -> Numbers: ...


@dataclass(frozen=True)
class Order:
    """The batches of a run: steps are counted from 0, each epoch drops what does not fill a global batch."""

    samples: int
    global_batch: int
    seed: int

    def __post_init__(self) -> None:
        if self.samples < self.global_batch:
            raise ValueError(
                f"the training split has {self.samples} samples, fewer than one global batch of {self.global_batch}; "
                "lower global_batch or build a larger data set"
            )

    @property
    def steps_per_epoch(self) -> int:
        return self.samples // self.global_batch

    @property
    def dropped_per_epoch(self) -> int:
        return self.samples % self.global_batch

    def epoch(self, step: int) -> int:
        return step // self.steps_per_epoch

    def sample_ids(self, step: int) -> Ints:
        """The samples of one global batch, (global_batch,) int64; each process takes its consecutive share."""
        epoch, first = self.epoch(step), step % self.steps_per_epoch * self.global_batch
        return permute(np.arange(first, first + self.global_batch), self.samples, (self.seed, epoch))

    def crops(self, step: int, sample_ids: Ints) -> list[Crop]:
        """Where each sample is cropped in that step's epoch."""
        return [(x, y) for x, y in uniform(sample_ids, 2, (self.seed, self.epoch(step))).tolist()]

    def draws(self, step: int, sample_ids: Ints, columns: int) -> Numbers:
        """Numbers (len(sample_ids), columns) in [0, 1) of each sample in that step's epoch, for an objective's own use."""
        return many_uniform(sample_ids, columns, (self.seed, self.epoch(step)))


@dataclass(frozen=True)
class InSequence:
    """Samples 0, 1, 2 ... once, middle squares, for validation. The last batch is filled up with the last sample."""

    samples: int
    global_batch: int

    @property
    def steps(self) -> int:
        return -(-self.samples // self.global_batch)

    def sample_ids(self, step: int) -> Ints:
        first = step * self.global_batch
        return np.minimum(np.arange(first, first + self.global_batch), self.samples - 1)

    def crops(self, step: int, sample_ids: Ints) -> list[Crop]:
        return [None] * len(sample_ids)

    def draws(self, step: int, sample_ids: Ints, columns: int) -> Numbers:
        """The same numbers in each validation."""
        return many_uniform(sample_ids, columns, ())


def permute(positions: Ints, size: int, key: tuple[int, ...]) -> Ints:
    """Values of a bijection of range(size), chosen by `key`, at `positions`."""
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    round_keys = _words("order", key, ROUNDS)
    values = _feistel(positions.astype(np.uint64), half_bits, round_keys)
    outside = np.flatnonzero(values >= size)
    while len(outside):
        values[outside] = _feistel(values[outside], half_bits, round_keys)
        outside = outside[values[outside] >= size]
    return values.astype(np.int64)


def uniform(sample_ids: Ints, columns: int, key: tuple[int, ...]) -> Numbers:
    """Numbers (len(sample_ids), columns) in [0, 1), each a hash of (key, sample, column)."""
    words = _mix(sample_ids.astype(np.uint64)[:, None] ^ _words("uniform", key, columns)[None, :])
    return (_mix(words) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def many_uniform(sample_ids: Ints, columns: int, key: tuple[int, ...]) -> Numbers:
    """As many columns as wanted, each eight from a key of their own that no crop has."""
    blocks = [uniform(sample_ids, KEYED_COLUMNS, (*key, block)) for block in range(-(-columns // KEYED_COLUMNS))]
    return np.concatenate([np.empty((len(sample_ids), 0)), *blocks], axis=1)[:, :columns]


def _feistel(values: Words, half_bits: int, round_keys: Words) -> Words:
    bits, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = values >> bits, values & mask
    for key in round_keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << bits) | right


def _mix(words: Words) -> Words:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _words(purpose: str, key: tuple[int, ...], count: int) -> Words:
    """`count` 64-bit words from a cryptographic hash of the key."""
    digest = hashlib.blake2b(repr((purpose, key)).encode(), digest_size=8 * count)
    return np.frombuffer(digest.digest(), dtype="<u8").astype(np.uint64)
