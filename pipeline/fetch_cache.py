"""What a part's download has settled so far, in SQLite: a download that was killed asks for none of it again."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel
from upath import UPath

from pipeline.originals import Original
from pipeline.stage import ConfigT, Stage, StageResult, deciding_settings, input_digest
from pipeline.stored_image import StoredImage

_SCHEMA = """
    create table if not exists outcomes (
        pair_id text primary key,
        error text,
        jpeg blob,
        width_px integer,
        height_px integer,
        original_width_px integer,
        original_height_px integer,
        sha256 text,
        original_bytes integer,
        original_format text,
        file_opt_out text
    ) strict
"""


class Outcome(NamedTuple):
    """What became of one pair: an error, or an image and what is noted of it as it came."""

    pair_id: str
    error: str | None
    image: StoredImage | None
    original: Original | None


class FetchCache:
    """A table of outcomes by pair_id. Each `store` is a transaction: after a kill it is there whole or not at all."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("pragma journal_mode = wal")
        # A crash of the machine may cost the last images, never the table: they would only be fetched again.
        self._connection.execute("pragma synchronous = normal")
        self._connection.execute(_SCHEMA)

    def store(self, outcome: Outcome) -> None:
        """Keep an outcome."""
        image = outcome.image or (None,) * len(StoredImage._fields)
        original = outcome.original or (None,) * len(Original._fields)
        values = (outcome.pair_id, outcome.error, *image, *original)
        self._connection.execute(f"insert into outcomes values ({', '.join('?' * len(values))})", values)

    def pair_ids(self) -> set[str]:
        """The pairs that are settled."""
        return {pair_id for (pair_id,) in self._connection.execute("select pair_id from outcomes")}

    def find(self, pair_id: str) -> Outcome | None:
        """The outcome of a pair, or None if it is not settled."""
        row = self._connection.execute("select * from outcomes where pair_id = ?", (pair_id,)).fetchone()
        if row is None:
            return None
        found, error, *values = row
        images = len(StoredImage._fields)
        if error is not None:
            return Outcome(found, error, None, None)
        return Outcome(found, None, StoredImage(*values[:images]), Original(*values[images:]))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


@contextmanager
def open_cache(path: Path) -> Iterator[FetchCache]:
    """The cache at `path`, made if it does not exist."""
    with closing(FetchCache(path)) as cache:
        yield cache


def cache_file(folder: Path, sources: Sequence[UPath], config: BaseModel) -> Path:
    """The cache of one piece of work below `folder`: another input, another setting or another table has another one."""
    inputs = [input_digest(source) for source in sources]
    identity = {"inputs": inputs, "config": deciding_settings(config), "table": _SCHEMA}
    return folder / f"{hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]}.sqlite"


@dataclass(frozen=True)
class CachedStage(Stage[ConfigT]):
    """A stage whose work keeps a cache below `cache_folder`; it goes once the stage is done."""

    cache_folder: Path = field(kw_only=True)

    def run(self, sources: Sequence[UPath], out: UPath, config: ConfigT) -> StageResult:
        """Do the work unless `out` already holds it."""
        result = super().run(sources, out, config)
        cache_file(self.cache_folder, sources, config).unlink(missing_ok=True)
        return result
