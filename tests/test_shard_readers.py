"""The readers of open_clip and webdataset find every sample of the shards once; every kind of source becomes a sample."""

from __future__ import annotations

import functools
import http.server
import io
import json
import threading
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from downloaded_parts import SELECTED_SCHEMA, finished, write_taken_down
from PIL import Image
from test_shards import config_of, judged, pairs_of
from upath import UPath
from webdataset import tariterators

from pipeline.config import BuildDatasetConfig, DownloadConfig, ImageConfig, ShardConfig
from pipeline.download import download_stage
from pipeline.image_facts import IMAGE_FACTS
from pipeline.images import IMAGE_VERDICTS, ImageVerdictsConfig, image_sources
from pipeline.query import QueryConfig
from pipeline.settings import Settings
from pipeline.shards import SHARDS, ShardsConfig
from pipeline.tombstones import add_tombstones, tombstone_files
from pipeline.verify import verify

QUALITY = 70


@pytest.fixture(scope="module", params=["whole", "with an empty shard"])
def shards(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of some sixty samples; an empty one is what a take-down may leave."""
    root = tmp_path_factory.mktemp("readers")
    sources = judged(root, pairs_of(60))
    if request.param == "whole":
        return Path(SHARDS.run(sources, UPath(root / "shards"), config_of()).out.path)
    first = SHARDS.run(sources, UPath(root / "first"), config_of()).out
    rows = pq.read_table(first / "train" / "samples.parquet").to_pylist()
    (root / "ids").write_text("\n".join(row["pair_id"] for row in rows if row["shard"] == "train/000002.tar"))
    table = UPath(root / "tombstones.parquet")
    add_tombstones(tombstone_files({"tombstones": [str(root / "ids")]}), table, QueryConfig())
    selected = [UPath(part) for part in sorted((root / "selected").iterdir())]
    taken_down = write_taken_down(root, sources[0], selected, [table])
    return Path(SHARDS.run([sources[0], taken_down, *sources[2:]], UPath(root / "shards"), config_of()).out.path)


def captions_of(shards: Path, split: str) -> Counter[str]:
    return Counter(pq.read_table(shards / split / "samples.parquet")["caption"].to_pylist())


def pattern_of(shards: Path, split: str) -> str:
    """As a person writes it at open_clip's command line."""
    last = len(list((shards / split).glob("*.tar"))) - 1
    return f"{shards}/{split}/{{000000..{last:06d}}}.tar"


@pytest.mark.parametrize("split", ["train", "val"])
def test_open_clip_counts_every_sample_once(shards: Path, split: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from open_clip_train import data

    # open_clip 3.3.0 asks for webdataset <= 0.2.86, which did not mark the end of a shard yet.
    unmarked = functools.partial(tariterators.tar_file_expander, eof_value=None)
    monkeypatch.setattr(data, "tar_file_expander", unmarked)
    expected = captions_of(shards, split)
    pattern, samples = pattern_of(shards, split), expected.total()
    args = Namespace(
        train_data=pattern,
        val_data=pattern,
        train_num_samples=samples,
        val_num_samples=samples,
        train_data_upsampling_factors=None,
        dataset_resampled=False,
        batch_size=1,
        workers=0,
        world_size=1,
        seed=0,
    )
    read = data.get_wds_dataset(
        args, preprocess_img=np.asarray, is_train=split == "train", tokenizer=lambda text: [text]
    )
    batches = list(read.dataloader)
    assert Counter(caption for _, captions in batches for caption in captions) == expected
    assert all(image.shape[-1] == 3 for images, _ in batches for image in images)


def test_webdataset_counts_every_sample_once_with_two_workers(shards: Path) -> None:
    files = sorted(str(file) for file in (shards / "train").glob("*.tar"))
    dataset = (
        webdataset.WebDataset(files, shardshuffle=len(files), seed=0).decode("rgb8").to_tuple("__key__", "txt", "jpg")
    )
    loader = webdataset.WebLoader(dataset, batch_size=None, num_workers=2)
    read = [(key, text, image.shape[-1]) for key, text, image in loader]
    assert Counter(text for _, text, _ in read) == captions_of(shards, "train")
    assert len({key for key, _, _ in read}) == len(read) and {channels for *_, channels in read} == {3}


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def quadrants(px: int = 96) -> Image.Image:
    """Four plain colours, so that no compression hides which went where."""
    pixels_HWC = np.zeros((px, px, 3), np.uint8)
    half = px // 2
    pixels_HWC[:half, :half], pixels_HWC[:half, half:] = (200, 40, 40), (40, 180, 60)
    pixels_HWC[half:, :half], pixels_HWC[half:, half:] = (50, 60, 210), (230, 220, 120)
    return Image.fromarray(pixels_HWC)


def see_through() -> Image.Image:
    image = quadrants().convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 48, 48))
    return image


PICTURE, GREY = quadrants(), quadrants().convert("L")
ON_WHITE = Image.alpha_composite(Image.new("RGBA", (96, 96), "white"), see_through()).convert("RGB")
SOURCES: dict[str, tuple[bytes, Image.Image]] = {
    "rgb.jpg": (encoded(PICTURE, "JPEG", quality=95), PICTURE),
    "progressive.jpg": (encoded(PICTURE, "JPEG", quality=95, progressive=True), PICTURE),
    "grey.jpg": (encoded(GREY, "JPEG", quality=95), GREY.convert("RGB")),
    "cmyk.jpg": (encoded(PICTURE.convert("CMYK"), "JPEG", quality=95), PICTURE),
    "rgb.png": (encoded(PICTURE, "PNG"), PICTURE),
    "palette.png": (encoded(PICTURE.quantize(16), "PNG"), PICTURE),
    "grey.png": (encoded(GREY, "PNG"), GREY.convert("RGB")),
    "see-through.png": (encoded(see_through(), "PNG"), ON_WHITE),
    "lossy.webp": (encoded(PICTURE, "WEBP", quality=95), PICTURE),
    "lossless.webp": (encoded(PICTURE, "WEBP", lossless=True), PICTURE),
    "see-through.webp": (encoded(see_through(), "WEBP", lossless=True), ON_WHITE),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("site")
    for name, (data, _) in SOURCES.items():
        (folder / name).write_bytes(data)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def packed(site: str, tmp_path_factory: pytest.TempPathFactory) -> UPath:
    """SOURCES as the real download stores them, then packed."""
    root = tmp_path_factory.mktemp("formats")
    columns = {"caption": "a picture", "page_url": site, "text_key": "alt", "source": "x", "host": "127.0.0.1"}
    rows = [
        columns | {"pair_id": f"{number:032x}", "url": site + name, "url_norm": site + name}
        for number, name in enumerate(SOURCES)
    ]
    selected = finished(root / "part-00000", {"selected.parquet": pa.Table.from_pylist(rows, schema=SELECTED_SCHEMA)})
    fetching = DownloadConfig(allow_private_addresses=True, jpeg_quality=QUALITY, threads=4)
    images = ImageConfig(min_bytes=0)
    config = BuildDatasetConfig(name="formats", download=fetching, images=images, shards=ShardConfig(val_share=0.0))
    download = download_stage(root / "cache").run([selected], UPath(root / "download"), fetching).out
    facts = IMAGE_FACTS.run([download], UPath(root / "facts"), Settings()).out
    sources = image_sources([selected], [download], [facts], [])
    rules = ImageVerdictsConfig(images=images, query=QueryConfig())
    verdicts = IMAGE_VERDICTS.run(sources, UPath(root / "image_verdicts"), rules).out
    taken_down = write_taken_down(root, verdicts, [selected])
    return SHARDS.run([verdicts, taken_down, download], UPath(root / "shards"), ShardsConfig(config=config)).out


def test_every_kind_of_source_is_an_rgb_jpeg_of_the_quality_asked_for(packed: UPath) -> None:
    assert verify(packed, print).problems == 0
    asked = Image.open(io.BytesIO(encoded(PICTURE, "JPEG", quality=QUALITY))).quantization
    files = [str(file) for file in (Path(packed.path) / "train").glob("*.tar")]
    stored = {
        extra["url"].rpartition("/")[2]: Image.open(io.BytesIO(image))
        for image, extra in webdataset.WebDataset(files, shardshuffle=False)
        .map_dict(json=json.loads)
        .to_tuple("jpg", "json")
    }
    assert stored.keys() == SOURCES.keys()
    for name, image in stored.items():
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (96, 96)), name
        assert image.quantization == asked, name
        off_HWC = np.abs(np.asarray(image).astype(int) - np.asarray(SOURCES[name][1]).astype(int))
        assert off_HWC.mean() < 6, name
