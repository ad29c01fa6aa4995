"""One pass over images: each is read and decoded once, in threads, while the models look at those that are decoded already.

Axes: B batch, C H W the image, N images of a part, F what a model gives for one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.data import normalise
from model.evaluation.images import StoredImage, UnreadableError, pixels
from model.evaluation.results import Unreadable

LINES = 200
LEAST_ETA_S = 10.0

Say = Callable[[str], None]
Named = tuple[str, StoredImage]
"""An image and the key that a person knows it by."""
Judge = Callable[[Tensor], tuple[Tensor, ...]]
"""Normalised images (B, 3, H, W) -> what is kept of each, tensors (B, F)."""
Look = Callable[[bytes, int], NDArray[np.uint8]]
"""An encoded image and a side in pixels -> its square (side, side, 3); UnreadableError if it cannot be decoded."""
Decoded = NDArray[np.uint8] | str
"""Pixels, or why there are none."""


@dataclass(frozen=True)
class Judged:
    """What came of one part: for each judge its tensors (N, F), fp32 on the CPU, of the images that could be read.

    `rows` are the numbers of these images in the part. Where none could be read the tensors are empty, without a second axis.
    """

    rows: list[int]
    unreadable: list[Unreadable]
    found: list[tuple[Tensor, ...]]


class Progress:
    """Says how far a pass is, at most some 200 times, and how long the rest takes where that is worth waiting for."""

    def __init__(
        self, doing: str, total: int, before: int, say: Say, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.doing, self.total, self.done, self.say, self.clock = doing, total, before, say, clock
        self.before, self.started, self.said = before, clock(), before

    def add(self, images: int) -> None:
        """So many more are done."""
        if images == 0:  # a tar whose samples were all taken down
            return
        self.done += images
        if self.done < self.total and self.done - self.said < self.total / LINES:
            return
        self.said = self.done
        left_s = (self.clock() - self.started) * (self.total - self.done) / (self.done - self.before)
        self.say(
            f"{self.doing} {self.done}/{self.total}" + (f", {_told(left_s)} left" if left_s >= LEAST_ETA_S else "")
        )


def judged_parts(
    parts: Sequence[Sequence[Named]],
    image_px: int,
    batch: int,
    device: torch.device,
    judges: Sequence[Judge],
    progress: Progress,
    look: Look = pixels,
) -> Iterator[Judged]:
    """What the judges say of each part, in order; `batch` images at once, none of two parts.

    An image is decoded once for all judges, which therefore must want the same square.
    """
    batches = [
        part[start : start + batch] for part in parts for start in range(0, max(1, len(part)), batch)
    ]  # one, if empty, for a part without images
    decoded = _decoded(batches, image_px, look)
    for part in parts:
        rows: list[int] = []
        unreadable: list[Unreadable] = []
        judged: list[list[tuple[Tensor, ...]]] = [[] for _ in judges]
        for start in range(0, max(1, len(part)), batch):
            found = next(decoded)
            whole = []
            for row, image in enumerate(found, start):
                if isinstance(image, str):
                    unreadable.append(Unreadable(key=part[row][0], reason=image))
                else:
                    rows.append(row)
                    whole.append(image)
            if whole:
                for own, tensors in zip(judged, _judged(np.stack(whole), device, judges), strict=True):
                    own.append(tensors)
            progress.add(len(found))
        yield Judged(rows, unreadable, [_joined(own) for own in judged])


def _joined(batches: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.cat(tensors) for tensors in zip(*batches, strict=True))


def _judged(pixels_BHWC: NDArray[np.uint8], device: torch.device, judges: Sequence[Judge]) -> list[tuple[Tensor, ...]]:
    with torch.inference_mode():
        image_BCHW = normalise(torch.from_numpy(pixels_BHWC).to(device))
        return [tuple(found.float().cpu() for found in judge(image_BCHW)) for judge in judges]


def _decoded(batches: Sequence[Sequence[Named]], image_px: int, look: Look) -> Iterator[list[Decoded]]:
    """One batch ahead of who asks, so that threads decode while a model looks at the last one."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        now: list[Future[Decoded]] | None = None
        try:
            for batch in batches:
                ahead = [pool.submit(_pixels, image, image_px, look) for _, image in batch]
                if now is not None:
                    yield [future.result() for future in now]
                now = ahead
            if now is not None:
                yield [future.result() for future in now]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _pixels(image: StoredImage, image_px: int, look: Look) -> Decoded:
    try:
        return look(image.read(), image_px)
    except UnreadableError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _told(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
