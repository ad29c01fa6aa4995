"""Scores of images: each bound at its edge, by pair and by bytes, against the rules written as a loop."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from downloaded_parts import Pair, write_facts, write_part
from pydantic import ValidationError
from upath import UPath

from pipeline.config import ImageConfig
from pipeline.errors import InputError
from pipeline.image_scores import IMAGE_SCORES, plan
from pipeline.images import IMAGE_VERDICTS, ImageVerdictsConfig, image_sources
from pipeline.query import QueryConfig
from pipeline.stage import StageResult

BOUNDS = {"max_nsfw": 0.5, "max_watermark": 0.8, "min_aesthetic": 4.5, "min_clip": 0.3}


def write_scores(file: Path, rows: list[dict[str, Any]]) -> str:
    pq.write_table(pa.Table.from_pylist(rows), file)
    return str(file)


def judge(root: Path, pairs: list[Pair], scores: tuple[str, ...], **given: Any) -> tuple[StageResult, StageResult]:
    """What became of the scores and of the pairs."""
    images = ImageConfig(scores=scores, **given)
    scored = IMAGE_SCORES.run([], UPath(root / "image_scores"), plan(images, QueryConfig()))
    selected, download = write_part(root, 0, pairs)
    sources = image_sources([selected], [download], [write_facts(root, 0, pairs)], [], [scored.out])
    config = ImageVerdictsConfig(images=images, query=QueryConfig(threads=1))
    return scored, IMAGE_VERDICTS.run(sources, UPath(root / "image_verdicts"), config)


def verdicts_of(result: StageResult) -> dict[str, tuple[str | None, str | None]]:
    rows = pq.read_table(result.out.path + "/image_verdicts.parquet").to_pylist()
    return {row["pair_id"]: (row["drop_reason"], row["decided_by"]) for row in rows}


def test_each_bound_at_its_edge(tmp_path: Path) -> None:
    cases: dict[str, tuple[dict[str, float | None], str | None]] = {
        "a": ({"nsfw": 0.5, "watermark": 0.8, "aesthetic": 4.5, "clip": 0.3}, None),
        "b": ({"nsfw": 0.51}, "nsfw_score"),
        "c": ({"watermark": 0.81}, "watermark_score"),
        "d": ({"aesthetic": 4.49}, "aesthetic_score"),
        "e": ({"clip": 0.29}, "clip_score"),
        "f": ({"nsfw": 0.9, "clip": 0.1}, "nsfw_score"),
        "g": ({"nsfw": math.nan, "clip": math.nan}, None),
        "h": ({"nsfw": None}, None),
    }
    rows = [{"pair_id": name, **values} for name, (values, _) in cases.items()]
    names = ("pair_id", "nsfw", "watermark", "aesthetic", "clip")
    file = write_scores(tmp_path / "scores.parquet", [dict.fromkeys(names) | row for row in rows])
    scored, judged = judge(tmp_path, [Pair(name) for name in [*cases, "unscored"]], (file,), **BOUNDS)
    found = verdicts_of(judged)
    assert {name: found[name][0] for name in cases} == {name: reason for name, (_, reason) in cases.items()}
    assert found["b"] == ("nsfw_score", "0.51") and found["e"] == ("clip_score", "0.29")
    assert found["unscored"] == (None, None)
    assert scored.counts.rows_in == 6 and scored.counts.rows_kept == 1
    assert judged.counts.dropped == scored.counts.dropped


def test_images_are_found_by_their_bytes_and_rules_come_first(tmp_path: Path) -> None:
    """Several files, of which each has its own columns; the worst score of an image stands, and counts for all its pairs."""
    pairs = [
        Pair("a", original="seen"),
        Pair("b", original="seen"),
        Pair("c"),
        Pair("d", original="small", stored_bytes=1),
        Pair("e", status="timeout", error="late"),
        Pair("f", original="good"),
    ]
    sha256 = {pair.pair_id: pair.sha256 for pair in pairs}
    rows = [{"sha256": sha256[name].upper(), "nsfw": score} for name, score in [("a", 0.1), ("a", 0.7), ("d", 0.9)]]
    by_bytes = write_scores(tmp_path / "bytes.parquet", [*rows, {"sha256": sha256["f"], "nsfw": 0.2}])
    by_pair = write_scores(tmp_path / "pairs.parquet", [{"pair_id": "b", "clip": 0.1, "other": "x"}])
    _, judged = judge(
        tmp_path, pairs, (by_bytes, by_pair), max_nsfw=0.5, min_clip=0.2, scores_required=True, min_bytes=500
    )
    assert verdicts_of(judged) == {
        "a": ("nsfw_score", "0.7"),
        "b": ("clip_score", "0.1"),
        "c": ("no_score", None),
        "d": ("small_file", "1"),
        "e": ("timeout", "late"),
        "f": (None, None),
    }


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"url": "http://a.example/", "nsfw": 0.1}], "neither a column 'pair_id' nor 'sha256', but 'url', 'nsfw'"),
        ([{"pair_id": "a", "clip": 0.1}], "none of the columns nsfw that a bound is set for, but 'pair_id', 'clip'"),
        ([{"pair_id": "a", "nsfw": "high"}], "column 'nsfw' holds string, not numbers"),
    ],
)
def test_a_file_that_cannot_be_used_is_told(tmp_path: Path, rows: list[dict[str, Any]], told: str) -> None:
    file = write_scores(tmp_path / "scores.parquet", rows)
    with pytest.raises(InputError, match=rf"scores\.parquet: .*{told}"):
        judge(tmp_path, [Pair("a")], (file,), max_nsfw=0.5)
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"torn\.parquet: cannot be read"):
        judge(tmp_path, [Pair("a")], (str(tmp_path / "torn.parquet"),), max_nsfw=0.5)
    with pytest.raises(InputError, match=r"absent\.parquet: no such file; check images\.scores"):
        plan(ImageConfig(scores=(str(tmp_path / "absent.parquet"),), max_nsfw=0.5), QueryConfig())


def test_scores_and_bounds_belong_together() -> None:
    with pytest.raises(ValidationError, match="scores are given without a bound; set one of max_nsfw"):
        ImageConfig(scores=("scores.parquet",))
    with pytest.raises(ValidationError, match="min_clip is set, but no file of scores is given"):
        ImageConfig(min_clip=0.3)
    with pytest.raises(ValidationError, match="scores_required is set, but no file"):
        ImageConfig(scores_required=True)
