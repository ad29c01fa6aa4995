"""Parts of pairs, written by hand: what the rules read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from pipeline.config import CurateConfig
from pipeline.curate import PAIR_VERDICTS, PairVerdictsConfig
from pipeline.pairs import PAIRS_SCHEMA, pair_id
from pipeline.query import QueryConfig
from pipeline.repeats import REPEATS, RepeatsConfig
from pipeline.rules import RULES, RulesConfig
from pipeline.settings import Settings
from pipeline.stage import Counts, Stage, StageResult


def pair(**values: Any) -> dict[str, Any]:
    """A pair that every preset keeps, but for the values given."""
    caption = values.get("caption", "A red circle on a beach")
    url = values.get("url_norm", "http://h/1.jpg")
    return {
        "part": 0,
        "source": "s",
        "row": 0,
        "pair_id": pair_id(url or "", caption or ""),
        "url": url,
        "url_norm": url,
        "host": "h",
        "caption_raw": caption,
        "caption": caption,
        "caption_key": caption.casefold() if caption is not None else None,
        "page_url": None,
        "text_key": "alt",
        "page_opt_out": None,
        "chars": len(caption or ""),
        "words": len((caption or "").split()),
        "lang": "en",
        "lang_score": 0.9,
        "is_file_name": False,
        **values,
    }


def made_part(folder: Path, rows: Sequence[dict[str, Any]], part: int = 0) -> UPath:
    """A finished part of pairs; rows are numbered in order."""
    numbered = [{**row, "part": part, "row": number} for number, row in enumerate(rows)]

    def write(_sources: Sequence[UPath], out: Path, _config: Settings) -> Counts:
        pq.write_table(pa.Table.from_pylist(numbered, schema=PAIRS_SCHEMA), out / "pairs.parquet")
        return Counts(rows_in=len(rows), rows_kept=len(rows))

    return Stage("pairs", write).run((), UPath(folder), Settings()).out


def judge(
    folder: Path, parts: Sequence[UPath], curate: CurateConfig, query: QueryConfig, buckets: int = 1
) -> list[StageResult]:
    """The verdicts on parts of pairs, in the same parts."""
    rules = RulesConfig.of(curate, query)
    ruled = [RULES.run([part], folder_of(folder, "rules", number), rules).out for number, part in enumerate(parts)]
    wanted = [RepeatsConfig.of(curate, query, number, buckets) for number in range(buckets)]
    repeats = [REPEATS.run(ruled, folder_of(folder, "repeats", each.number), each).out for each in wanted]
    return [
        PAIR_VERDICTS.run([part, *repeats], folder_of(folder, "verdicts", number), PairVerdictsConfig(query=query))
        for number, part in enumerate(ruled)
    ]


def folder_of(folder: Path, stage: str, number: int) -> UPath:
    return UPath(folder / stage / f"part-{number:05d}")
