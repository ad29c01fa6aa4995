"""Verdicts of pairs, at the boundaries of every rule."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel
from upath import UPath

from pipeline.config import CurateConfig
from pipeline.curate import PAIR_VERDICTS, SELECTED, SELECTED_PART, PartConfig, VerdictsConfig
from pipeline.errors import InputError
from pipeline.query import QueryConfig, query_rows
from pipeline.stage import Counts, Stage, StageResult

SCHEMA = pa.schema(
    {
        "part": pa.int32(),
        "source": pa.string(),
        "row": pa.int64(),
        "pair_id": pa.string(),
        "url": pa.string(),
        "url_norm": pa.string(),
        "host": pa.string(),
        "caption_raw": pa.string(),
        "caption": pa.string(),
        "caption_key": pa.string(),
        "page_url": pa.string(),
        "text_key": pa.string(),
        "page_opt_out": pa.string(),
        "chars": pa.int32(),
        "words": pa.int32(),
        "lang": pa.string(),
        "lang_score": pa.float32(),
        "is_file_name": pa.bool_(),
    }
)


class Nothing(BaseModel):
    pass


def pair(**values: Any) -> dict[str, Any]:
    """A pair that every rule keeps, but for the values given."""
    caption = values.get("caption", "A red circle on a beach")
    url = values.get("url_norm", "http://h/1.jpg")
    return {
        "part": 0,
        "source": "s",
        "row": 0,
        "pair_id": f"{url} {caption}",
        "url": url,
        "url_norm": url,
        "host": "h",
        "caption_raw": caption,
        "caption": caption,
        "caption_key": (caption or "").casefold(),
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


def made_part(folder: Path, rows: Sequence[dict[str, Any]]) -> UPath:
    """A finished part of pairs; rows are numbered in order."""
    numbered = [{**row, "row": number} for number, row in enumerate(rows)]

    def write(_sources: Sequence[UPath], out: Path, _config: Nothing) -> Counts:
        pq.write_table(pa.Table.from_pylist(numbered, schema=SCHEMA), out / "pairs.parquet")
        return Counts(rows_in=len(rows), rows_kept=len(rows))

    return Stage("pairs", write).run((), UPath(folder), Nothing()).out


def judged(tmp_path: Path, rows: Sequence[dict[str, Any]], **rules: Any) -> tuple[UPath, StageResult]:
    part = made_part(tmp_path / "pairs", rows)
    config = VerdictsConfig(curate=CurateConfig(**rules), query=QueryConfig())
    return part, PAIR_VERDICTS.run([part], UPath(tmp_path / "verdicts"), config)


def reasons(verdicts: StageResult) -> list[str | None]:
    table = pq.read_table(verdicts.out / "verdicts.parquet").sort_by("row")
    return table["drop_reason"].to_pylist()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, None),
        ({"url": "data:image/png;base64,AA", "url_norm": None}, "invalid_url"),
        ({"caption": None}, "no_caption"),
        ({"caption": ""}, "no_caption"),
        ({"page_opt_out": "noai"}, "opted_out"),
        ({"chars": 4}, "short_caption"),
        ({"chars": 5}, None),
        ({"chars": 1000}, None),
        ({"chars": 1001}, "long_caption"),
        ({"is_file_name": True}, "file_name_caption"),
        ({"words": 1}, "few_words"),
        ({"words": 2}, None),
        ({"words": 1, "lang": "ja"}, "language"),
        ({"lang": "de"}, "language"),
        ({"lang": None, "lang_score": None}, "language"),
        ({"lang_score": 0.29}, "language"),
        ({"lang_score": 0.31}, None),
    ],
)
def test_each_rule_at_its_boundary(tmp_path: Path, values: dict[str, Any], reason: str | None) -> None:
    _, verdicts = judged(tmp_path, [pair(**values)])
    assert reasons(verdicts) == [reason]
    assert verdicts.counts.rows_in == 1


def test_no_languages_means_all(tmp_path: Path) -> None:
    _, verdicts = judged(
        tmp_path, [pair(lang="de"), pair(lang=None, lang_score=None, caption="?? ?? ??")], languages=()
    )
    assert reasons(verdicts) == [None, None]


def test_a_language_without_spaces_has_no_too_few_words(tmp_path: Path) -> None:
    _, verdicts = judged(tmp_path, [pair(words=1, lang="ja")], languages=("ja",))
    assert reasons(verdicts) == [None]


def test_opt_out_can_be_ignored_where_the_person_may(tmp_path: Path) -> None:
    _, verdicts = judged(tmp_path, [pair(page_opt_out="noai")], obey_opt_out=False)
    assert reasons(verdicts) == [None]


def test_of_a_repeated_pair_the_first_good_one_stays(tmp_path: Path) -> None:
    rows = [pair(page_opt_out="noai"), pair(), pair(), pair()]
    _, verdicts = judged(tmp_path, rows)
    assert reasons(verdicts) == ["opted_out", None, "duplicate_pair", "duplicate_pair"]


@pytest.mark.parametrize(("images", "reason"), [(10, None), (11, "frequent_caption")])
def test_a_caption_on_more_than_ten_images_is_boilerplate(tmp_path: Path, images: int, reason: str | None) -> None:
    rows = [pair(url_norm=f"http://h/{number}.jpg", caption="Title not known") for number in range(images)]
    # The same image again and again does not make a caption frequent.
    rows += [pair(url_norm="http://h/0.jpg", caption="title NOT known")] * 20
    _, verdicts = judged(tmp_path, rows)
    assert set(reasons(verdicts)[:images]) == {reason}


def test_an_image_with_too_many_captions(tmp_path: Path) -> None:
    rows = [pair(caption=f"A caption, number {number}") for number in range(4)]
    _, verdicts = judged(tmp_path, rows, max_captions_per_image=3)
    assert reasons(verdicts) == ["many_captions"] * 4


def test_selection_draws_by_hash_and_grows_with_its_size(tmp_path: Path) -> None:
    rows = [pair(url_norm=f"http://h/{number}.jpg", caption=f"A red circle, number {number}") for number in range(50)]
    part, verdicts = judged(tmp_path, rows)

    def drawn(most: int, seed: int = 0) -> set[str]:
        config = VerdictsConfig(curate=CurateConfig(max_pairs=most, seed=seed), query=QueryConfig())
        result = SELECTED.run([verdicts.out, part], UPath(tmp_path / f"selected-{most}-{seed}"), config)
        assert result.counts.rows_in == 50
        return set(pq.read_table(result.out / "selected.parquet")["pair_id"].to_pylist())

    assert len(drawn(10)) == 10 and drawn(10) < drawn(20) < drawn(0)
    assert drawn(10) != drawn(10, seed=1)


def test_parts_cover_the_selection_once_each(tmp_path: Path) -> None:
    rows = [pair(url_norm=f"http://h/{number}.jpg", caption=f"A red circle, number {number}") for number in range(7)]
    part, verdicts = judged(tmp_path, rows)
    config = VerdictsConfig(curate=CurateConfig(), query=QueryConfig())
    selected = SELECTED.run([verdicts.out, part], UPath(tmp_path / "selected"), config)
    parts = [
        SELECTED_PART.run([selected.out], UPath(tmp_path / f"part-{n}"), PartConfig(number=n, rows_per_part=3)).out
        for n in range(3)
    ]
    ids = [pq.read_table(folder / "selected.parquet")["pair_id"].to_pylist() for folder in parts]
    assert [len(part_ids) for part_ids in ids] == [3, 3, 1]
    assert (
        functools.reduce(operator.iadd, ids, [])
        == pq.read_table(selected.out / "selected.parquet")["pair_id"].to_pylist()
    )


def test_unreadable_parquet_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_text("no parquet at all, but long enough to look at")
    with pytest.raises(InputError, match=r"bad\.parquet"):
        query_rows("drop_counts", verdicts=tmp_path / "bad.parquet")


def test_no_source_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="url_list"):
        PAIR_VERDICTS.run([], UPath(tmp_path / "v"), VerdictsConfig(curate=CurateConfig(), query=QueryConfig()))
