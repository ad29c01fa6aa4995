"""Verdicts of pairs: the rules that look at all of them, and the selection."""

from __future__ import annotations

import functools
import operator
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
import pytest
from made_pairs import judge, made_part, pair
from upath import UPath

from pipeline.config import CurateConfig
from pipeline.errors import InputError
from pipeline.query import QueryConfig, query_rows
from pipeline.repeats import REPEATS, RepeatsConfig, buckets_for
from pipeline.selection import SELECTED, SELECTED_PART, PartConfig, SelectionConfig
from pipeline.stage import StageResult, total

QUERY = QueryConfig(threads=1)


def judged(tmp_path: Path, rows: Sequence[dict[str, Any]], **rules: Any) -> tuple[UPath, StageResult]:
    """The part of pairs and the verdicts on it."""
    part = made_part(tmp_path / "pairs", rows)
    return part, verdicts_of(tmp_path, part, CurateConfig(**rules))


def verdicts_of(tmp_path: Path, part: UPath, curate: CurateConfig) -> StageResult:
    (verdicts,) = judge(tmp_path, [part], curate, QUERY)
    return verdicts


def reasons(verdicts: StageResult) -> list[str | None]:
    table = pq.read_table(verdicts.out / "verdicts.parquet").sort_by("row")
    found: list[str | None] = table["drop_reason"].to_pylist()
    return found


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
        config = SelectionConfig(curate=CurateConfig(max_pairs=most, seed=seed), query=QueryConfig())
        result = SELECTED.run([verdicts.out, part], UPath(tmp_path / f"selected-{most}-{seed}"), config)
        assert result.counts.rows_in == 50
        return set(pq.read_table(result.out / "selected.parquet")["pair_id"].to_pylist())

    assert len(drawn(10)) == 10 and drawn(10) < drawn(20) < drawn(0)
    assert drawn(10) != drawn(10, seed=1)


def test_parts_cover_the_selection_once_each(tmp_path: Path) -> None:
    rows = [pair(url_norm=f"http://h/{number}.jpg", caption=f"A red circle, number {number}") for number in range(7)]
    part, verdicts = judged(tmp_path, rows)
    config = SelectionConfig(curate=CurateConfig(), query=QueryConfig())
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


def plain_verdicts(
    rows: Sequence[dict[str, Any]], max_images: int, max_captions: int
) -> list[tuple[str | None, str | None]]:
    """The global rules again, as a loop over all rows in order; who opted out has fallen to the rules before."""
    good = [row for row in rows if row["page_opt_out"] is None]
    images: dict[str, set[str]] = {}
    captions: dict[str, set[str]] = {}
    for row in good:
        images.setdefault(row["caption_key"], set()).add(row["url_norm"])
        captions.setdefault(row["url_norm"], set()).add(row["caption_key"])
    copies: Counter[tuple[str, str]] = Counter()
    verdicts: list[tuple[str | None, str | None]] = []
    for row in rows:
        if row["page_opt_out"] is not None:
            verdicts.append(("opted_out", row["page_opt_out"]))
            continue
        name = (row["url_norm"], row["caption"])
        copies[name] += 1
        of_caption, of_image = len(images[row["caption_key"]]), len(captions[row["url_norm"]])
        if copies[name] > 1:
            verdicts.append(("duplicate_pair", str(copies[name])))
        elif of_caption > max_images:
            verdicts.append(("frequent_caption", str(of_caption)))
        elif of_image > max_captions:
            verdicts.append(("many_captions", str(of_image)))
        else:
            verdicts.append((None, None))
    return verdicts


@pytest.mark.parametrize(("seed", "buckets"), [(0, 1), (1, 1), (2, 3), (3, 16)])
def test_the_global_pass_is_the_loop(tmp_path: Path, seed: int, buckets: int) -> None:
    """Three parts, full of copies, captions that differ in letter case only, and pages that opt out."""
    random = Random(seed)
    captions = [
        "A red circle",
        "a RED circle",
        "Two blue squares",
        "two blue squares",
        "Ein Haus am See",
        "A dog on grass",
    ]
    rows = [
        pair(
            url_norm=f"http://h/{int(random.paretovariate(1)) % 12}.jpg",
            caption=random.choice(captions),
            page_opt_out=random.choice([None, None, None, "noai"]),
        )
        for _ in range(400)
    ]
    parts = [
        made_part(tmp_path / f"part-{number}", rows[number * 150 : (number + 1) * 150], number) for number in range(3)
    ]
    curate = CurateConfig(max_images_per_caption=9, max_captions_per_image=3)
    verdicts = judge(tmp_path, parts, curate, QUERY, buckets)
    found = [row for part in verdicts for row in pq.read_table(part.out / "verdicts.parquet").to_pylist()]
    assert [(row["drop_reason"], row["decided_by"]) for row in found] == plain_verdicts(rows, 9, 3)
    assert [row["pair_id"] for row in found] == [row["pair_id"] for row in rows]
    assert [(row["part"], row["row"], row["source"]) for row in found] == [
        (number // 150, number % 150, "s") for number in range(400)
    ]
    assert len(set(total(part.counts for part in verdicts).dropped) - {"opted_out"}) == 3, (
        "a rule has no row in the example"
    )


def test_the_numbers_of_a_preset_are_its_own(tmp_path: Path) -> None:
    """ALIGN: a caption on more than 10 images, an image with more than 1000 captions; DataComp has no such rule."""
    rows = [pair(url_norm=f"http://h/{number}.jpg", caption="Title not known yet") for number in range(11)]
    rows += [pair(url_norm="http://h/many.jpg", caption=f"A caption, number {number}") for number in range(1_001)]
    rows += [pair(url_norm="http://h/1000.jpg", caption=f"Another caption, {number}") for number in range(1_000)]
    part = made_part(tmp_path / "pairs", rows)
    align = verdicts_of(tmp_path, part, CurateConfig(preset="align"))
    assert align.counts.dropped == {"frequent_caption": 11, "many_captions": 1_001}
    assert verdicts_of(tmp_path, part, CurateConfig(preset="datacomp_basic")).counts.dropped == {}


def test_the_seed_of_the_selection_judges_nothing_anew(tmp_path: Path) -> None:
    part, _ = judged(tmp_path, [pair()])
    assert verdicts_of(tmp_path, part, CurateConfig(seed=1, max_pairs=7)).was_done
    assert not verdicts_of(tmp_path, part, CurateConfig(languages=("de",))).was_done


def test_buckets_are_as_many_as_keep_their_keys_in_memory() -> None:
    query = QueryConfig(memory_limit_mb=2_000)
    assert [buckets_for(rows, query) for rows in (0, 25_000_000, 25_000_001, 1_000_000_000)] == [1, 1, 2, 40]


def test_no_source_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="url_list"):
        REPEATS.run([], UPath(tmp_path / "repeats"), RepeatsConfig.of(CurateConfig(), QUERY))
