"""The verdicts of images: each rule at its boundary, copies, and the images of evaluation sets."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from downloaded_parts import Pair, write_part
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from upath import UPath

from pipeline.config import ImageConfig, PresetName
from pipeline.errors import InputError
from pipeline.images import (
    EVALUATION_HASHES,
    HASHES_SCHEMA,
    IMAGE_VERDICTS,
    ImageVerdictsConfig,
    evaluation_tars,
    image_sources,
    require_evaluation_sets,
)
from pipeline.query import QueryConfig, query_to_parquet
from pipeline.settings import Settings
from pipeline.stage import StageResult

RULES = ImageConfig(min_side_px=64, max_aspect_ratio=3.0, min_bytes=500)


def judge(
    root: Path, parts: Sequence[Sequence[Pair]], rules: ImageConfig = RULES, preset: PresetName = "webimagetext"
) -> StageResult:
    written = [write_part(root, number, pairs) for number, pairs in enumerate(parts)]
    hashes = EVALUATION_HASHES.run(evaluation_tars(rules.evaluation_sets), UPath(root / "hashes"), Settings())
    sources = image_sources([part for part, _ in written], [download for _, download in written], hashes.out)
    config = ImageVerdictsConfig(preset=preset, images=rules, query=QueryConfig(threads=1))
    return IMAGE_VERDICTS.run(sources, UPath(root / "image_verdicts"), config)


def rows(result: StageResult) -> list[dict[str, Any]]:
    table: pa.Table = pq.read_table(result.out.path + "/image_verdicts.parquet")
    return [dict(row) for row in table.to_pylist()]


def write_evaluation_set(folder: Path, members: dict[str, bytes]) -> str:
    (folder / "test").mkdir(parents=True)
    with tarfile.open(folder / "test" / "0.tar", "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return str(folder)


@pytest.mark.parametrize(
    ("pair", "reason", "decided_by"),
    [
        (
            Pair("0", status="http_404", error="http_404: the server's answer"),
            "http_404",
            "http_404: the server's answer",
        ),
        (Pair("0", stored_bytes=500), None, None),
        (Pair("0", stored_bytes=499), "small_file", "499"),
        (Pair("0", original_size_px=(64, 192)), None, None),
        (Pair("0", original_size_px=(63, 100)), "small_image", "63"),
        (Pair("0", original_size_px=(100, 63)), "small_image", "63"),
        (Pair("0", original_size_px=(300, 100)), None, None),
        (Pair("0", original_size_px=(301, 100)), "aspect_ratio", "3.01"),
        (Pair("0", original_size_px=(10_000, 30_001)), "aspect_ratio", "3.0001"),
        (Pair("0", stored_bytes=1, original_size_px=(1, 9)), "small_file", "1"),
        (Pair("0", original_size_px=(1, 9)), "small_image", "1"),
    ],
)
def test_each_rule_at_its_boundary(tmp_path: Path, pair: Pair, reason: str | None, decided_by: str | None) -> None:
    result = judge(tmp_path, [[pair]])
    (row,) = rows(result)
    assert (row["drop_reason"], row["decided_by"]) == (reason, decided_by)
    assert result.counts.dropped == ({reason: 1} if reason else {})
    assert row["captions"] == (None if reason else ["a caption"])


PRESET_CASES: dict[PresetName, list[tuple[dict[str, Any], str | None, str | None]]] = {
    "cc12m": [
        ({"original_size_px": (401, 401)}, None, None),
        ({"original_size_px": (400, 800)}, "small_image", "400"),
        ({"original_size_px": (800, 400)}, "small_image", "400"),
        ({"original_size_px": (402, 1_005)}, None, None),  # 2.5
        ({"original_size_px": (402, 1_006)}, "aspect_ratio", "2.5025"),
        ({"original_size_px": (500, 500), "stored_bytes": 1}, None, None),
        ({"original_size_px": (500, 500), "original_format": "png"}, "image_format", "png"),
    ],
    "align": [
        ({"original_size_px": (201, 201)}, None, None),
        ({"original_size_px": (200, 201)}, "small_image", "200"),
        ({"original_size_px": (201, 602)}, None, None),
        ({"original_size_px": (201, 603)}, "aspect_ratio", "3.0"),
        ({"original_size_px": (603, 201)}, "aspect_ratio", "3.0"),
    ],
    "laion400m": [
        ({"original_bytes": 5_000, "stored_bytes": 1, "original_size_px": (1, 9)}, None, None),
        ({"original_bytes": 4_999, "stored_bytes": 9_999}, "small_file", "4999"),
    ],
    "datacomp_basic": [
        ({"original_size_px": (200, 200)}, None, None),
        ({"original_size_px": (199, 200)}, "small_image", "199"),
        ({"original_size_px": (200, 600)}, None, None),
        ({"original_size_px": (200, 601)}, "aspect_ratio", "3.005"),
    ],
    "datacomp_caption": [({"original_size_px": (1, 90), "stored_bytes": 1}, None, None)],
    "obelics_like": [
        ({"original_size_px": (150, 150)}, None, None),
        ({"original_size_px": (149, 150)}, "small_image", "149"),
        ({"original_size_px": (150, 300)}, None, None),
        ({"original_size_px": (150, 301)}, "aspect_ratio", "2.0067"),
        ({"original_size_px": (20_000, 20_000)}, None, None),
        ({"original_size_px": (20_000, 20_001)}, "large_image", "20001"),
        ({"original_format": "png"}, None, None),
        ({"original_format": "webp"}, None, None),
        ({"original_format": "gif"}, "image_format", "gif"),
    ],
    "yfcc15m": [({"original_size_px": (1, 90), "stored_bytes": 1}, None, None)],
}


@pytest.mark.parametrize("preset", [name for name in get_args(PresetName) if name != "webimagetext"])
def test_each_rule_of_a_preset_at_its_boundary(tmp_path: Path, preset: PresetName) -> None:
    """The numbers of ImageConfig are not read; a failed download is no small image."""
    cases = [*PRESET_CASES[preset], ({"status": "timeout", "error": "late"}, "timeout", "late")]
    pairs = [Pair(f"{number:02}", **values) for number, (values, _, _) in enumerate(cases)]
    result = judge(tmp_path, [pairs[::2], pairs[1::2]], ImageConfig(), preset)
    assert [(row["drop_reason"], row["decided_by"]) for row in rows(result)] == [(why, by) for _, why, by in cases]
    reasons = [reason for _, reason, _ in cases if reason]
    assert result.counts.dropped == {reason: reasons.count(reason) for reason in reasons}
    names = {path.name for path in Path(result.out.path).iterdir()}
    assert names == {"image_verdicts.parquet", "stage.json"}


def test_the_smallest_pair_id_stands_for_a_repeated_image(tmp_path: Path) -> None:
    """Across parts; a copy that another rule drops neither stands for the image nor gives its caption."""
    first = [
        Pair("b", "zebra", original="same"),
        Pair("a", "too small", original="same", original_size_px=(200, 10)),
        Pair("x", "alone"),
    ]
    second = [
        Pair("d", "apple", original="same"),
        Pair("c", "zebra", original="same"),
        Pair("e", "Éclair", original="same"),
    ]
    result = judge(tmp_path, [first, second])
    by_id = {row["pair_id"]: row for row in rows(result)}
    assert list(by_id) == ["a", "b", "c", "d", "e", "x"]
    assert {name: (row["drop_reason"], row["decided_by"]) for name, row in by_id.items()} == {
        "a": ("small_image", "10"),
        "b": (None, None),
        "c": ("duplicate_image", "b"),
        "d": ("duplicate_image", "b"),
        "e": ("duplicate_image", "b"),
        "x": (None, None),
    }
    assert by_id["b"]["captions"] == ["zebra", "apple", "Éclair"]
    assert by_id["x"]["captions"] == ["alone"] and by_id["c"]["captions"] is None
    assert [by_id[name]["part"] for name in "abcdex"] == [0, 0, 1, 1, 1, 0]
    assert (result.counts.rows_in, result.counts.rows_kept) == (6, 2)


def test_copies_of_evaluation_images_are_dropped(tmp_path: Path) -> None:
    members = {"0.jpg": b"copied", "0.cls": b"1", "deep/1.PNG": b"also copied", "2.txt": b"not an image"}
    rules = RULES.model_copy(update={"evaluation_sets": (write_evaluation_set(tmp_path / "set", members),)})
    pairs = [Pair("a", original="copied"), Pair("b", original="also copied"), Pair("c", original="not an image")]
    result = judge(tmp_path, [pairs], rules)
    digest = hashlib.sha256(b"copied").hexdigest()
    assert [row["drop_reason"] for row in rows(result)] == ["evaluation_copy", "evaluation_copy", None]
    assert rows(result)[0]["decided_by"] == digest
    hashes = pq.read_table(tmp_path / "hashes" / "evaluation_hashes.parquet").to_pylist()
    assert [(row["tar"], row["member"]) for row in hashes] == [("0.tar", "0.jpg"), ("0.tar", "deep/1.PNG")]


def test_another_evaluation_image_changes_the_fingerprint(tmp_path: Path) -> None:
    pairs = [Pair("a", original="copied")]
    folder = tmp_path / "set"
    rules = RULES.model_copy(update={"evaluation_sets": (write_evaluation_set(folder, {"0.jpg": b"other"}),)})
    assert judge(tmp_path, [pairs], rules).counts.rows_kept == 1
    assert judge(tmp_path, [pairs], rules).was_done
    (folder / "test" / "0.tar").unlink()
    (folder / "test").rmdir()
    write_evaluation_set(folder, {"0.jpg": b"copied"})
    assert judge(tmp_path, [pairs], rules).counts.dropped == {"evaluation_copy": 1}


def test_a_folder_without_tars_and_a_broken_tar_are_told(tmp_path: Path) -> None:
    (tmp_path / "empty" / "test").mkdir(parents=True)
    sets = [str(tmp_path / "empty"), write_evaluation_set(tmp_path / "full", {"0.jpg": b"x"}), str(tmp_path / "none")]
    for ask in (evaluation_tars, require_evaluation_sets):
        with pytest.raises(InputError, match=r"^images\.evaluation_sets: no test/\*\.tar in \S+empty, \S+none; name"):
            ask(sets)
    require_evaluation_sets(sets[1:2])
    (tmp_path / "empty" / "test" / "0.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(InputError, match=r"0\.tar: not a whole tar"):
        EVALUATION_HASHES.run(evaluation_tars([str(tmp_path / "empty")]), UPath(tmp_path / "hashes"), Settings())


def test_parts_and_downloads_must_match(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 selected parts, but 0 downloads"):
        image_sources([UPath(tmp_path)], [], UPath(tmp_path))


def test_a_download_that_lost_a_pair_is_an_error(tmp_path: Path) -> None:
    """kept + dropped = input holds against the selected rows, not against what the join found."""
    selected, _ = write_part(tmp_path / "whole", 0, [Pair("a"), Pair("b")])
    _, download = write_part(tmp_path / "less", 0, [Pair("a")])
    hashes = EVALUATION_HASHES.run([], UPath(tmp_path / "hashes"), Settings()).out
    with pytest.raises(ValueError, match="2 rows in, but 1 kept"):
        IMAGE_VERDICTS.run(
            image_sources([selected], [download], hashes),
            UPath(tmp_path / "image_verdicts"),
            ImageVerdictsConfig(images=RULES, query=QueryConfig()),
        )


def plain_verdicts(pairs: Sequence[Pair], evaluation: set[str]) -> dict[str, tuple[str | None, list[str] | None]]:
    """The rules again, as a loop."""
    verdicts: dict[str, tuple[str | None, list[str] | None]] = {}
    kept: dict[str, list[Pair]] = {}
    for pair in sorted(pairs, key=lambda pair: pair.pair_id):
        short, long = min(pair.original_size_px), max(pair.original_size_px)
        reason = None
        if pair.status != "ok":
            reason = pair.status
        elif pair.stored_bytes < RULES.min_bytes:
            reason = "small_file"
        elif short < RULES.min_side_px:
            reason = "small_image"
        elif long / short > RULES.max_aspect_ratio:
            reason = "aspect_ratio"
        elif pair.sha256 in evaluation:
            reason = "evaluation_copy"
        else:
            kept.setdefault(pair.sha256, []).append(pair)
        verdicts[pair.pair_id] = (reason, None)
    for first, *others in kept.values():
        more = sorted({other.caption for other in others} - {first.caption})
        verdicts[first.pair_id] = (None, [first.caption, *more])
        verdicts.update({other.pair_id: ("duplicate_image", None) for other in others})
    return verdicts


pairs_strategy = st.lists(
    st.builds(
        Pair,
        pair_id=st.text("0123456789abcdef", min_size=4, max_size=4),
        caption=st.sampled_from(["a", "b", "c", "ß"]),
        original=st.sampled_from(["p", "q", "r"]),
        status=st.sampled_from(["ok", "ok", "ok", "timeout"]),
        original_size_px=st.sampled_from([(64, 64), (63, 64), (192, 64), (193, 64)]),
        stored_bytes=st.sampled_from([499, 500]),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda pair: pair.pair_id,
)


@given(pairs_strategy, st.integers(1, 3))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_sql_is_the_loop(tmp_path_factory: pytest.TempPathFactory, pairs: list[Pair], parts: int) -> None:
    root = tmp_path_factory.mktemp("loop")
    written = [write_part(root, number, pairs[number::parts]) for number in range(parts)]
    evaluation = {hashlib.sha256(b"q").hexdigest()}
    pq.write_table(pa.Table.from_pylist([{"sha256": sha} for sha in evaluation], schema=HASHES_SCHEMA), root / "hashes")
    query = QueryConfig(threads=1)
    config = ImageVerdictsConfig(images=RULES, query=query)
    results = [download / "results.parquet" for _, download in written]
    query_to_parquet("post_webimagetext", root / "dropped.parquet", query, results=results, **config.parameters)
    query_to_parquet(
        "image_verdicts",
        root / "verdicts.parquet",
        query,
        selected=[part / "selected.parquet" for part, _ in written],
        results=results,
        dropped=root / "dropped.parquet",
        evaluation_hashes=root / "hashes",
    )
    found = {
        row["pair_id"]: (row["drop_reason"], row["captions"])
        for row in pq.read_table(root / "verdicts.parquet").to_pylist()
    }
    assert found == plain_verdicts(pairs, evaluation)
