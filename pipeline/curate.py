"""Judging pairs: every candidate gets one verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field
from upath import UPath

from pipeline.pairs import PAIRS_FILE
from pipeline.parquet import open_parquet
from pipeline.query import SPEED_ONLY, QueryConfig, query_rows, query_to_parquet
from pipeline.repeats import CAPTIONED_FILE, COPY_NUMBERS_FILE, FREQUENT_FILE
from pipeline.rules import RULED_FILE
from pipeline.settings import Settings
from pipeline.stage import Counts, Stage

VERDICTS_FILE = "verdicts.parquet"


class PairVerdictsConfig(Settings):
    """The verdicts follow from the sources alone."""

    query: QueryConfig = Field(QueryConfig(), description="Bounds of one statement", json_schema_extra=SPEED_ONLY)


def _pair_verdicts(sources: Sequence[UPath], out: Path, config: PairVerdictsConfig) -> Counts:
    """`sources` is one part of RULES, then all buckets of REPEATS."""
    ruled, *repeats = sources
    (bounds,) = query_rows("part_bounds", config.query, ruled=ruled / RULED_FILE)
    query_to_parquet(
        "pair_verdicts",
        out / VERDICTS_FILE,
        config.query,
        ruled=ruled / RULED_FILE,
        **bounds,
        copy_numbers=[bucket / COPY_NUMBERS_FILE for bucket in repeats],
        frequent=[bucket / FREQUENT_FILE for bucket in repeats],
        captioned=[bucket / CAPTIONED_FILE for bucket in repeats],
    )
    judged = counts_of([out / VERDICTS_FILE])
    # Told from the source, not from what was written: Counts refuses numbers that do not add up.
    return Counts(rows_in=rows_of(ruled / RULED_FILE), rows_kept=judged.rows_kept, dropped=judged.dropped)


PAIR_VERDICTS = Stage("pair_verdicts", _pair_verdicts, sql=("part_bounds", "pair_verdicts", "drop_counts"), version=2)


def rows_of(file: UPath) -> int:
    """Rows of a Parquet file, by its footer."""
    with file.open("rb") as opened:
        return int(open_parquet(opened).metadata.num_rows)


def verdicts_and_pairs(sources: Sequence[UPath]) -> tuple[list[UPath], list[UPath]]:
    """The files of the verdicts and of the pairs: `sources` is the parts of one and, in the same order, of the other."""
    half = len(sources) // 2
    return [part / VERDICTS_FILE for part in sources[:half]], [part / PAIRS_FILE for part in sources[half:]]


def counts_of(verdicts: Sequence[Path | UPath]) -> Counts:
    """Counts per verdict of Parquet files with a column `drop_reason`."""
    rows = {row["drop_reason"]: row["rows"] for row in query_rows("drop_counts", verdicts=list(verdicts))}
    kept = rows.pop(None, 0)
    return Counts(rows_in=kept + sum(rows.values()), rows_kept=kept, dropped=rows)
