"""Several data sets trained on together, each with a weight: which samples a step sees is arithmetic here too (order.py).

An epoch has as many samples as all the data sets have together, less what does not fill a global batch. Each data set gives
its weight's share of them, exactly so many in every epoch (largest remainder), at places drawn anew for each epoch. A data set
goes on where it stopped: all its samples are seen once before one is seen again, in an order drawn anew for each such pass,
over the ends of epochs. The state of a run is the number of its step, as ever.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from model.data.order import Crop, Ints, Numbers, many_uniform, permute, uniform
from model.data.shards import Sample, Samples


class Drawn(NamedTuple):
    """The samples of one global batch, (global_batch,) each."""

    sample_ids: Ints
    passes: Ints  # how often its data set was seen whole before


@dataclass(frozen=True)
class MixedOrder:
    """The batches of a run that mixes data sets; a sample's number counts on from one data set to the next.

    Raises ValueError where the data sets do not fill a global batch, or a weight is too small for one sample of an epoch.
    """

    sizes: tuple[int, ...]  # samples of each data set
    weights: tuple[float, ...]
    global_batch: int
    seed: int

    def __post_init__(self) -> None:
        if sum(self.sizes) < self.global_batch:
            raise ValueError(
                f"the mixed data sets have {sum(self.sizes)} samples, fewer than one global batch of {self.global_batch}; "
                "lower global_batch or add data sets"
            )
        for number, (size, count) in enumerate(zip(self.sizes, self.samples_of, strict=True), 1):
            if not size or not count:
                raise ValueError(
                    f"data.mix: data set {number} has {size} samples and would give {count} of the {self.samples} of an epoch; "
                    "raise its weight, or leave it out"
                )

    @property
    def steps_per_epoch(self) -> int:
        return sum(self.sizes) // self.global_batch

    @property
    def samples(self) -> int:
        """Samples of an epoch."""
        return self.steps_per_epoch * self.global_batch

    @property
    def dropped_per_epoch(self) -> int:
        return 0

    @cached_property
    def samples_of(self) -> tuple[int, ...]:
        """How many samples of an epoch each data set gives."""
        return largest_remainder(self.weights, self.samples)

    @cached_property
    def starts(self) -> list[int]:
        """The number of each data set's first sample."""
        return [0, *accumulate(self.sizes)][:-1]

    def epoch(self, step: int) -> int:
        return step // self.steps_per_epoch

    def sample_ids(self, step: int) -> Ints:
        """The samples of one global batch, (global_batch,) int64; each process takes its consecutive share."""
        return self._drawn(step).sample_ids

    def counts(self, step: int) -> tuple[int, ...]:
        """How many samples of a global batch are of each data set."""
        numbers = np.searchsorted(self.starts, self.sample_ids(step), side="right") - 1
        return tuple(np.bincount(numbers, minlength=len(self.sizes)).tolist())

    def crops(self, step: int, sample_ids: Ints) -> list[Crop]:
        """Where each sample is cropped in that pass over its data set."""
        return [(x, y) for x, y in self._keyed(step, sample_ids, 2, many=False).tolist()]

    def draws(self, step: int, sample_ids: Ints, columns: int) -> Numbers:
        """Numbers (len(sample_ids), columns) in [0, 1) of each sample in that pass, for an objective's own use."""
        return self._keyed(step, sample_ids, columns, many=True)

    def _drawn(self, step: int) -> Drawn:
        epoch, first = self.epoch(step), step % self.steps_per_epoch * self.global_batch
        slots = permute(np.arange(first, first + self.global_batch), self.samples, (self.seed, epoch))
        ends = np.cumsum(self.samples_of)
        numbers = np.searchsorted(ends, slots, side="right")
        ids, passes = np.empty_like(slots), np.empty_like(slots)
        for number in np.unique(numbers).tolist():
            at = np.flatnonzero(numbers == number)
            count, size = self.samples_of[number], self.sizes[number]
            passed, places = np.divmod(epoch * count + slots[at] - (int(ends[number]) - count), size)
            passes[at] = passed
            for one in np.unique(passed).tolist():
                of_pass = passed == one
                key = (self.seed, number, one)
                ids[at[of_pass]] = self.starts[number] + permute(places[of_pass], size, key)
        return Drawn(ids, passes)

    def _keyed(self, step: int, sample_ids: Ints, columns: int, many: bool) -> Numbers:
        """By (seed, pass, sample): a sample that an epoch has twice is cropped anew. What a global batch has twice is of its
        first pass there both times, whichever process asks.
        """
        if columns == 0:
            return np.empty((len(sample_ids), 0))
        drawn = self._drawn(step)
        ids, first = np.unique(drawn.sample_ids, return_index=True)
        passes = drawn.passes[first][np.searchsorted(ids, sample_ids)]
        numbers = np.empty((len(sample_ids), columns))
        for one in np.unique(passes).tolist():
            of_pass = passes == one
            draw = many_uniform if many else uniform
            numbers[of_pass] = draw(sample_ids[of_pass], columns, (self.seed, one))
        return numbers


class MixedSplit:
    """The samples of several data sets, numbered from 0, one data set after the other."""

    def __init__(self, parts: Mapping[str, Samples]) -> None:
        self.parts = dict(parts)
        self._splits = list(self.parts.values())
        self._starts = [0, *accumulate(map(len, self._splits))]

    def __len__(self) -> int:
        return self._starts[-1]

    def read(self, sample_id: int) -> Sample:
        """One sample. Raises SampleError naming tar and key if it is not there."""
        part, local_id = self._find(sample_id)
        return part.read(local_id)

    def where(self, sample_id: int) -> str:
        """Tar and key of a sample, for messages."""
        part, local_id = self._find(sample_id)
        return part.where(local_id)

    def captions(self) -> Iterator[str]:
        """All captions, one of each data set in turn for as long as it has some: the first ones are of all of them."""
        remaining = [part.captions() for part in self._splits]
        while remaining:
            still = []
            for captions in remaining:
                for caption in captions:
                    yield caption
                    still.append(captions)
                    break
            remaining = still

    def _find(self, sample_id: int) -> tuple[Samples, int]:
        number = bisect_right(self._starts, sample_id) - 1
        return self._splits[number], sample_id - self._starts[number]


def largest_remainder(weights: Sequence[float], total: int) -> tuple[int, ...]:
    """`total` shared out by weight in whole numbers that add up to it; what is left goes to the largest fractions."""
    whole = sum(map(Fraction, weights))
    exact = [Fraction(weight) * total / whole for weight in weights]
    counts = [int(share) for share in exact]
    by_fraction = sorted(range(len(exact)), key=lambda number: (counts[number] - exact[number], number))
    for number in by_fraction[: total - sum(counts)]:
        counts[number] += 1
    return tuple(counts)


def mixture_digest(digests: Sequence[str], weights: Sequence[float]) -> str:
    """The identity of a mixture: that of its data sets, in order, and their shares."""
    whole = sum(map(Fraction, weights))
    parts = [[digest, str(Fraction(weight) / whole)] for digest, weight in zip(digests, weights, strict=True)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
