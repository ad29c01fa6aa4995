"""Boxes of faces that another program found: read, put to the images of the shards, and blurred there.

A box is a row of `images.face_boxes`: `pair_id` or `sha256` (of the image as downloaded), and left, top, right, bottom as shares
of the width and height of the upright picture, 0 to 1. Shares hold for the stored picture too, which is a smaller one.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import simplejpeg
from PIL import Image, ImageFilter
from upath import UPath

from pipeline.config import ImageConfig
from pipeline.errors import InputError
from pipeline.jpeg import as_rgb
from pipeline.parquet import batches, open_parquet
from pipeline.settings import Settings
from pipeline.sources.files import expand, open_seekable, readable, sha256_file
from pipeline.sources.rows import TableWriter
from pipeline.stage import Counts, Stage

FIELD = "images.face_boxes"
BOXES_FILE = "face_boxes.parquet"
BATCH_ROWS = 65_536
KEYS = ("pair_id", "sha256")
SIDES = ("left", "top", "right", "bottom")
BOXES_SCHEMA = pa.schema(dict.fromkeys(KEYS, pa.string()) | dict.fromkeys(SIDES, pa.float64()))
RADIUS_SHARE = 0.25  # of a box's longer side: a face of any size loses its features
MIN_RADIUS_PX = 2.0

Box = tuple[float, float, float, float]


class BoxFile(Settings):
    """One file of boxes; its checksum is what the stage's identity hangs on."""

    path: str
    sha256: str


class FaceBoxesConfig(Settings):
    """The files to read."""

    files: tuple[BoxFile, ...]


def plan(images: ImageConfig) -> FaceBoxesConfig:
    """The files of boxes, each read once for its checksum. Raises InputError if one is absent."""
    paths = dict.fromkeys(path for pattern in images.face_boxes for path in expand(pattern, FIELD))
    return FaceBoxesConfig(files=tuple(BoxFile(path=path, sha256=sha256_file(path, FIELD)) for path in paths))


def _face_boxes(sources: Sequence[UPath], out: Path, config: FaceBoxesConfig) -> Counts:
    """`out` gets all boxes, in the order of the files. There are no sources."""
    rows = 0
    with TableWriter(out / BOXES_FILE, BOXES_SCHEMA) as writer:
        for file in config.files:
            for table in _tables(file.path):
                _check(file.path, table)
                writer.write(table)
                rows += len(table)
    return Counts(rows_in=rows, rows_kept=rows)


FACE_BOXES = Stage("face_boxes", _face_boxes)


def _tables(path: str) -> Iterator[pa.Table]:
    """The rows of a Parquet or CSV file. Raises InputError if a column is not there or not of its kind."""
    with readable(path, FIELD), open_seekable(path, FIELD) as opened:
        if path.lower().endswith(".csv"):
            options = pyarrow.csv.ConvertOptions(column_types=BOXES_SCHEMA, strings_can_be_null=True)
            table = pyarrow.csv.read_csv(io.BytesIO(opened.read()), convert_options=options)
            yield _with_columns(path, table)
            return
        for batch in batches(open_parquet(opened), BATCH_ROWS):
            yield _with_columns(path, pa.Table.from_batches([batch]))


def _with_columns(path: str, table: pa.Table) -> pa.Table:
    names = table.column_names
    absent = [name for name in SIDES if name not in names]
    if absent or not any(key in names for key in KEYS):
        needed = ", ".join(absent) or "pair_id or sha256"
        raise InputError(f"{path}: no column {needed}, but {', '.join(map(repr, names)) or 'no columns'}; rename it")
    columns = [
        table[field.name].cast(field.type) if field.name in names else pa.nulls(len(table), field.type)
        for field in BOXES_SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=BOXES_SCHEMA)


def _check(path: str, table: pa.Table) -> None:
    """Raise InputError at the first row without a key, or that is no box within the picture."""
    sides_NS = np.stack([table[side].to_numpy() for side in SIDES], axis=1) if len(table) else np.zeros((0, len(SIDES)))
    left_N, top_N, right_N, bottom_N = sides_NS.T
    is_box_N = (left_N >= 0) & (top_N >= 0) & (left_N < right_N) & (top_N < bottom_N) & (right_N <= 1) & (bottom_N <= 1)
    has_key_N = np.array([bool(a or b) for a, b in zip(*(table[key].to_pylist() for key in KEYS), strict=True)], bool)
    for is_right_N, problem in (
        (has_key_N, "has neither pair_id nor sha256"),
        (is_box_N, "is no box: 0 <= left < right <= 1 and 0 <= top < bottom <= 1, as shares of width and height"),
    ):
        if not is_right_N.all():
            row = int(np.argmin(is_right_N))
            raise InputError(
                f"{path}: the box {dict(table.slice(row, 1).to_pylist()[0])} {problem}; mend it or leave it out"
            )


class Blurring:
    """What happens to the images on their way into the shards, for one reader that comes in the order of packing.

    `placed` is a file of packed_boxes.sql, None if there are no boxes.
    """

    def __init__(self, placed: Path | None, quality: int) -> None:
        self._quality = quality
        self._rows: Iterator[dict[str, Any]] = iter(()) if placed is None else _rows(placed)
        self._next = next(self._rows, None)

    def of(self, split: str, key: str, jpeg: bytes) -> bytes:
        """The image with three channels, blurred where it has boxes. Raises ValueError if it is no JPEG."""
        boxes: list[Box] = []
        while self._next is not None and (self._next["split"], self._next["key"]) <= (split, key):
            # Before it lie the boxes of samples that were taken down, which nobody asks for.
            if (self._next["split"], self._next["key"]) == (split, key):
                boxes.append((self._next["left"], self._next["top"], self._next["right"], self._next["bottom"]))
            self._next = next(self._rows, None)
        return blurred(jpeg, boxes, self._quality) if boxes else as_rgb(jpeg, self._quality)


def _rows(placed: Path) -> Iterator[dict[str, Any]]:
    return (row for batch in pq.ParquetFile(placed).iter_batches(BATCH_ROWS) for row in batch.to_pylist())


def blurred(jpeg: bytes, boxes: Sequence[Box], quality: int) -> bytes:
    """The picture with its boxes blurred by a Gaussian, encoded anew; the same bytes for the same picture and boxes.

    `boxes` are shares as in BOXES_SCHEMA; a pixel belongs to a box that it is partly in. Around a box as much is taken into
    account as the Gaussian reaches, so the result is that of blurring the whole picture.
    """
    with Image.open(io.BytesIO(jpeg)) as opened:
        picture = opened.convert("RGB")
    for left, top, right, bottom in boxes:
        at = (
            math.floor(left * picture.width),
            math.floor(top * picture.height),
            math.ceil(right * picture.width),
            math.ceil(bottom * picture.height),
        )
        radius_px = max(RADIUS_SHARE * max(at[2] - at[0], at[3] - at[1]), MIN_RADIUS_PX)
        reach = math.ceil(3 * radius_px)
        around = (
            max(at[0] - reach, 0),
            max(at[1] - reach, 0),
            min(at[2] + reach, picture.width),
            min(at[3] + reach, picture.height),
        )
        soft = picture.crop(around).filter(ImageFilter.GaussianBlur(radius_px))
        inside = (at[0] - around[0], at[1] - around[1], at[2] - around[0], at[3] - around[1])
        picture.paste(soft.crop(inside), at)
    pixels_HWC = np.ascontiguousarray(np.asarray(picture))
    return bytes(simplejpeg.encode_jpeg(pixels_HWC, quality=quality, colorspace="RGB", colorsubsampling="420"))
