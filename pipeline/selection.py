"""Choosing the pairs that are worth a download, and cutting them into parts for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from upath import UPath

from pipeline.balancing import BALANCED_FILE
from pipeline.config import CurateConfig
from pipeline.curate import counts_of, rows_of, verdicts_and_pairs
from pipeline.query import SPEED_ONLY, QueryConfig, query_rows, query_to_parquet
from pipeline.settings import Settings
from pipeline.stage import Counts, Stage

SELECTED_FILE = "selected.parquet"


class SelectionConfig(BaseModel):
    """What the selection depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    curate: CurateConfig
    query: QueryConfig


def _selected(sources: Sequence[UPath], out: Path, config: SelectionConfig) -> Counts:
    """`sources` is the parts of verdicts, then those of pairs; rows beyond `max_pairs` are counted as `not_drawn`."""
    verdicts, pairs = verdicts_and_pairs(sources)
    kept = counts_of(verdicts).rows_kept
    rows = query_to_parquet(
        "selected_pairs",
        out / SELECTED_FILE,
        config.query,
        pairs=pairs,
        verdicts=verdicts,
        seed=config.curate.seed,
        max_pairs=config.curate.max_pairs,
    )
    drawn = min(kept, config.curate.max_pairs or kept)
    return Counts(rows_in=kept, rows_kept=rows, dropped={"not_drawn": kept - drawn} if drawn < kept else {})


class BalancedSelectionConfig(Settings):
    """What the selection after balancing depends on."""

    pairs_parts: int = Field(ge=1, description="How many of the sources are parts of pairs, and of verdicts")
    max_pairs: int = Field(0, ge=0, description="Pairs kept at most, chosen by hash of (seed, pair_id); 0 = all")
    seed: int = Field(0, ge=0, description="Seed of the choice")
    query: QueryConfig = Field(QueryConfig(), description="Bounds of one statement", json_schema_extra=SPEED_ONLY)


def _balanced_selection(sources: Sequence[UPath], out: Path, config: BalancedSelectionConfig) -> Counts:
    """`sources` is the parts of verdicts, those of pairs, then all of BALANCED."""
    verdicts, pairs = verdicts_and_pairs(sources[: 2 * config.pairs_parts])
    files = [part / BALANCED_FILE for part in sources[2 * config.pairs_parts :]]
    (row,) = query_rows("balance_summary", config.query, balanced=files)
    rows = query_to_parquet(
        "selected_balanced",
        out / SELECTED_FILE,
        config.query,
        pairs=pairs,
        verdicts=verdicts,
        balanced=files,
        seed=config.seed,
        max_pairs=config.max_pairs,
    )
    kept = row["kept"]
    drawn = min(kept, config.max_pairs or kept)
    return Counts(rows_in=kept, rows_kept=rows, dropped={"not_drawn": kept - drawn} if drawn < kept else {})


class PartConfig(BaseModel):
    """One part of the selection: rows `number * rows_per_part` and on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    rows_per_part: int


def _selected_part(sources: Sequence[UPath], out: Path, config: PartConfig) -> Counts:
    (selected,) = sources
    rows = query_to_parquet(
        "part_of_pairs",
        out / SELECTED_FILE,
        QueryConfig(),
        selected=selected / SELECTED_FILE,
        first_row=config.number * config.rows_per_part,
        rows=config.rows_per_part,
    )
    left = rows_of(selected / SELECTED_FILE) - config.number * config.rows_per_part
    return Counts(rows_in=min(left, config.rows_per_part), rows_kept=rows)


SELECTED = Stage("selected", _selected, sql=("selected_pairs",))
SELECTED_PART = Stage("selected_part", _selected_part, sql=("part_of_pairs",))
BALANCED_SELECTION = Stage("balanced_selection", _balanced_selection, sql=("selected_balanced", "balance_summary"))
