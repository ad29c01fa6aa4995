"""Batches of one process, decoded ahead of need by threads (the JPEG decoder releases the interpreter lock).

Axes: B the process's share of the global batch, H W the image, L tokens.
"""

# ruff: noqa: N815 (a tensor's name ends in its axes)
from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.data.images import Decoder
from model.data.order import BatchOrder, Crop, Ints
from model.data.shards import REBUILD, SampleError, Samples
from model.tokenizer import Tokenizer

PREFETCHED_BATCHES = 3
SAMPLES_PER_TASK = 16


@dataclass(frozen=True)
class Batch:
    """One process's share of a step."""

    step: int
    sample_ids: Ints
    image_BHWC: Tensor  # uint8
    tokens_BL: Tensor  # int64, L = the longest caption of this share
    captions_cut: int
    waited_s: float  # how long the training waited for it


@dataclass
class _Pending:
    step: int
    sample_ids: Ints
    image_BHWC: Tensor
    tasks: list[Future[tuple[list[list[int]], int]]]


class Loader:
    """Reads, decodes, crops and tokenizes the share of process `rank` among `world_size`."""

    def __init__(
        self,
        split: Samples,
        tokenizer: Tokenizer,
        order: BatchOrder,
        image_px: int,
        threads: int,
        rank: int = 0,
        world_size: int = 1,
        scaled_decoding: bool = False,
    ) -> None:
        if order.global_batch % world_size:
            raise ValueError(
                f"global_batch {order.global_batch} is not divisible by {world_size} processes; change either"
            )
        self.split = split
        self.tokenizer = tokenizer
        self.order = order
        self.image_px = image_px
        self.threads = threads
        self.scaled_decoding = scaled_decoding
        self.local_batch = order.global_batch // world_size
        self.first = rank * self.local_batch
        self.pin = torch.cuda.is_available()
        self._kept = threading.local()

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of steps [start, stop). Raises SampleError naming the sample that cannot be used."""
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="loader")
        pending: deque[_Pending] = deque()
        try:
            for step in range(start, min(start + PREFETCHED_BATCHES, stop)):
                pending.append(self._submit(pool, step))
            for step in range(start, stop):
                batch = self._finish(pending.popleft())
                if step + PREFETCHED_BATCHES < stop:
                    pending.append(self._submit(pool, step + PREFETCHED_BATCHES))
                yield batch
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, pool: ThreadPoolExecutor, step: int) -> _Pending:
        sample_ids = self.order.sample_ids(step)[self.first : self.first + self.local_batch]
        crops = self.order.crops(step, sample_ids)
        shape = (self.local_batch, self.image_px, self.image_px, 3)
        image_BHWC = torch.empty(shape, dtype=torch.uint8, pin_memory=self.pin)
        chunks = [slice(i, i + SAMPLES_PER_TASK) for i in range(0, self.local_batch, SAMPLES_PER_TASK)]
        tasks = [
            pool.submit(self._load, sample_ids[chunk], crops[chunk], image_BHWC[chunk].numpy()) for chunk in chunks
        ]
        return _Pending(step, sample_ids, image_BHWC, tasks)

    def _load(
        self,
        sample_ids: Ints,
        crops: list[Crop],
        image_BHWC: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    ) -> tuple[list[list[int]], int]:
        """Fill the rows of `image_BHWC`; return the captions' ids and how many were cut."""
        captions = []
        decoder = self._decoder()
        for row, sample_id in enumerate(sample_ids.tolist()):
            sample = self.split.read(sample_id)
            captions.append(sample.caption)
            try:
                decoder.fill(image_BHWC[row], sample.image, crops[row])
            except (ValueError, OSError) as error:
                raise SampleError(
                    f"{self.split.where(sample_id)}: the image cannot be decoded ({error}); {REBUILD}"
                ) from error
        return self.tokenizer.encode_ids(captions)

    def _decoder(self) -> Decoder:
        """That of this thread: the memory that it decodes into is kept."""
        decoder: Decoder | None = getattr(self._kept, "decoder", None)
        if decoder is None:
            decoder = self._kept.decoder = Decoder(self.image_px, self.scaled_decoding)
        return decoder

    def _finish(self, pending: _Pending) -> Batch:
        began = time.perf_counter()
        rows: list[list[int]] = []
        cut = 0
        for task in pending.tasks:
            ids, cut_in_task = task.result()
            rows += ids
            cut += cut_in_task
        tokens_BL = self.tokenizer.pad(rows)
        if self.pin:
            tokens_BL = tokens_BL.pin_memory()
        waited_s = time.perf_counter() - began
        return Batch(pending.step, pending.sample_ids, pending.image_BHWC, tokens_BL, cut, waited_s)
