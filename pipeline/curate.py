"""Choosing pairs: every candidate gets one verdict, the kept ones are cut into parts for download."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from upath import UPath

from pipeline.config import CurateConfig
from pipeline.errors import InputError
from pipeline.query import QueryConfig, query_rows, query_to_parquet
from pipeline.stage import Counts, Stage

VERDICTS_FILE = "verdicts.parquet"
SELECTED_FILE = "selected.parquet"


class VerdictsConfig(BaseModel):
    """What the verdicts depend on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    curate: CurateConfig
    query: QueryConfig


def _pair_verdicts(sources: Sequence[UPath], out: Path, config: VerdictsConfig) -> Counts:
    rules = config.curate
    if not sources:
        raise InputError(
            "no pairs to judge: the sources of the configuration gave no part; set source.site_crawl.seeds "
            "or source.url_list.paths"
        )
    verdicts = out / VERDICTS_FILE
    query_to_parquet(
        "pair_verdicts",
        verdicts,
        config.query,
        pairs=[part / "pairs.parquet" for part in sources],
        min_chars=rules.min_caption_chars,
        max_chars=rules.max_caption_chars,
        min_words=rules.min_caption_words,
        languages=list(rules.languages),
        min_language_score=rules.min_language_score,
        max_images=rules.max_images_per_caption,
        max_captions=rules.max_captions_per_image,
        obey_opt_out=rules.obey_opt_out,
    )
    return counts_of(verdicts)


def _selected(sources: Sequence[UPath], out: Path, config: VerdictsConfig) -> Counts:
    """`sources` is the folder of verdicts followed by the parts of pairs; rows beyond `max_pairs` are counted as `not_drawn`."""
    verdicts, *pairs = sources
    kept = counts_of(verdicts / VERDICTS_FILE).rows_kept
    rows = query_to_parquet(
        "selected_pairs",
        out / SELECTED_FILE,
        config.query,
        pairs=[part / "pairs.parquet" for part in pairs],
        verdicts=verdicts / VERDICTS_FILE,
        seed=config.curate.seed,
        max_pairs=config.curate.max_pairs,
    )
    return Counts(rows_in=kept, rows_kept=rows, dropped={"not_drawn": kept - rows} if rows < kept else {})


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
    return Counts(rows_in=rows, rows_kept=rows)


PAIR_VERDICTS = Stage("pair_verdicts", _pair_verdicts, sql=("pair_verdicts",))
SELECTED = Stage("selected", _selected, sql=("selected_pairs",))
SELECTED_PART = Stage("selected_part", _selected_part, sql=("part_of_pairs",))


def counts_of(verdicts: Path | UPath) -> Counts:
    """Counts per verdict of a Parquet file with a column `drop_reason`."""
    rows = {row["drop_reason"]: row["rows"] for row in query_rows("drop_counts", verdicts=verdicts)}
    kept = rows.pop(None, 0)
    return Counts(rows_in=kept + sum(rows.values()), rows_kept=kept, dropped=rows)
