"""The source `coco`: MS-COCO captions, every caption of an image a pair (Chen et al. 2015, arXiv 1504.00325)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from upath import UPath

from pipeline.errors import InputError
from pipeline.settings import Settings
from pipeline.sources.config import CocoConfig, CocoUrlField
from pipeline.sources.files import expand, open_stream, sha256_file
from pipeline.sources.text_rows import TextRows
from pipeline.stage import Counts, Stage

FIELD = "source.coco.paths"
TEXT_KEY = "caption"


class CocoPart(Settings):
    """One file, which one task reads."""

    path: str
    sha256: str
    url_field: CocoUrlField


def plan(config: CocoConfig) -> list[CocoPart]:
    """The parts, one per file, in the order given. Raises InputError if there is none or one is absent."""
    if not config.paths:
        raise InputError(f"{FIELD} is empty; name at least one file captions_*.json")
    paths = [path for pattern in config.paths for path in expand(pattern, FIELD)]
    return [CocoPart(path=path, sha256=sha256_file(path, FIELD), url_field=config.url_field) for path in paths]


def read_coco(sources: Sequence[UPath], out: Path, part: CocoPart) -> Counts:
    """Write `rows.parquet` of one file in the order of its annotations (`sources` is empty).

    The file is one JSON object and is read whole; the largest, captions_train2017.json, is 92 MB. An annotation without
    caption or image is dropped as `bad_annotation`, one whose image the file does not list as `unknown_image`.
    """
    images, annotations = _read(part.path)
    urls = {image["id"]: image.get(part.url_field) for image in images if _has_id(image)}
    with TextRows(out, part.path, f"coco:{UPath(part.path).name}") as rows:
        for annotation in annotations:
            caption = annotation.get("caption") if isinstance(annotation, dict) else None
            image_id = annotation.get("image_id") if isinstance(annotation, dict) else None
            if not isinstance(caption, str) or not isinstance(image_id, int):
                rows.dropped["bad_annotation"] += 1
            elif image_id not in urls:
                rows.dropped["unknown_image"] += 1
            else:
                url = urls[image_id]
                rows.add(url if isinstance(url, str) else None, caption, TEXT_KEY)
    return rows.counts()


COCO = Stage("coco", read_coco)


def _read(path: str) -> tuple[list[Any], list[Any]]:
    with open_stream(path, FIELD) as file:
        try:
            value = orjson.loads(b"".join(iter(functools.partial(file.read, 1 << 24), b"")))
        except (ValueError, EOFError, OSError) as error:
            raise InputError(f"{path}: is no whole JSON file ({error}); fetch it again") from error
    images, annotations = (value.get(name) if isinstance(value, dict) else None for name in ("images", "annotations"))
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise InputError(f"{path}: has no lists `images` and `annotations`; name a file captions_*.json of MS-COCO")
    return images, annotations


def _has_id(image: object) -> bool:
    return isinstance(image, dict) and isinstance(image.get("id"), int)
