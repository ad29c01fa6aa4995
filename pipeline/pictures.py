"""Images to look at, for the card: some of the shards, and some that were dropped beside the ones that stand for them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pyarrow.compute as pc
from PIL import Image
from pydantic import Field
from upath import UPath

from pipeline.config import BuildDatasetConfig
from pipeline.download import RESULTS_FILE
from pipeline.images import IMAGE_VERDICTS_FILE
from pipeline.parquet import read_parquet
from pipeline.query import QueryConfig, query_rows
from pipeline.settings import Settings
from pipeline.shards import SAMPLES_FILE
from pipeline.stage import Counts, Stage
from pipeline.tombstones import TAKEN_DOWN_FILE

PICTURES_FILE = "pictures.json"

Row = dict[str, Any]


class PicturesConfig(Settings):
    """How many images are shown, and how large."""

    samples: int = Field(48, ge=0, description="Images of the train split")
    duplicates_per_reason: int = Field(12, ge=0, description="Dropped images of each kind of duplicate")
    side_px: int = Field(200, ge=16, description="Longer side of a thumbnail, in pixels")
    jpeg_quality: int = Field(80, ge=1, le=100, description="JPEG quality of the thumbnails")
    query: QueryConfig = QueryConfig()

    @classmethod
    def of(cls, dataset: BuildDatasetConfig, query: QueryConfig) -> PicturesConfig:
        """What is shown: where faces are blurred, only images of the shards, for in the downloads they are not."""
        return cls(query=query, duplicates_per_reason=0) if dataset.images.face_boxes else cls(query=query)


class Picture(Settings):
    """A thumbnail and what stood beside the image; the words are the web's, and not escaped."""

    file: str
    caption: str
    host: str
    size: str = Field("", description="Of the original, in pixels: 640x480; empty = not told")


class Duplicate(Settings):
    """An image that was dropped, and the one that stays."""

    reason: Literal["near_duplicate", "duplicate_image"]
    kept: Picture
    dropped: Picture


class Pictures(Settings):
    """What `pictures.json` holds."""

    samples: tuple[Picture, ...]
    duplicates: tuple[Duplicate, ...]


def _pictures(sources: Sequence[UPath], out: Path, config: PicturesConfig) -> Counts:
    """`sources` is the folders of SHARDS, IMAGE_VERDICTS and TAKEN_DOWN, then the parts of the downloads that are there."""
    shards, verdicts, taken_down, *downloads = sources
    chosen = query_rows(
        "picture_samples", config.query, samples=shards / "train" / SAMPLES_FILE, count=max(1, config.samples)
    )[: config.samples]
    samples = [
        _picture(out / f"sample-{number:03d}.jpg", _stored(shards, row), row["caption"], row["url"], "", config)
        for number, row in enumerate(chosen)
    ]
    pairs = _duplicates(verdicts, taken_down, downloads, config)
    duplicates = [
        Duplicate(
            reason=row["drop_reason"],
            kept=_of_downloads(out / f"duplicate-{number:03d}-kept.jpg", downloads, row, "kept", config),
            dropped=_of_downloads(out / f"duplicate-{number:03d}-dropped.jpg", downloads, row, "dropped", config),
        )
        for number, row in enumerate(pairs)
    ]
    pictures = Pictures(samples=tuple(samples), duplicates=tuple(duplicates))
    (out / PICTURES_FILE).write_text(pictures.model_dump_json(indent=2), encoding="utf-8")
    shown = len(samples) + len(duplicates)
    return Counts(rows_in=shown, rows_kept=shown)


PICTURES = Stage("pictures", _pictures, sql=("picture_samples", "picture_duplicates"))


def read_pictures(folder: UPath) -> Pictures:
    """What PICTURES wrote."""
    return Pictures.model_validate_json((folder / PICTURES_FILE).read_bytes())


def _duplicates(
    verdicts: UPath, taken_down: UPath, downloads: Sequence[UPath], config: PicturesConfig
) -> Sequence[Mapping[str, Any]]:
    if not downloads or not config.duplicates_per_reason:
        return []
    return query_rows(
        "picture_duplicates",
        config.query,
        verdicts=verdicts / IMAGE_VERDICTS_FILE,
        results=[part / RESULTS_FILE for part in downloads],
        taken_down=taken_down / TAKEN_DOWN_FILE,
        per_reason=config.duplicates_per_reason,
    )


def _stored(shards: UPath, row: Mapping[str, Any]) -> bytes:
    """The image of a sample."""
    index = row["shard"].removesuffix(".tar") + ".index.parquet"
    table = read_parquet(shards / index, ["key", "image_offset", "image_size"])
    (place,) = table.filter(pc.field("key") == row["key"]).to_pylist()
    return _range(shards / row["shard"], place["image_offset"], place["image_size"])


def _of_downloads(
    file: Path, downloads: Sequence[UPath], row: Mapping[str, Any], which: str, config: PicturesConfig
) -> Picture:
    tar = downloads[row[f"{which}_part"]] / row[f"{which}_tar"]
    image = _range(tar, row[f"{which}_image_offset"], row[f"{which}_stored_bytes"])
    return _picture(file, image, row[f"{which}_caption"], row[f"{which}_url"], row[f"{which}_size"], config)


def _range(file: UPath, start: int, size: int) -> bytes:
    data: bytes = file.fs.cat_file(file.path, start=start, end=start + size)
    return data


def _picture(file: Path, image: bytes, caption: str, url: str, size: str, config: PicturesConfig) -> Picture:
    with Image.open(io.BytesIO(image)) as opened:
        thumbnail = opened.convert("RGB")
        thumbnail.thumbnail((config.side_px, config.side_px))
        thumbnail.save(file, "JPEG", quality=config.jpeg_quality)
    return Picture(file=file.name, caption=caption, host=urlsplit(url).hostname or "", size=size)
