"""Faces that a file of boxes tells of: blurred in the shards, nothing else changed, each box counted, whatever was taken down."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import simplejpeg
from downloaded_parts import Pair, write_facts, write_part, write_taken_down
from PIL import Image, ImageFilter
from upath import UPath

from pipeline.config import BuildDatasetConfig, ImageConfig, ShardConfig
from pipeline.errors import InputError
from pipeline.face_boxes import FACE_BOXES, Box, blurred, plan
from pipeline.images import IMAGE_VERDICTS, ImageVerdictsConfig, image_sources
from pipeline.pictures import PicturesConfig
from pipeline.query import QueryConfig
from pipeline.shards import SHARDS, ShardsConfig
from pipeline.takedown import take_down
from pipeline.tombstones import TAKEN_DOWN, TakenDownConfig, add_tombstones, tombstone_files
from pipeline.verify import verify

WIDTH_PX, HEIGHT_PX = 120, 80
QUERY = QueryConfig(threads=1)


def picture(seed: int) -> bytes:
    """Fine grey stripes with noise, which a blur leaves nothing of, and another encoding almost all."""
    noise_HWC = np.random.default_rng(seed).integers(0, 120, (HEIGHT_PX, WIDTH_PX, 1)).repeat(3, axis=2)
    noise_HWC[:, ::2] += 120
    return bytes(simplejpeg.encode_jpeg(noise_HWC.astype(np.uint8), quality=95))


PAIRS = [
    Pair(f"{number:032x}", f"caption {number}", picture(number), size_px=(WIDTH_PX, HEIGHT_PX)) for number in range(12)
]
BOXES: list[dict[str, Any]] = [
    {"pair_id": PAIRS[3].pair_id, "left": 0.25, "top": 0.25, "right": 0.5, "bottom": 0.75},
    {"pair_id": PAIRS[3].pair_id.upper(), "left": 0.75, "top": 0.0, "right": 1.0, "bottom": 0.5},
    {"sha256": PAIRS[5].sha256, "left": 0.0, "top": 0.5, "right": 0.5, "bottom": 1.0},
    {"pair_id": PAIRS[7].pair_id, "sha256": PAIRS[5].sha256, "left": 0.1, "top": 0.1, "right": 0.2, "bottom": 0.3},
    {"sha256": "0" * 64, "left": 0.0, "top": 0.0, "right": 1.0, "bottom": 1.0},
]
OF_PAIR = {3: BOXES[:2], 5: BOXES[2:3], 7: BOXES[3:4]}


def shares(box: dict[str, Any]) -> Box:
    return box["left"], box["top"], box["right"], box["bottom"]


class Packing:
    """Verdicts and downloads of PAIRS, to be packed with and without boxes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.boxes = root / "boxes.parquet"
        pq.write_table(pa.Table.from_pylist(BOXES, schema=schema()), self.boxes)
        selected, self.download = write_part(root, 0, PAIRS)
        rules = ImageVerdictsConfig(images=ImageConfig(min_bytes=0), query=QUERY)
        sources = image_sources([selected], [self.download], [write_facts(root, 0, PAIRS)], [])
        self.verdicts = IMAGE_VERDICTS.run(sources, UPath(root / "verdicts"), rules).out
        self.none_gone = write_taken_down(root, self.verdicts, [selected])

    def packed(self, name: str, taken_down: UPath, files: tuple[str, ...]) -> Path:
        images = ImageConfig(min_bytes=0, face_boxes=files)
        config = BuildDatasetConfig(name="faces", images=images, shards=ShardConfig(samples_per_shard=5, val_share=0.2))
        boxes = [FACE_BOXES.run((), UPath(self.root / "face_boxes"), plan(images)).out] if files else []
        out = UPath(self.root / name)
        SHARDS.run([self.verdicts, taken_down, self.download, *boxes], out, ShardsConfig(config=config))
        return Path(out.path)


def schema() -> pa.Schema:
    return pa.schema(
        {"pair_id": pa.string(), "sha256": pa.string()}
        | dict.fromkeys(("left", "top", "right", "bottom"), pa.float64())
    )


@pytest.fixture(scope="module")
def packing(tmp_path_factory: pytest.TempPathFactory) -> Packing:
    return Packing(tmp_path_factory.mktemp("faces"))


@pytest.fixture(scope="module")
def faces(packing: Packing) -> Path:
    return packing.packed("shards", packing.none_gone, (str(packing.boxes),))


def images_of(shards: Path) -> dict[str, bytes]:
    """The packed images by pair_id."""
    images = {}
    for tar in shards.glob("*/*.tar"):
        with tarfile.open(tar) as archive:
            members = {name: archive.extractfile(name).read() for name in archive.getnames()}  # type: ignore[union-attr]
        for name, data in members.items():
            if name.endswith(".json"):
                images[json.loads(data)["pair_id"]] = members[name.replace(".json", ".jpg")]
    return images


def pixels(jpeg: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(int)


def test_what_has_no_box_keeps_its_bytes_and_the_others_all_but_their_boxes(faces: Path) -> None:
    images = images_of(faces)
    assert len(images) == len(PAIRS)
    for number, pair in enumerate(PAIRS):
        stored = images[pair.pair_id]
        assert (stored == pair.image) is (number not in OF_PAIR)
        before_HWC, after_HWC = pixels(pair.image), pixels(stored)
        is_inside_HW = np.zeros((HEIGHT_PX, WIDTH_PX), bool)
        for box in OF_PAIR.get(number, []):
            left, top, right, bottom = shares(box)
            rows = slice(round(top * HEIGHT_PX), round(bottom * HEIGHT_PX))
            columns = slice(round(left * WIDTH_PX), round(right * WIDTH_PX))
            is_inside_HW[rows, columns] = True
            stripes = np.abs(np.diff(before_HWC[rows, columns], axis=1)).mean()
            assert np.abs(np.diff(after_HWC[rows, columns], axis=1)).mean() < stripes / 5
        # A block of 16 pixels of the JPEG that the box touches is encoded with it.
        is_near_HW = np.array(Image.fromarray(is_inside_HW).filter(ImageFilter.MaxFilter(33)))
        changes = np.abs(before_HWC - after_HWC)[~is_near_HW]
        assert changes.size and changes.mean() < 8, "what is farther away is only encoded once more"


def test_a_box_is_what_the_blur_of_the_whole_picture_gives_there() -> None:
    box = (0.25, 0.25, 0.5, 0.75)
    whole = Image.open(io.BytesIO(PAIRS[0].image)).convert("RGB")
    soft = whole.filter(ImageFilter.GaussianBlur(0.25 * 40))
    whole.paste(soft.crop((30, 20, 60, 60)), (30, 20))
    difference_HWC = np.abs(pixels(blurred(PAIRS[0].image, [box], 95)) - np.asarray(whole).astype(int))
    assert difference_HWC[32:48, 32:48].max() <= 4, "in the blocks of the JPEG that lie within the box"


def test_the_bytes_are_the_same_each_time_and_each_box_is_counted(packing: Packing, faces: Path) -> None:
    again = packing.packed("again", packing.none_gone, (str(packing.boxes),))
    assert images_of(again) == images_of(faces)
    problems: list[str] = []
    verify(UPath(faces), problems.append)
    assert problems == []
    manifest = json.loads((faces / "manifest.json").read_text())
    assert manifest["face_boxes"] == {"boxes": 5, "boxes_without_sample": 1, "samples": 3}
    assert set(manifest["parents"]) == {"verdicts", "face_boxes"}
    assert manifest["config"]["images"]["face_boxes"] == ["boxes.parquet"]
    plain = packing.packed("plain", packing.none_gone, ())
    assert images_of(plain) == {pair.pair_id: pair.image for pair in PAIRS}
    told = json.loads((plain / "manifest.json").read_text())
    assert told["face_boxes"] == {"boxes": 0, "boxes_without_sample": 0, "samples": 0}


def test_a_take_down_gives_the_bytes_of_a_build_that_never_had_them(packing: Packing, tmp_path: Path) -> None:
    files = (str(packing.boxes),)
    shards = packing.packed("to-be-cut", packing.none_gone, files)
    (tmp_path / "ids.txt").write_text(PAIRS[3].pair_id)
    table = UPath(tmp_path / "tombstones.parquet")
    add_tombstones(tombstone_files({"tombstones": [str(tmp_path / "ids.txt")]}), table, QUERY)
    sources = [packing.verdicts, UPath(packing.root / "selection"), table]
    gone = TAKEN_DOWN.run(sources, UPath(tmp_path / "taken_down"), TakenDownConfig(query=QUERY)).out
    take_down(UPath(shards), packing.verdicts, gone, QUERY)
    other = packing.packed("other", gone, files)
    for file in other.rglob("*.*"):
        if file.name != "stage.json":
            assert (shards / file.relative_to(other)).read_bytes() == file.read_bytes()


def test_a_csv_says_the_same(packing: Packing, faces: Path, tmp_path: Path) -> None:
    lines = ["pair_id,sha256,left,top,right,bottom"]
    lines += [f"{box.get('pair_id', '')},{box.get('sha256', '')},{','.join(map(str, shares(box)))}" for box in BOXES]
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    assert images_of(packing.packed("of-csv", packing.none_gone, (str(tmp_path / "boxes.csv"),))) == images_of(faces)


def test_an_empty_pair_id_is_none(packing: Packing, faces: Path, tmp_path: Path) -> None:
    empty = [{"pair_id": "", "sha256": ""} | box for box in BOXES]
    pq.write_table(pa.Table.from_pylist(empty, schema=schema()), tmp_path / "boxes.parquet")
    of_empty = packing.packed("of-empty", packing.none_gone, (str(tmp_path / "boxes.parquet"),))
    assert images_of(of_empty) == images_of(faces)


def test_unblurred_images_are_not_shown_on_the_card() -> None:
    blurring = BuildDatasetConfig(name="faces", images=ImageConfig(face_boxes=("boxes.csv",)))
    assert PicturesConfig.of(blurring, QUERY).duplicates_per_reason == 0
    assert PicturesConfig.of(BuildDatasetConfig(name="faces"), QUERY).duplicates_per_reason > 0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("pair_id,left,top,right\na,0,0,1\n", "no column bottom, but 'pair_id', 'left', 'top', 'right'; rename it"),
        ("left,top,right,bottom\n0,0,1,1\n", "no column pair_id or sha256"),
        (
            "pair_id,left,top,right,bottom\na,0,0,1,1\nb,0.5,0,0.5,1\n",
            r"the box \{'pair_id': 'b'.* is no box: 0 <= left",
        ),
        ("pair_id,left,top,right,bottom\na,10,10,50,50\n", "as shares of width and height"),
        ("pair_id,left,top,right,bottom\na,,0,1,1\n", "is no box"),
        ("pair_id,left,top,right,bottom\n,0,0,1,1\n", "has neither pair_id nor sha256"),
        ("pair_id,left,top,right,bottom\na,x,0,1,1\n", r"boxes\.csv"),
    ],
)
def test_a_bad_box_is_named(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "boxes.csv").write_text(text)
    wanted = plan(ImageConfig(face_boxes=(str(tmp_path / "boxes.csv"),)))
    with pytest.raises(InputError, match=problem):
        FACE_BOXES.run((), UPath(tmp_path / "out"), wanted)
