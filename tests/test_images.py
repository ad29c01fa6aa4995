"""The verdicts of images: each rule at its boundary, copies, and the images of evaluation sets."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from downloaded_parts import Pair, finished, write_facts, write_part
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from upath import UPath

from pipeline.config import ImageConfig, PresetName
from pipeline.errors import InputError
from pipeline.evaluation_images import EVALUATION_HASHES, HASHES_SCHEMA, EvaluationSetFiles, find_evaluation_sets
from pipeline.images import IMAGE_VERDICTS, ImageVerdictsConfig, image_sources
from pipeline.perceptual import perceptual_hash, read_grey
from pipeline.query import QueryConfig
from pipeline.stage import StageResult

RULES = ImageConfig(min_side_px=64, max_aspect_ratio=3.0, min_bytes=500)


def judge(
    root: Path, parts: Sequence[Sequence[Pair]], rules: ImageConfig = RULES, preset: PresetName = "webimagetext"
) -> StageResult:
    written = [write_part(root, number, pairs) for number, pairs in enumerate(parts)]
    facts = [write_facts(root, number, pairs) for number, pairs in enumerate(parts)]
    hashes = [
        EVALUATION_HASHES.run(found.files, UPath(root / "hashes" / found.name), EvaluationSetFiles.of(found)).out
        for found in find_evaluation_sets(rules.evaluation_sets)
    ]
    sources = image_sources([part for part, _ in written], [download for _, download in written], facts, hashes)
    config = ImageVerdictsConfig(preset=preset, images=rules, query=QueryConfig(threads=1))
    return IMAGE_VERDICTS.run(sources, UPath(root / "image_verdicts"), config)


def rows(result: StageResult) -> list[dict[str, Any]]:
    table: pa.Table = pq.read_table(result.out.path + "/image_verdicts.parquet")
    return [dict(row) for row in table.to_pylist()]


def overlap_counts(result: StageResult) -> dict[str, Any]:
    counts: dict[str, Any] = json.loads((result.out / "overlap.json").read_text())
    return counts


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
        (Pair("0", contrast=2.0, looks=None), None, None),
        (Pair("0", contrast=1.99994), "blank_image", "1.9999"),
        (Pair("0", contrast=0.0, original_size_px=(301, 100)), "aspect_ratio", "3.01"),
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
    assert names == {"image_verdicts.parquet", "overlap.parquet", "overlap.json", "stage.json"}


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
    """By their bytes, whether these can be decoded or not."""
    members = {"0.jpg": b"copied", "0.cls": b"1", "deep/1.PNG": b"also copied", "2.txt": b"not an image"}
    rules = RULES.model_copy(update={"evaluation_sets": (write_evaluation_set(tmp_path / "set", members),)})
    pairs = [Pair("a", original="copied"), Pair("b", original="also copied"), Pair("c", original="not an image")]
    result = judge(tmp_path, [pairs], rules)
    assert [row["drop_reason"] for row in rows(result)] == ["evaluation_copy", "evaluation_copy", None]
    assert [row["decided_by"] for row in rows(result)] == ["set/0.tar/0.jpg", "set/0.tar/deep/1.PNG", None]
    assert overlap_counts(result)["sets"] == {
        "set": {"images": 2, "without_perceptual_hash": 2, "overlapping_images": 0, "removed_images": 2}
    }


@pytest.mark.parametrize(
    ("removed", "reported", "reasons", "distances"),
    [
        (None, None, {"a": "evaluation_copy"}, {"a": 0}),
        (None, 4, {"a": "evaluation_copy"}, {"a": 0, "b": 2, "c": 4}),
        (2, None, {"a": "evaluation_copy", "b": "evaluation_copy"}, {"a": 0, "b": 2}),
        (4, 2, {"a": "evaluation_copy", "b": "evaluation_copy", "c": "evaluation_copy"}, {"a": 0, "b": 2, "c": 4}),
    ],
)
def test_look_alikes_are_removed_and_reported_up_to_their_distances(
    tmp_path: Path, removed: int | None, reported: int | None, reasons: dict[str, str], distances: dict[str, int]
) -> None:
    """What is removed is reported whatever the other distance is; equal bytes need none."""
    buffer = io.BytesIO()
    Image.effect_mandelbrot((64, 64), (-2, -1.5, 1, 1.5), 60).save(buffer, "PNG")
    looks = perceptual_hash(read_grey(buffer.getvalue())) or 0
    tar = write_evaluation_set(tmp_path / "set", {"0.png": buffer.getvalue()})
    given = {"evaluation_sets": (tar,), "evaluation_distance": removed, "evaluation_report_distance": reported}
    near = {"b": looks ^ 0b11, "c": looks ^ 0b1111, "d": looks ^ 0b111111}
    pairs = [Pair("a", original=buffer.getvalue(), looks=looks)]
    pairs += [Pair(name, looks=bits) for name, bits in near.items()]
    result = judge(tmp_path, [pairs], RULES.model_copy(update=given))
    assert {row["pair_id"]: row["drop_reason"] for row in rows(result) if row["drop_reason"]} == reasons
    overlap = pq.read_table(result.out.path + "/overlap.parquet").to_pylist()
    assert {row["pair_id"]: row["distance"] for row in overlap} == distances
    assert [row["is_equal"] for row in overlap] == [row["pair_id"] == "a" for row in overlap]


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


def test_a_folder_without_images_and_a_broken_tar_are_told(tmp_path: Path) -> None:
    (tmp_path / "empty" / "test").mkdir(parents=True)
    sets = [str(tmp_path / "empty"), write_evaluation_set(tmp_path / "full", {"0.jpg": b"x"}), str(tmp_path / "none")]
    with pytest.raises(
        InputError, match=r"^images\.evaluation_sets: neither test/\*\.tar nor images in \S+empty, \S+none; name"
    ):
        find_evaluation_sets(sets)
    assert [found.name for found in find_evaluation_sets(sets[1:2])] == ["full"]
    with pytest.raises(InputError, match="several folders are called full"):
        find_evaluation_sets([sets[1], write_evaluation_set(tmp_path / "other" / "full", {"0.jpg": b"x"})])
    (tmp_path / "empty" / "test" / "0.tar").write_bytes(b"no tar" * 200)
    (broken,) = find_evaluation_sets([str(tmp_path / "empty")])
    with pytest.raises(InputError, match=r"0\.tar: not a whole tar"):
        EVALUATION_HASHES.run(broken.files, UPath(tmp_path / "hashes"), EvaluationSetFiles.of(broken))
    (texts,) = find_evaluation_sets([write_evaluation_set(tmp_path / "texts", {"0.txt": b"x"})])
    with pytest.raises(InputError, match="no image in the tars of texts; fetch it again"):
        EVALUATION_HASHES.run(texts.files, UPath(tmp_path / "hashes"), EvaluationSetFiles.of(texts))


def test_parts_and_downloads_must_match(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 selected parts, but 0 downloads and 1 tables"):
        image_sources([UPath(tmp_path)], [], [UPath(tmp_path)], [])


def test_a_download_that_lost_a_pair_is_an_error(tmp_path: Path) -> None:
    """kept + dropped = input holds against the selected rows, not against what the join found."""
    selected, _ = write_part(tmp_path / "whole", 0, [Pair("a"), Pair("b")])
    _, download = write_part(tmp_path / "less", 0, [Pair("a")])
    facts = write_facts(tmp_path, 0, [Pair("a")])
    with pytest.raises(ValueError, match="2 rows in, but 1 kept"):
        IMAGE_VERDICTS.run(
            image_sources([selected], [download], [facts], []),
            UPath(tmp_path / "image_verdicts"),
            ImageVerdictsConfig(images=RULES, query=QueryConfig()),
        )


LOOKS = {"p": 0, "q": 0b11, "r": 0b1111, "s": 0b111111, "t": -(1 << 63), "u": -(1 << 63) + 1, "v": None, "w": None}
EVALUATION = [("0.tar/0", "q", 0b1111 << 40), ("0.tar/1", "x", 0b1111110), ("0.tar/2", "y", None), ("0.tar/3", "t", 5)]
LOOP_RULES = RULES.model_copy(
    update={
        "evaluation_sets": ("set",),
        "near_duplicate_distance": 2,
        "evaluation_distance": 2,
        "evaluation_report_distance": 4,
    }
)

Verdict = tuple[str | None, str | None, list[str] | None]


def differing_bits(one: int, other: int) -> int:
    return sum((one >> bit) % 2 != (other >> bit) % 2 for bit in range(64))


def plain_rule(pair: Pair) -> tuple[str, str | None] | None:
    short, long = min(pair.original_size_px), max(pair.original_size_px)
    if pair.status != "ok":
        return pair.status, pair.error
    if pair.stored_bytes < RULES.min_bytes:
        return "small_file", str(pair.stored_bytes)
    if short < RULES.min_side_px:
        return "small_image", str(short)
    if long / short > RULES.max_aspect_ratio:
        return "aspect_ratio", str(round(long / short, 4))
    return None


def plain_matches(group: Sequence[Pair], most_bits: int) -> list[tuple[bool, int, str]]:
    """The evaluation images that an image is or looks like, the nearest first."""
    looks = LOOKS[group[0].original]
    found = []
    for name, original, hashed in EVALUATION:
        if original == group[0].original:
            found.append((False, 0, name))
        elif looks is not None and hashed is not None and differing_bits(looks, hashed) <= most_bits:
            found.append((True, differing_bits(looks, hashed), name))
    return sorted(found)


def plain_components(originals: Sequence[str]) -> list[set[str]]:
    """Images that are connected by near ones, found by visiting neighbours until there is none."""
    left, components = list(originals), []
    while left:
        component, visit = set[str](), [left[0]]
        while visit:
            one = visit.pop()
            component.add(one)
            left.remove(one)
            visit += [
                other
                for other in left
                if other not in visit
                and LOOKS[one] is not None
                and LOOKS[other] is not None
                and differing_bits(LOOKS[one] or 0, LOOKS[other] or 0) <= 2
            ]
        components.append(component)
    return components


def plain_verdicts(pairs: Sequence[Pair]) -> tuple[dict[str, Verdict], set[tuple[str, str, int, str | None]]]:
    """The rules again, as loops: verdicts, and the overlap with the evaluation set."""
    verdicts: dict[str, Verdict] = {}
    images: dict[str, list[Pair]] = {}
    for pair in sorted(pairs, key=lambda pair: pair.pair_id):
        if dropped := plain_rule(pair):
            verdicts[pair.pair_id] = (*dropped, None)
        else:
            images.setdefault(pair.original, []).append(pair)
    clean = {}
    for original, group in images.items():
        if copies := plain_matches(group, 2):
            is_near, bits, name = copies[0]
            told = f"set/{name}" + (f", distance {bits}" if is_near else "")
            verdicts.update({pair.pair_id: ("evaluation_copy", told, None) for pair in group})
        else:
            clean[original] = group
    for component in plain_components(list(clean)):
        largest = {
            original: max(pair.original_size_px[0] * pair.original_size_px[1] for pair in clean[original])
            for original in component
        }
        best = min(component, key=lambda original: (-largest[original], clean[original][0].pair_id))
        first, *others = clean[best]
        more = sorted({other.caption for other in others} - {first.caption})
        verdicts[first.pair_id] = (None, None, [first.caption, *more])
        verdicts.update({other.pair_id: ("duplicate_image", first.pair_id, None) for other in others})
        for original in component - {best}:
            verdicts.update({pair.pair_id: ("near_duplicate", first.pair_id, None) for pair in clean[original]})
    overlap = {
        (name, group[0].pair_id, bits, verdicts[group[0].pair_id][0])
        for group in images.values()
        for _, bits, name in plain_matches(group, 4)
    }
    return verdicts, overlap


pairs_strategy = st.lists(
    st.builds(
        lambda original, **values: Pair(original=original, looks=LOOKS[original], **values),
        pair_id=st.text("0123456789abcdef", min_size=4, max_size=4),
        caption=st.sampled_from(["a", "b", "c", "ß"]),
        original=st.sampled_from(sorted(LOOKS)),
        status=st.sampled_from(["ok", "ok", "ok", "ok", "timeout"]),
        original_size_px=st.sampled_from([(64, 64), (63, 64), (192, 64), (193, 64), (100, 64)]),
        stored_bytes=st.sampled_from([500, 500, 500, 499]),
    ),
    min_size=4,
    max_size=24,
    unique_by=lambda pair: pair.pair_id,
)


@given(pairs_strategy, st.integers(1, 3))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_sql_is_the_loop(tmp_path_factory: pytest.TempPathFactory, pairs: list[Pair], parts: int) -> None:
    root = tmp_path_factory.mktemp("loop")
    evaluation = [
        {
            "evaluation_set": "set",
            "evaluation_image": name,
            "sha256": hashlib.sha256(original.encode()).hexdigest(),
            "perceptual_hash": hashed,
        }
        for name, original, hashed in EVALUATION
    ]
    written = [write_part(root, number, pairs[number::parts]) for number in range(parts)]
    facts = [write_facts(root, number, pairs[number::parts]) for number in range(parts)]
    table = pa.Table.from_pylist(evaluation, schema=HASHES_SCHEMA)
    hashes = finished(root / "hashes", {"evaluation_hashes.parquet": table})
    sources = image_sources([part for part, _ in written], [download for _, download in written], facts, [hashes])
    config = ImageVerdictsConfig(images=LOOP_RULES, query=QueryConfig(threads=1))
    result = IMAGE_VERDICTS.run(sources, UPath(root / "image_verdicts"), config)
    verdicts, overlap = plain_verdicts(pairs)
    assert {
        row["pair_id"]: (row["drop_reason"], row["decided_by"], row["captions"]) for row in rows(result)
    } == verdicts
    told = pq.read_table(root / "image_verdicts" / "overlap.parquet").to_pylist()
    assert len(told) == len(overlap) and overlap == {
        (row["evaluation_image"], row["pair_id"], row["distance"], row["drop_reason"]) for row in told
    }
    assert overlap_counts(result)["sets"]["set"] == {
        "images": 4,
        "without_perceptual_hash": 1,
        "overlapping_images": len({image for image, _, _, reason in overlap if reason is None}),
        "removed_images": len({pair_id for _, pair_id, _, reason in overlap if reason == "evaluation_copy"}),
    }


def test_of_a_pair_that_was_tried_again_the_last_result_counts(tmp_path: Path) -> None:
    """Two parts and two later passes, against a dictionary that later passes overwrite."""
    image = b"the same picture"
    first = [
        [Pair("a"), Pair("b", status="timeout", error="1"), Pair("c", status="http_404", error="gone")],
        [Pair("d", status="http_503", error="2"), Pair("e", status="dns", error="3"), Pair("f", original=image)],
    ]
    second = [
        [Pair("b", status="http_429", error="4")],
        [Pair("d", original=image), Pair("e", status="dns", error="5")],
    ]
    third = [[Pair("b")], [Pair("e", status="http_404", error="6")]]
    passes = [first, second, third]
    selected = [write_part(tmp_path / "pass-0", number, pairs)[0] for number, pairs in enumerate(first)]
    downloads, facts = [], []
    for round_, parts in enumerate(passes):
        for number, pairs in enumerate(parts):
            downloads.append(write_part(tmp_path / f"pass-{round_}", number, pairs)[1])
            facts.append(write_facts(tmp_path / f"pass-{round_}", number, pairs))
    config = ImageVerdictsConfig(images=RULES, retry_passes=2, query=QueryConfig(threads=1))
    sources = image_sources(selected, downloads, facts, [])
    result = IMAGE_VERDICTS.run(sources, UPath(tmp_path / "image_verdicts"), config)
    last: dict[str, tuple[Pair, int]] = {}
    for number, pairs in enumerate(pairs for parts in passes for pairs in parts):
        last |= {pair.pair_id: (pair, number) for pair in pairs}
    told = {row["pair_id"]: (row["drop_reason"], row["decided_by"], row["part"]) for row in rows(result)}
    expected = {
        key: (None if pair.status == "ok" else pair.status, pair.error, part) for key, (pair, part) in last.items()
    }
    assert told == expected | {"f": ("duplicate_image", "d", 1)}
    assert result.counts.rows_in == 6 and result.counts.rows_kept == 3
    with pytest.raises(InputError, match="2 selected parts, but 5 downloads"):
        image_sources(selected, downloads[:5], facts[:5], [])
