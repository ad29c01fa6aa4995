"""What is told of the images of a part, against the images themselves."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from downloaded_parts import Pair, write_part
from PIL import Image
from upath import UPath

from pipeline.errors import InputError
from pipeline.image_facts import IMAGE_FACTS
from pipeline.perceptual import perceptual_hash, read_grey
from pipeline.settings import Settings


def jpeg(seed: int, size_px: tuple[int, int]) -> bytes:
    """Coarse patches of grey, or one grey for seed 0."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 6), np.uint8)
    image = Image.fromarray(patches if seed else np.full_like(patches, 90)).resize(size_px)
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


PAIRS = [
    Pair("c", image=jpeg(1, (50, 40)), size_px=(50, 40), original="same"),
    Pair("a", image=jpeg(0, (40, 60)), size_px=(40, 60)),
    Pair("b", status="http_404", error="http_404: gone"),
    Pair("d", image=jpeg(2, (300, 200)), size_px=(300, 200)),
]


@pytest.mark.parametrize("store", ["", "memory://test-image-facts"])
@pytest.mark.parametrize("tar_order", [1, -1])
def test_one_row_per_image(tmp_path: Path, store: str, tar_order: int) -> None:
    _, download = write_part(tmp_path, 0, PAIRS, tar_order)
    if store:
        for file in list(download.iterdir()):
            (UPath(store) / file.name).write_bytes(file.read_bytes())
        download = UPath(store)
    result = IMAGE_FACTS.run([download], UPath(tmp_path / "facts"), Settings())
    rows = pq.read_table(tmp_path / "facts" / "image_facts.parquet").to_pylist()
    images = {pair.pair_id: pair for pair in PAIRS if pair.image}
    assert [row["pair_id"] for row in rows] == ["a", "c", "d"] and result.counts.rows_kept == 3
    for row in rows:
        pair = images[row["pair_id"]]
        with Image.open(io.BytesIO(pair.image)) as image:
            whole_HW = np.asarray(image.convert("L"), np.float64)
        assert (row["width_px"], row["height_px"]) == whole_HW.shape[::-1]
        assert (row["sha256"], row["stored_bytes"]) == (pair.sha256, len(pair.image))
        assert row["perceptual_hash"] == perceptual_hash(read_grey(pair.image))
        assert row["contrast"] == pytest.approx(whole_HW.std(), abs=0.05 * whole_HW.std())
    assert (rows[0]["perceptual_hash"], rows[0]["contrast"], rows[0]["entropy_bits"]) == (None, 0.0, 0.0)
    assert rows[1]["perceptual_hash"] != rows[2]["perceptual_hash"] and rows[1]["entropy_bits"] > 5


def test_a_part_without_images_has_an_empty_table(tmp_path: Path) -> None:
    _, download = write_part(tmp_path, 0, [PAIRS[2]])
    assert IMAGE_FACTS.run([download], UPath(tmp_path / "facts"), Settings()).counts.rows_in == 0
    assert "perceptual_hash" in pq.read_table(tmp_path / "facts" / "image_facts.parquet").column_names


def test_a_damaged_or_missing_tar_says_which_part_to_delete(tmp_path: Path) -> None:
    _, download = write_part(tmp_path, 0, PAIRS)
    tar = download / "00000.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[:700])
    told = r"00000\.tar at byte 512: expected the JPEG of pair a, found .*; delete \S+/part-00000 and run again"
    with pytest.raises(InputError, match=told):
        IMAGE_FACTS.run([download], UPath(tmp_path / "facts"), Settings())
    tar.unlink()
    with pytest.raises(InputError, match=r"00000\.tar is gone; delete \S+/part-00000 and run again"):
        IMAGE_FACTS.run([download], UPath(tmp_path / "facts"), Settings())
