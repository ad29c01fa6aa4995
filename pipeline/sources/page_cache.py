"""The pages of one site that were fetched, in SQLite: what makes a crawl resumable at any instant."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

BUSY_TIMEOUT_S = 30.0

_SCHEMA = """
    create table if not exists pages (
        url text primary key,
        status integer not null,
        headers text not null,
        body blob not null
    ) strict, without rowid
"""


class CachedPage(NamedTuple):
    """A final response: its body is decompressed, headers keep their order and repetitions."""

    url: str
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class PageCache:
    """A table of responses by URL. Each `store` is a transaction: after a kill a page is there whole or not at all."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        self._connection.execute("pragma journal_mode = wal")
        # A crash of the machine may cost the last pages, never the table: they would only be fetched again.
        self._connection.execute("pragma synchronous = normal")
        self._connection.execute(_SCHEMA)

    def store(self, page: CachedPage) -> None:
        """Keep a response, in place of an earlier one of that URL."""
        values = (page.url, page.status, json.dumps(page.headers), zlib.compress(page.body, 1))
        self._connection.execute("insert or replace into pages values (?, ?, ?, ?)", values)

    def find(self, url: str) -> CachedPage | None:
        """The response of `url`, or None if it was never stored."""
        row = self._connection.execute("select * from pages where url = ?", (url,)).fetchone()
        if row is None:
            return None
        found, status, headers, body = row
        pairs = tuple((name, value) for name, value in json.loads(headers))
        return CachedPage(found, status, pairs, zlib.decompress(body))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


@contextmanager
def open_cache(path: Path) -> Iterator[PageCache]:
    """The cache at `path`, made if it does not exist."""
    cache = PageCache(path)
    try:
        yield cache
    finally:
        cache.close()
