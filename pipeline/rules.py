"""The stage `rules`: what a preset says of each pair alone, and the pair as numbers for the global pass.

A preset is a named, versioned rule set in two SQL files, `sql/pre_<preset>.sql` before the download and
`sql/post_<preset>.sql` after it; their headers name the source, what they hold and what they leave out. Here stands only
what the global pass needs to know of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from pipeline.config import CurateConfig, PresetName
from pipeline.errors import InputError
from pipeline.pairs import PAIRS_FILE
from pipeline.parquet import open_parquet
from pipeline.query import QueryConfig, query_rows, query_to_parquet
from pipeline.settings import Settings
from pipeline.stage import Counts, Stage

RULED_FILE = "ruled.parquet"
BLOCKED_FILE = "blocked.parquet"
BLOCKED_SCHEMA = pa.schema(
    {"part": pa.int32(), "row": pa.int64(), "block_reason": pa.string(), "block_value": pa.string()}
)


@dataclass(frozen=True)
class Preset:
    """What a rule set says beyond single rows. The version is raised when a rule of its files changes."""

    version: int = 1
    max_images_per_caption: int | None = None
    max_captions_per_image: int | None = None


PRESETS: dict[PresetName, Preset] = {
    "webimagetext": Preset(),  # its two frequencies are fields of CurateConfig
    "cc12m": Preset(version=2),
    "align": Preset(max_images_per_caption=10, max_captions_per_image=1_000),  # section 3
    "laion400m": Preset(version=2),
    "datacomp_basic": Preset(),
    "datacomp_caption": Preset(),
    "obelics_like": Preset(version=2),
    "yfcc15m": Preset(),
}


class RulesConfig(Settings):
    """What the verdict on one row depends on: the preset and the fields of CurateConfig that it reads."""

    preset: PresetName
    min_caption_chars: int
    max_caption_chars: int
    min_caption_words: int
    languages: tuple[str, ...]
    min_language_score: float
    obey_opt_out: bool
    query: QueryConfig

    @classmethod
    def of(cls, curate: CurateConfig, query: QueryConfig) -> Self:
        """The part of a configuration that decides; a change of the rest judges nothing anew."""
        shared = {name: getattr(curate, name) for name in cls.model_fields if name != "query"}
        return cls(**shared, query=query)

    @property
    def parameters(self) -> dict[str, object]:
        """The values that `sql/pre_<preset>.sql` takes; the presets of others hold their own."""
        if self.preset != "webimagetext":
            return {}
        return {
            "min_chars": self.min_caption_chars,
            "max_chars": self.max_caption_chars,
            "min_words": self.min_caption_words,
            "languages": list(self.languages),
            "min_language_score": self.min_language_score,
        }


def _rules(sources: Sequence[UPath], out: Path, config: RulesConfig) -> Counts:
    """`sources` is the folder of a part of pairs, and after it that of its blocked rows, if lists are used."""
    if len(sources) not in (1, 2):
        raise InputError(f"a part of pairs and at most one of its blocked rows are judged at once, not {len(sources)}")
    pairs = sources[0] / PAIRS_FILE
    dropped, ruled = out / "dropped.parquet", out / RULED_FILE
    query_to_parquet(f"pre_{config.preset}", dropped, config.query, pairs=pairs, **config.parameters)
    blocked = sources[1] / BLOCKED_FILE if len(sources) == 2 else None
    unblocked = out / BLOCKED_FILE
    if blocked is None or not blocked.exists():
        pq.write_table(BLOCKED_SCHEMA.empty_table(), unblocked)
        blocked = UPath(unblocked)
    query_to_parquet(
        "ruled_pairs",
        ruled,
        config.query,
        pairs=pairs,
        dropped=dropped,
        blocked=blocked,
        obey_opt_out=config.obey_opt_out,
    )
    dropped.unlink()
    unblocked.unlink(missing_ok=True)
    with pairs.open("rb") as file:
        rows_in = open_parquet(file).metadata.num_rows
    rows = {row["drop_reason"]: row["rows"] for row in query_rows("rule_counts", config.query, ruled=ruled)}
    return Counts(rows_in=rows_in, rows_kept=rows.pop(None, 0), dropped=rows)


RULES = Stage("rules", _rules, sql=(*(f"pre_{preset}" for preset in PRESETS), "ruled_pairs", "rule_counts"))
