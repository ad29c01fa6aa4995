"""The pictures of the tiny web, shrunk as the download shrinks them: what only their looks tell, against the web's own truth."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from downloaded_parts import Pair, finished, write_part
from PIL import Image
from upath import UPath

from pipeline.config import ImageConfig
from pipeline.evaluation_images import EVALUATION_HASHES, EvaluationSetFiles, find_evaluation_sets
from pipeline.image_facts import IMAGE_FACTS
from pipeline.images import IMAGE_VERDICTS, ImageVerdictsConfig, image_sources
from pipeline.perceptual import distance, perceptual_hash, read_grey
from pipeline.query import QueryConfig
from pipeline.settings import Settings
from pipeline.stage import StageResult
from pipeline.tiny_web.answers import Answers
from pipeline.tiny_web.config import TinyWebConfig
from pipeline.tiny_web.evaluation import EVALUATION_SET, evaluation_scene, evaluation_sets
from pipeline.tiny_web.painting import render, render_jpeg
from pipeline.tiny_web.pairs import ImageFile, plan_pairs
from pipeline.tiny_web.world import World
from pipeline.why import explain

WEB = TinyWebConfig(pairs=300, sites=3, base_port=8_700, evaluation_images=40, evaluation_train_images=0)
LOOKS = ("good", "near_duplicate", "image_copy", "evaluation_copy", "tiny_image", "wide_image")
# Shrunk to 64 pixels, a thing on noise differs from itself in up to 8 bits, as others do; photographs are steadier
# (test_perceptual.py).
NEAR_BITS, COPY_BITS = 6, 4
BLANK = "b" * 32
SMALLER_COPY = "c" * 32


@dataclass(frozen=True)
class Judged:
    pairs: dict[str, Pair]
    scenes: dict[str, str]
    nuisances: dict[str, str]
    verdicts: StageResult

    @property
    def rows(self) -> dict[str, dict[str, str | None]]:
        table = pq.read_table(self.verdicts.out.path + "/image_verdicts.parquet")
        return {row["pair_id"]: row for row in table.to_pylist()}


def shrunk(image: Image.Image) -> bytes:
    """As the recipe `tiny` stores it: short side 64 pixels at most, quality 90."""
    scale = min(1.0, 64 / min(image.size))
    buffer = io.BytesIO()
    image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BOX).save(
        buffer, "JPEG", quality=90
    )
    return buffer.getvalue()


def pair_of(pair_id: str, image: Image.Image, original: str) -> Pair:
    stored = shrunk(image)
    with Image.open(io.BytesIO(stored)) as opened:
        size_px = opened.size
    return Pair(pair_id, image=stored, original=original, size_px=size_px, original_size_px=image.size)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    root = tmp_path_factory.mktemp("looks")
    answers, pairs, scenes, nuisances = Answers(World(WEB)), {}, {}, {}
    for number, planned in enumerate(plan_pairs(WEB)):
        nuisance = planned.nuisance or "good"
        if nuisance not in LOOKS or not isinstance(planned.image, ImageFile) or planned.image.scene is None:
            continue
        body = answers.image_bytes(planned.image)
        pair_id = hashlib.md5(str(number).encode()).hexdigest()
        with Image.open(io.BytesIO(body)) as image:
            pairs[pair_id] = pair_of(pair_id, image, original=hashlib.sha256(body).hexdigest())
        scenes[pair_id], nuisances[pair_id] = planned.image.scene.key, nuisance
    pairs[BLANK] = pair_of(BLANK, Image.new("RGB", (120, 90), (250, 250, 250)), "blank")
    copied = render(WEB.seed, evaluation_scene(WEB.seed, "tiny-web-seen", 31))
    pairs[SMALLER_COPY] = pair_of(SMALLER_COPY, copied.resize((80, round(80 * copied.height / copied.width))), "copy")
    for config in evaluation_sets(WEB):
        EVALUATION_SET.run([], UPath(root / "sets" / config.name), config)
    photos = root / "sets" / "plain" / "album"
    photos.mkdir(parents=True)
    (photos / "blank.png").write_bytes(b"broken")
    kept = next(pair_id for pair_id, nuisance in nuisances.items() if nuisance == "good")
    (photos / "one.jpeg").write_bytes(pairs[kept].image)

    folders = [str(root / "sets" / name) for name in ("tiny-web-unseen", "tiny-web-seen", "plain")]
    hashes = [
        EVALUATION_HASHES.run(found.files, UPath(root / "hashes" / found.name), EvaluationSetFiles.of(found)).out
        for found in find_evaluation_sets(folders)
    ]
    halves = [list(pairs.values())[number::2] for number in range(2)]
    written = [write_part(root, number, half) for number, half in enumerate(halves)]
    facts = [
        IMAGE_FACTS.run([download], UPath(root / "facts" / f"part-{number}"), Settings()).out
        for number, (_, download) in enumerate(written)
    ]
    rules = ImageConfig(
        evaluation_sets=tuple(folders), near_duplicate_distance=NEAR_BITS, evaluation_distance=COPY_BITS
    )
    sources = image_sources([part for part, _ in written], [download for _, download in written], facts, hashes)
    config = ImageVerdictsConfig(images=rules, query=QueryConfig())
    return Judged(pairs, scenes, nuisances, IMAGE_VERDICTS.run(sources, UPath(root / "image_verdicts"), config))


def looks_of(pair: Pair) -> int:
    hashed = perceptual_hash(read_grey(pair.image))
    assert hashed is not None
    return hashed


def bits_from_evaluation(judged: Judged, pair_id: str) -> int:
    name, index = judged.scenes[pair_id].split("/")
    original = perceptual_hash(read_grey(render_jpeg(WEB.seed, evaluation_scene(WEB.seed, name, int(index)))))
    return distance(looks_of(judged.pairs[pair_id]), original or 0)


def test_each_picture_meets_the_fate_that_the_web_had_planned_for_it(judged: Judged) -> None:
    """And no other: evaluation images are found though their bytes are others, and near duplicates, as far as they are near."""
    photo = next(pair_id for pair_id, nuisance in judged.nuisances.items() if nuisance == "good")
    fates = {"tiny_image": "small_image", "wide_image": "aspect_ratio"}
    near, reasons = 0, {pair_id: row["drop_reason"] for pair_id, row in judged.rows.items()}
    assert (reasons.pop(BLANK), reasons.pop(SMALLER_COPY)) == ("blank_image", "evaluation_copy")
    assert reasons.pop(photo) == "evaluation_copy"
    for pair_id, reason in reasons.items():
        nuisance, scene = judged.nuisances[pair_id], judged.scenes[pair_id]
        same = [other for other, shown in judged.scenes.items() if shown == scene and other != pair_id]
        if nuisance in fates:
            assert reason == fates[nuisance]
        elif nuisance == "evaluation_copy":
            assert reason == ("evaluation_copy" if bits_from_evaluation(judged, pair_id) <= COPY_BITS else None)
        elif nuisance == "near_duplicate":
            bits = min(distance(looks_of(judged.pairs[pair_id]), looks_of(judged.pairs[other])) for other in same)
            assert reason == ("near_duplicate" if bits <= NEAR_BITS else None)
            near += bits <= NEAR_BITS
        else:
            copies = [other for other in same if judged.nuisances[other] != "near_duplicate"]
            assert reason in ((None, "duplicate_image") if copies else (None,))
            assert [reasons[other] for other in [pair_id, *copies]].count(None) == 1
    counts = Counter(row["drop_reason"] for row in judged.rows.values() if row["drop_reason"])
    assert judged.verdicts.counts.dropped == counts and counts["near_duplicate"] == near >= 2


def test_a_near_duplicate_names_the_larger_picture_of_its_scene(judged: Judged) -> None:
    for pair_id, row in judged.rows.items():
        if row["drop_reason"] == "near_duplicate":
            kept = row["decided_by"]
            assert kept is not None and judged.rows[kept]["drop_reason"] is None
            assert judged.scenes[kept] == judged.scenes[pair_id]
            assert judged.pairs[kept].original_size_px > judged.pairs[pair_id].original_size_px


def test_the_overlap_is_told_set_by_set(judged: Judged) -> None:
    told = json.loads((judged.verdicts.out / "overlap.json").read_text())
    assert (told["removed_up_to_distance"], told["reported_up_to_distance"]) == (4, 6)
    rows = pq.read_table(judged.verdicts.out.path + "/overlap.parquet").to_pylist()
    copies = {row["pair_id"]: row for row in rows if row["drop_reason"] == "evaluation_copy"}
    assert (copies[SMALLER_COPY]["evaluation_set"], copies[SMALLER_COPY]["evaluation_image"]) == (
        "tiny-web-seen",
        "0.tar/000031.jpg",
    )
    for pair_id, nuisance in judged.nuisances.items():
        if nuisance == "evaluation_copy" and bits_from_evaluation(judged, pair_id) <= COPY_BITS:
            name, index = judged.scenes[pair_id].split("/")
            assert (copies[pair_id]["evaluation_set"], copies[pair_id]["evaluation_image"]) == (
                name,
                f"0.tar/{int(index):06d}.jpg",
            )
    assert len(copies) >= 5  # three of the web's, one smaller copy, one photo of the folder
    assert told["sets"]["plain"]["images"] == 2 and told["sets"]["plain"]["without_perceptual_hash"] == 1
    plain = [row for row in rows if row["evaluation_set"] == "plain"]
    assert [(row["evaluation_image"], row["distance"], row["is_equal"]) for row in plain] == [
        ("album/one.jpeg", 0, False)
    ]
    for name, counts in told["sets"].items():
        own = [row for row in rows if row["evaluation_set"] == name]
        assert counts["removed_images"] == sum(row["drop_reason"] == "evaluation_copy" for row in own)
        assert counts["overlapping_images"] == len(
            {row["evaluation_image"] for row in own if row["drop_reason"] is None}
        )


def test_why_names_the_picture_that_stands_for_another(judged: Judged, tmp_path: Path) -> None:
    pair_id, row = next((name, row) for name, row in judged.rows.items() if row["drop_reason"] == "near_duplicate")
    columns = ("source", "pair_id", "url", "url_norm", "caption_raw", "page_url", "text_key")
    pair = {"part": 0, "row": 0} | dict.fromkeys(columns, "x") | {"pair_id": pair_id}
    verdict = {"part": pa.array([0]), "row": pa.array([0]), "drop_reason": pa.nulls(1, pa.string())}
    lines = explain(
        pair_id,
        pairs=[finished(tmp_path / "pairs", {"pairs.parquet": pa.Table.from_pylist([pair])})],
        verdicts=[
            finished(
                tmp_path / "verdicts", {"verdicts.parquet": pa.table({**verdict, "decided_by": verdict["drop_reason"]})}
            )
        ],
        image_verdicts=judged.verdicts.out,
        shards=UPath(tmp_path / "shards"),
    )
    assert f"  image     dropped: near_duplicate ({row['decided_by']})" in list(lines)
