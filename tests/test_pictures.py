"""The pictures of the card: the right image over each caption, nothing that was taken down, and the web's words escaped."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from downloaded_parts import Pair, write_facts, write_part, write_taken_down
from PIL import Image
from upath import UPath

from pipeline.card_blocks import Gallery
from pipeline.card_gallery import gallery
from pipeline.config import BuildDatasetConfig, ImageConfig, ShardConfig
from pipeline.images import IMAGE_VERDICTS, ImageVerdictsConfig, image_sources
from pipeline.pictures import PICTURES, Picture, Pictures, PicturesConfig, read_pictures
from pipeline.query import QueryConfig
from pipeline.shards import SHARDS, ShardsConfig
from pipeline.tombstones import add_tombstones, tombstone_files

GREYS = {f"{number:x}" * 32: 40 + 15 * number for number in range(14)}
HOSTILE = '"><script>alert(1)</script>'


def picture(grey: int, size_px: tuple[int, int]) -> bytes:
    return bytes(simplejpeg.encode_jpeg(np.full((size_px[1], size_px[0], 3), grey, np.uint8)))


def pair(name: str, looks: int | str = "", original: str = "", side_px: int = 300) -> Pair:
    """Everything about a pair tells its number."""
    return Pair(
        name,
        f"{HOSTILE} {GREYS[name]}",
        picture(GREYS[name], (320, 240)),
        original,
        size_px=(320, 240),
        original_size_px=(side_px, side_px),
        looks=looks,
        host=f"h{GREYS[name]}.example",
    )


NAMES = list(GREYS)
PAIRS = [
    pair(NAMES[0], looks=0b1, side_px=900),
    pair(NAMES[1], looks=0b11),  # near 0, smaller
    pair(NAMES[2], original="same", looks=0xFF << 40),
    pair(NAMES[3], original="same", looks=0xFF << 40),  # the bytes of 2
    *(pair(name) for name in NAMES[4:]),
]


def drawn(root: Path, tombstones: str = "", **config: int) -> tuple[UPath, Pictures]:
    images = ImageConfig(min_bytes=0, min_contrast=0, near_duplicate_distance=2)
    dataset = BuildDatasetConfig(name="made", images=images, shards=ShardConfig(val_share=0.0, samples_per_shard=4))
    parts = [write_part(root, number, PAIRS[number::2]) for number in range(2)]
    selected, downloads = [part for part, _ in parts], [download for _, download in parts]
    facts = [write_facts(root, number, PAIRS[number::2]) for number in range(2)]
    verdicts = IMAGE_VERDICTS.run(
        image_sources(selected, downloads, facts, []),
        UPath(root / "image_verdicts"),
        ImageVerdictsConfig(images=images, query=QueryConfig()),
    ).out
    (root / "list.txt").write_text(tombstones or "http://nobody.example/")
    table = UPath(root / "tombstones.parquet")
    add_tombstones(tombstone_files({"tombstones": [str(root / "list.txt")]}), table, QueryConfig())
    taken_down = write_taken_down(root, verdicts, selected, [table])
    shards = SHARDS.run([verdicts, taken_down, *downloads], UPath(root / "shards"), ShardsConfig(config=dataset)).out
    sources = [shards, verdicts, taken_down, *downloads]
    out = PICTURES.run(sources, UPath(root / "pictures"), PicturesConfig(**config)).out
    return out, read_pictures(out)


def is_shown_right(folder: UPath, shown: Picture) -> bool:
    """Whether thumbnail, caption and host are those of one pair."""
    with Image.open(io.BytesIO((folder / shown.file).read_bytes())) as image:
        grey, size = float(np.asarray(image).mean()), image.size
    number = int(shown.caption.rpartition(" ")[2])
    return abs(grey - number) < 2 and shown.host == f"h{number}.example" and size == (200, 150)


def number_of(name: str) -> str:
    return f"h{GREYS[name]}.example"


def test_every_picture_stands_over_its_own_words(tmp_path: Path) -> None:
    folder, pictures = drawn(tmp_path)
    assert {shown.host for shown in pictures.samples} == {number_of(n) for n in NAMES if n not in (NAMES[1], NAMES[3])}
    near, same = pictures.duplicates
    assert (near.reason, same.reason) == ("near_duplicate", "duplicate_image")
    assert (near.kept.host, near.dropped.host) == (number_of(NAMES[0]), number_of(NAMES[1]))
    assert (near.kept.size, near.dropped.size) == ("900x900", "300x300")
    assert (same.kept.host, same.dropped.host) == (number_of(NAMES[2]), number_of(NAMES[3]))
    everything = [*pictures.samples, near.kept, near.dropped, same.kept, same.dropped]
    assert all(is_shown_right(folder, shown) for shown in everything)


@pytest.mark.parametrize("gone", [0, 1, 3])
def test_what_was_taken_down_is_not_shown(tmp_path: Path, gone: int) -> None:
    _, pictures = drawn(tmp_path, tombstones=NAMES[gone])
    shown = {each.host for each in pictures.samples}
    shown |= {side.host for pair in pictures.duplicates for side in (pair.kept, pair.dropped)}
    assert number_of(NAMES[gone]) not in shown and len(pictures.duplicates) == 1


def test_no_more_than_asked_for(tmp_path: Path) -> None:
    _, pictures = drawn(tmp_path, samples=3, duplicates_per_reason=0)
    assert len(pictures.samples) == 3 and pictures.duplicates == ()


def test_the_sections_hold_the_pictures_themselves(tmp_path: Path) -> None:
    folder, pictures = drawn(tmp_path)
    images, duplicates = gallery(folder)
    (shown,) = images.blocks
    assert isinstance(shown, Gallery) and len(shown.rows) == len(pictures.samples)
    for (thumbnail,), told in zip(shown.rows, pictures.samples, strict=True):
        data = re.fullmatch(r"data:image/jpeg;base64,(.*)", thumbnail.source)
        assert data is not None and base64.b64decode(data[1]) == (folder / told.file).read_bytes()
    assert [len(row) for block in duplicates.blocks if isinstance(block, Gallery) for row in block.rows] == [2, 2]
