"""Scores that models gave to the images: which of them are out of bounds.

`block.scores` holds what is known of a URL before the download; these are looked up after it, by pair or by the bytes of the
image, so that another bound fetches nothing again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from upath import UPath

from pipeline.config import SCORE_BOUNDS, ImageConfig
from pipeline.errors import InputError
from pipeline.parquet import batches, open_parquet
from pipeline.query import QueryConfig, query_rows, query_to_parquet
from pipeline.settings import Settings
from pipeline.sources.files import expand, open_seekable, readable, sha256_file
from pipeline.sources.rows import TableWriter
from pipeline.stage import Counts, Stage

SCORES_FIELD = "images.scores"
SCORES_FILE = "image_scores.parquet"
BATCH_ROWS = 65_536
KEY_COLUMNS = ("pair_id", "sha256")
LINES_SCHEMA = pa.schema(
    {"pair_id": pa.string(), "sha256": pa.string()} | dict.fromkeys(SCORE_BOUNDS, pa.float64()),
)
SCORED_SCHEMA = pa.schema(
    {"key": pa.string(), "value": pa.string(), "score_reason": pa.string(), "score_value": pa.string()}
)


class ScoreFile(Settings):
    """One file of scores; its checksum is what the stage's identity hangs on."""

    path: str
    sha256: str


class ImageScoresConfig(Settings):
    """What the judgement of the scores depends on; None = no bound."""

    files: tuple[ScoreFile, ...]
    max_nsfw: float | None
    max_watermark: float | None
    min_aesthetic: float | None
    min_clip: float | None
    query: QueryConfig


def plan(images: ImageConfig, query: QueryConfig) -> ImageScoresConfig:
    """The files of scores, each read once for its checksum. Raises InputError if one is absent."""
    paths = dict.fromkeys(path for pattern in images.scores for path in expand(pattern, SCORES_FIELD))
    return ImageScoresConfig(
        files=tuple(ScoreFile(path=path, sha256=sha256_file(path, SCORES_FIELD)) for path in paths),
        **{bound: getattr(images, bound) for bound in SCORE_BOUNDS.values()},
        query=query,
    )


def _image_scores(sources: Sequence[UPath], out: Path, config: ImageScoresConfig) -> Counts:
    """`out` gets one row per pair or image that has a score, with the first bound that it breaks. There are no sources."""
    bounds = {bound: getattr(config, bound) for bound in SCORE_BOUNDS.values()}
    wanted = [name for name, bound in SCORE_BOUNDS.items() if bounds[bound] is not None]
    with tempfile.TemporaryDirectory(dir=out, prefix="lines-") as folder:
        lines = Path(folder) / "lines.parquet"
        with TableWriter(lines, LINES_SCHEMA) as writer:
            for file in config.files:
                for table in _read_lines(file.path, wanted):
                    writer.write(table)
        query_to_parquet("image_scores", out / SCORES_FILE, config.query, lines=lines, **bounds)
    rows = {row["drop_reason"]: row["rows"] for row in query_rows("score_counts", scores=out / SCORES_FILE)}
    kept = rows.pop(None, 0)
    return Counts(rows_in=kept + sum(rows.values()), rows_kept=kept, dropped=rows)


IMAGE_SCORES = Stage("image_scores", _image_scores, sql=("image_scores", "score_counts"))


def _read_lines(path: str, wanted: Sequence[str]) -> Iterator[pa.Table]:
    """The rows of a file. Raises InputError if it has no key, or none of the scores that have a bound."""
    with readable(path, SCORES_FIELD), open_seekable(path, SCORES_FIELD) as opened:
        parquet = open_parquet(opened)
        names = parquet.schema_arrow.names
        present = ", ".join(map(repr, names)) or "no columns"
        keys, scores = ([name for name in group if name in names] for group in (KEY_COLUMNS, wanted))
        if not keys:
            raise InputError(f"{path}: has neither a column 'pair_id' nor 'sha256', but {present}; rename one")
        if not scores:
            raise InputError(
                f"{path}: has none of the columns {', '.join(wanted)} that a bound is set for, but {present}; rename one, or "
                f"leave the file out of {SCORES_FIELD}"
            )
        for name in scores:
            if not _is_number(kind := parquet.schema_arrow.field(name).type):
                raise InputError(f"{path}: column {name!r} holds {kind}, not numbers; convert it")
        for batch in batches(parquet, BATCH_ROWS, [*keys, *scores]):
            yield _table(batch)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _table(batch: pa.RecordBatch) -> pa.Table:
    columns: list[Any] = [
        batch[field.name].cast(field.type, safe=False)
        if field.name in batch.schema.names
        else pa.nulls(len(batch), field.type)
        for field in LINES_SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=LINES_SCHEMA)
