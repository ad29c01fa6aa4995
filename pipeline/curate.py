"""Choosing pairs: every candidate gets one verdict, the kept ones are cut into parts for download."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict
from upath import UPath

from pipeline.config import CurateConfig
from pipeline.errors import InputError
from pipeline.query import QueryConfig, query_rows, query_to_parquet
from pipeline.rules import PRESETS, RULED_FILE, Preset
from pipeline.settings import Settings
from pipeline.stage import Counts, Stage

VERDICTS_FILE = "verdicts.parquet"
SELECTED_FILE = "selected.parquet"


class VerdictsConfig(BaseModel):
    """What the selection depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    curate: CurateConfig
    query: QueryConfig


class FrequencyConfig(Settings):
    """How often a caption or an image may occur among the pairs that passed the rules; None = any number of times."""

    max_images_per_caption: int | None
    max_captions_per_image: int | None
    query: QueryConfig

    @classmethod
    def of(cls, curate: CurateConfig, query: QueryConfig) -> Self:
        """The numbers of the preset, which for webimagetext are those of the configuration."""
        numbers: CurateConfig | Preset = curate if curate.preset == "webimagetext" else PRESETS[curate.preset]
        return cls(
            max_images_per_caption=numbers.max_images_per_caption,
            max_captions_per_image=numbers.max_captions_per_image,
            query=query,
        )


def _pair_verdicts(sources: Sequence[UPath], out: Path, config: FrequencyConfig) -> Counts:
    """`sources` is all parts of RULES, in order. One blocking step per statement, so that each has the memory to itself."""
    if not sources:
        raise InputError(
            "no pairs to judge: the sources of the configuration gave no part; set source.site_crawl.seeds "
            "or source.url_list.paths"
        )
    ruled = [part / RULED_FILE for part in sources]
    with tempfile.TemporaryDirectory(dir=out, prefix="exceptions-") as folder:
        verdicts = _exceptions(ruled, Path(folder), config)
        query_to_parquet("pair_verdicts", out / VERDICTS_FILE, config.query, ruled=ruled, **verdicts)
    judged = counts_of(out / VERDICTS_FILE)
    # Told from the sources, not from what was written: Counts refuses numbers that do not add up.
    return Counts(rows_in=sum(map(rows_of, ruled)), rows_kept=judged.rows_kept, dropped=judged.dropped)


def _exceptions(ruled: Sequence[UPath], folder: Path, config: FrequencyConfig) -> dict[str, Path]:
    """The rows, captions and images that the global rules drop, as files in `folder`: parameters of pair_verdicts.sql."""
    names = ("repeated", "copies", "copy_numbers", "frequent", "captioned")
    repeated, copies, copy_numbers, frequent, captioned = (folder / f"{name}.parquet" for name in names)
    query = config.query
    query_to_parquet("repeated_pairs", repeated, query, ruled=ruled)
    query_to_parquet("later_copies", copies, query, ruled=ruled, repeated=repeated)
    query_to_parquet("copy_numbers", copy_numbers, query, copies=copies)
    most_images, most_captions = config.max_images_per_caption, config.max_captions_per_image
    query_to_parquet("frequent_captions", frequent, query, ruled=ruled, max_images=most_images)
    query_to_parquet("captioned_images", captioned, query, ruled=ruled, max_captions=most_captions)
    return {"copy_numbers": copy_numbers, "frequent": frequent, "captioned": captioned}


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
    drawn = min(kept, config.curate.max_pairs or kept)
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


PAIR_VERDICTS = Stage(
    "pair_verdicts",
    _pair_verdicts,
    sql=(
        "repeated_pairs",
        "later_copies",
        "copy_numbers",
        "frequent_captions",
        "captioned_images",
        "pair_verdicts",
        "drop_counts",
    ),
)
SELECTED = Stage("selected", _selected, sql=("selected_pairs",))
SELECTED_PART = Stage("selected_part", _selected_part, sql=("part_of_pairs",))


def rows_of(file: UPath) -> int:
    """Rows of a Parquet file, by its footer."""
    with file.open("rb") as opened:
        return int(pq.ParquetFile(opened).metadata.num_rows)


def counts_of(verdicts: Path | UPath) -> Counts:
    """Counts per verdict of a Parquet file with a column `drop_reason`."""
    rows = {row["drop_reason"]: row["rows"] for row in query_rows("drop_counts", verdicts=verdicts)}
    kept = rows.pop(None, 0)
    return Counts(rows_in=kept + sum(rows.values()), rows_kept=kept, dropped=rows)
