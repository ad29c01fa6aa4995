"""Rows of one image URL and one text each, gathered into batches: how the adapters of published data sets write."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.sources.rows import RowsWriter
from pipeline.stage import Counts

BATCH_ROWS = 8_192

log = logging.getLogger(__name__)


class TextRows:
    """Writes `rows.parquet` row by row and keeps count of what was dropped, by reason."""

    def __init__(self, out: Path, path: str, source: str) -> None:
        self.path = path
        self.dropped: Counter[str] = Counter()
        self._writer = RowsWriter(out, source)
        self._batch: list[tuple[str | None, str | None, str, str | None]] = []

    def add(self, url: str | None, text: str | None, text_key: str, page_url: str | None = None) -> None:
        """Append one row; halves of surrogate pairs, which UTF-8 does not have, become `?`."""
        self._batch.append((_clean(url), _clean(text), text_key, _clean(page_url)))
        if len(self._batch) >= BATCH_ROWS:
            self._flush()

    def counts(self) -> Counts:
        """What became of the rows, once all are written. Raises InputError if none was."""
        kept, dropped = self._writer.rows, self.dropped
        told = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items())) or "none"
        if not kept:
            raise InputError(f"{self.path}: holds no pair of image and text (dropped: {told}); is it the right file?")
        if dropped:
            log.warning("%s: %d rows; dropped: %s", self.path, kept, told)
        return Counts(rows_in=kept + dropped.total(), rows_kept=kept, dropped=dict(sorted(dropped.items())))

    def _flush(self) -> None:
        if not self._batch:
            return
        urls, texts, keys, pages = zip(*self._batch, strict=True)
        columns = {"url": urls, "caption_raw": texts, "text_key": keys, "page_url": pages}
        self._writer.append({name: pa.array(values, pa.string()) for name, values in columns.items()})
        self._batch = []

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.__exit__(kind, error, trace)


def _clean(text: str | None) -> str | None:
    return text if text is None or text.isascii() else text.encode("utf-8", "replace").decode()
