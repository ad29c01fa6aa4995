"""The source `visual_genome`: every region's phrase and its image, a pair (Krishna et al. 2017, arXiv 1602.07332)."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from upath import UPath

from pipeline.errors import InputError
from pipeline.settings import Settings
from pipeline.sources.config import VisualGenomeConfig
from pipeline.sources.files import open_stream, sha256_file
from pipeline.sources.text_rows import TextRows
from pipeline.stage import Counts, Stage

FIELD = "source.visual_genome"
TEXT_KEY = "region"
CHUNK_BYTES = 1 << 20
MAX_ITEM_CHARS = 64 << 20  # an image's regions are some 10 kB

_SPACE = " \t\r\n"


class VisualGenomePart(Settings):
    """Both files, which one task reads."""

    image_data: str
    region_descriptions: str
    image_data_sha256: str
    region_descriptions_sha256: str


def plan(config: VisualGenomeConfig) -> list[VisualGenomePart]:
    """The one part. Raises InputError if a file is not named or absent."""
    if not config.image_data or not config.region_descriptions:
        raise InputError(f"{FIELD}: image_data and region_descriptions must both be set")
    return [
        VisualGenomePart(
            image_data=config.image_data,
            region_descriptions=config.region_descriptions,
            image_data_sha256=sha256_file(config.image_data, f"{FIELD}.image_data"),
            region_descriptions_sha256=sha256_file(config.region_descriptions, f"{FIELD}.region_descriptions"),
        )
    ]


def read_visual_genome(sources: Sequence[UPath], out: Path, part: VisualGenomePart) -> Counts:
    """Write `rows.parquet` in the order of the regions (`sources` is empty).

    Both files are lists and are read one image at a time, for the phrases are 5.4 million. A region without phrase is
    dropped as `bad_region`, one of an image that image_data does not list as `unknown_image`; where the regions' file
    breaks off, what came before is kept and `truncated_file` counted.
    """
    urls = _image_urls(part.image_data)
    with TextRows(out, part.region_descriptions, f"visual_genome:{UPath(part.region_descriptions).name}") as rows:
        try:
            for item in _items(part.region_descriptions):
                _add_regions(item, urls, rows)
        except _BrokenError:
            rows.dropped["truncated_file"] += 1
    return rows.counts()


VISUAL_GENOME = Stage("visual_genome", read_visual_genome)


def _image_urls(path: str) -> dict[int, str | None]:
    urls: dict[int, str | None] = {}
    try:
        for image in _items(path):
            # Releases up to 1.0 call it `id`.
            image_id = image.get("image_id", image.get("id")) if isinstance(image, dict) else None
            if isinstance(image_id, int):
                url = image.get("url")
                urls[image_id] = url if isinstance(url, str) else None
    except _BrokenError as error:
        raise InputError(f"{path}: {error}; fetch it again") from error
    if not urls:
        raise InputError(f"{path}: lists no image; name image_data.json of Visual Genome")
    return urls


def _add_regions(item: Any, urls: dict[int, str | None], rows: TextRows) -> None:
    regions = item.get("regions") if isinstance(item, dict) else None
    if not isinstance(regions, list):
        rows.dropped["bad_region"] += 1
        return
    of_item = item.get("image_id", item.get("id"))
    for region in regions:
        phrase = region.get("phrase") if isinstance(region, dict) else None
        image_id = region.get("image_id", region.get("image", of_item)) if isinstance(region, dict) else None
        if not isinstance(phrase, str) or not isinstance(image_id, int):
            rows.dropped["bad_region"] += 1
        elif image_id not in urls:
            rows.dropped["unknown_image"] += 1
        else:
            rows.add(urls[image_id], phrase, TEXT_KEY)


class _BrokenError(ValueError):
    """A JSON list breaks off or goes wrong."""


def _items(path: str) -> Iterator[Any]:
    """The items of a file that is one JSON list, one in memory at a time. Raises _BrokenError where it goes wrong."""
    decoder, utf8 = json.JSONDecoder(), codecs.getincrementaldecoder("utf-8-sig")("replace")
    text, at, is_first, is_end = "", 0, True, False
    with open_stream(path, FIELD) as file:
        while True:
            while at < len(text) and text[at] in _SPACE:
                at += 1
            step = _step(decoder, text, at, is_first)
            # A number that touches the end of what was read may go on, but a list of these is no input of ours.
            if step is None:
                if is_end or len(text) - at > MAX_ITEM_CHARS:
                    raise _BrokenError("is no whole JSON list")
                try:
                    chunk = file.read(CHUNK_BYTES)
                except (OSError, EOFError) as error:  # of the decompressor
                    raise _BrokenError(f"cannot be read on ({error})") from error
                is_end = not chunk
                text, at = text[at:] + utf8.decode(chunk, is_end), 0
                continue
            kind, value, at = step
            if kind == "end":
                return
            is_first = False
            if kind == "item":
                yield value


def _step(decoder: json.JSONDecoder, text: str, at: int, is_first: bool) -> tuple[str, Any, int] | None:
    """(kind, value, place behind it) of what stands at `at`, or None if more text is needed."""
    if at >= len(text):
        return None
    char = text[at]
    if is_first:
        if char != "[":
            raise _BrokenError("is no JSON list")
        return "start", None, at + 1
    if char == "]":
        return "end", None, at + 1
    if char == ",":
        return "comma", None, at + 1
    try:
        value, end = decoder.raw_decode(text, at)
    except json.JSONDecodeError:
        return None
    except RecursionError as error:
        raise _BrokenError("nests too deeply") from error
    return "item", value, end
