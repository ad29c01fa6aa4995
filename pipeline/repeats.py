"""What repeats too often over the whole data set: pairs found again, captions on many images, images with many captions.

It needs a view of all rows, so it is one statement each on one machine, or the same statement for every bucket of its keys. The
verdicts are then taken part by part beside these tables, which hold the exceptions and are small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from upath import UPath

from pipeline.config import CurateConfig
from pipeline.errors import InputError
from pipeline.query import QueryConfig, query_to_parquet
from pipeline.rules import PRESETS, RULED_FILE, Preset
from pipeline.settings import Settings
from pipeline.stage import Counts, Stage

COPY_NUMBERS_FILE = "copy_numbers.parquet"
FREQUENT_FILE = "frequent_captions.parquet"
CAPTIONED_FILE = "captioned_images.parquet"
# Of the table of groups by pair_id, on the safe side: 40 million rows fit into 2 GB, 100 million spill (benchmarks/RESULTS.md).
BYTES_PER_ROW = 80


class RepeatsConfig(Settings):
    """One bucket of the keys, and how often a caption or an image may occur among the pairs that passed the rules."""

    max_images_per_caption: int | None = Field(description="Distinct images of a caption, at most; None = any number")
    max_captions_per_image: int | None = Field(description="Distinct captions of an image, at most; None = any number")
    query: QueryConfig
    number: int = Field(0, ge=0, description="Number of the bucket, from 0")
    buckets: int = Field(1, ge=1, description="Buckets in all; together they find the same for any number of them")

    @model_validator(mode="after")
    def _exists(self) -> Self:
        if self.number >= self.buckets:
            raise ValueError(f"bucket {self.number} of {self.buckets} does not exist; they are numbered from 0")
        return self

    @classmethod
    def of(cls, curate: CurateConfig, query: QueryConfig, number: int = 0, buckets: int = 1) -> Self:
        """The numbers of the preset, which for webimagetext are those of the configuration."""
        numbers: CurateConfig | Preset = curate if curate.preset == "webimagetext" else PRESETS[curate.preset]
        return cls(
            max_images_per_caption=numbers.max_images_per_caption,
            max_captions_per_image=numbers.max_captions_per_image,
            query=query,
            number=number,
            buckets=buckets,
        )


def buckets_for(rows: int, query: QueryConfig) -> int:
    """Buckets of which each has its keys in memory: a statement that spills takes several times as long."""
    return max(1, math.ceil(rows * BYTES_PER_ROW / (query.memory_limit_mb * 1e6)))


def _repeats(sources: Sequence[UPath], out: Path, config: RepeatsConfig) -> Counts:
    """`sources` is all parts of RULES. One blocking step per statement, so that each has the memory to itself."""
    if not sources:
        raise InputError(
            "no pairs to judge: the sources of the configuration gave no part; set source.site_crawl.seeds "
            "or source.url_list.paths"
        )
    ruled, query = [part / RULED_FILE for part in sources], config.query
    bucket = {"bucket": config.number, "buckets": config.buckets}
    repeated, copies = out / "repeated.parquet", out / "copies.parquet"
    query_to_parquet("repeated_pairs", repeated, query, ruled=ruled, **bucket)
    query_to_parquet("later_copies", copies, query, ruled=ruled, repeated=repeated, **bucket)
    rows = query_to_parquet("copy_numbers", out / COPY_NUMBERS_FILE, query, copies=copies)
    repeated.unlink()
    copies.unlink()
    most_images, most_captions = config.max_images_per_caption, config.max_captions_per_image
    frequent, captioned = out / FREQUENT_FILE, out / CAPTIONED_FILE
    rows += query_to_parquet("frequent_captions", frequent, query, ruled=ruled, max_images=most_images, **bucket)
    rows += query_to_parquet("captioned_images", captioned, query, ruled=ruled, max_captions=most_captions, **bucket)
    return Counts(rows_in=rows, rows_kept=rows)


REPEATS = Stage(
    "repeats",
    _repeats,
    sql=("repeated_pairs", "later_copies", "copy_numbers", "frequent_captions", "captioned_images"),
)
