"""Packing the kept images into WebDataset shards, byte for byte the same each time; docs/shards.md is the contract."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict
from upath import UPath

from pipeline.config import BuildDatasetConfig
from pipeline.croissant import write_croissant
from pipeline.curate import counts_of, rows_of
from pipeline.download import RESULTS_FILE
from pipeline.errors import InputError
from pipeline.face_boxes import BOXES_FILE, Blurring
from pipeline.images import IMAGE_VERDICTS_FILE, OVERLAP_COUNTS_FILE, OVERLAP_FILE
from pipeline.jpeg import size_px
from pipeline.query import QueryConfig, query_rows, query_to_parquet
from pipeline.stage import Counts, FunnelStage, OutputFile, Stage, deciding_settings, input_digest, is_local
from pipeline.tars import ShardWriter
from pipeline.tombstones import TAKEN_DOWN, TAKEN_DOWN_FILE

FORMAT_VERSION = 1
SPLITS = ("train", "val")
MANIFEST_FILE = "manifest.json"
SAMPLES_FILE = "samples.parquet"
PLACED_BOXES_FILE = ".boxes.parquet"  # while the images are packed
ROWS_AT_ONCE = 256  # images in memory, and requests at once to an object store
TOOLS = ("duckdb", "img2dataset", "opencv-python-headless", "pillow", "pyarrow", "simplejpeg")
EXTRA_JSON = json.JSONEncoder(ensure_ascii=False, sort_keys=True)  # made once: json.dumps makes one per call
SAMPLE_FIELDS = (
    "pair_id",
    "url",
    "page_url",
    "text_key",
    "sha256",
    "original_width_px",
    "original_height_px",
    "captions",
)

Row = dict[str, Any]


class ShardsConfig(BaseModel):
    """What the shards and their manifest depend on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: BuildDatasetConfig
    funnel: tuple[FunnelStage, ...] = ()


def _shards(sources: Sequence[UPath], out: Path, settings: ShardsConfig) -> Counts:
    """`sources` is the folder of image verdicts, that of TAKEN_DOWN, then the parts of the downloads in the order that the
    verdicts number, and at last that of FACE_BOXES if the configuration names some."""
    config = settings.config
    verdicts, taken_down, *others = sources
    downloads, boxes = (others[:-1], others[-1:]) if config.images.face_boxes else (others, [])
    packed = out / ".packed.parquet"
    rows = query_to_parquet(
        "shard_order",
        packed,
        config.query,
        verdicts=verdicts / IMAGE_VERDICTS_FILE,
        results=[part / RESULTS_FILE for part in downloads],
        taken_down=taken_down / TAKEN_DOWN_FILE,
        seed=config.shards.seed,
        val_share=config.shards.val_share,
        samples_per_shard=config.shards.samples_per_shard,
    )
    blurring, told = _blurring(packed, boxes, out, config)
    splits = _pack(packed, downloads, out, blurring)
    samples = {split: sum(shard["samples"] for shard in shards) for split, shards in splits.items()}
    if not samples.get("train"):
        raise InputError(f"no image is left for the train split: {_told(settings)}")
    for split in splits:
        query_to_parquet("shard_samples", out / split / SAMPLES_FILE, config.query, packed=packed, split=split)
    for file in (packed, out / PLACED_BOXES_FILE):
        file.unlink(missing_ok=True)
    write_overlap(out / OVERLAP_FILE, verdicts, taken_down, config.query)
    manifest = {
        "format_version": FORMAT_VERSION,
        "name": config.name,
        "config": _without_folders(deciding_settings(config)),
        "funnel": [stage.model_dump(mode="json") for stage in settings.funnel],
        "evaluation_overlap": json.loads((verdicts / OVERLAP_COUNTS_FILE).read_text(encoding="utf-8")),
        "face_boxes": told,
        "parents": {folder.name: input_digest(folder) for folder in (verdicts, *boxes)},
        "tools": {tool: metadata.version(tool) for tool in TOOLS},
    }
    taken = rows - sum(samples.values())
    write_manifest(out, manifest, splits, taken)
    rows_in = counts_of([verdicts / IMAGE_VERDICTS_FILE]).rows_kept
    return Counts(rows_in=rows_in, rows_kept=rows - taken, dropped={TAKEN_DOWN.name: taken} if taken else {})


def _tars(out: Path) -> dict[str, OutputFile]:
    """The tars, as the manifest tells of them."""
    splits = json.loads((out / MANIFEST_FILE).read_bytes())["splits"]
    return {
        shard["file"]: OutputFile(sha256=shard["sha256"], size_bytes=shard["size_bytes"])
        for split in splits.values()
        for shard in split["shards"]
    }


SHARDS = Stage(
    "shards",
    _shards,
    sql=(
        "shard_order",
        "packed_boxes",
        "packed_box_counts",
        "shard_samples",
        "shard_overlap",
        "shard_overlap_counts",
    ),
    version=4,
    known=_tars,
)


def write_overlap(file: Path, verdicts: UPath, taken_down: UPath, query: QueryConfig) -> None:
    """Write what the shards share with the evaluation sets. `verdicts` and `taken_down` are folders of those stages."""
    overlap, gone = verdicts / OVERLAP_FILE, taken_down / TAKEN_DOWN_FILE
    query_to_parquet("shard_overlap", file, query, overlap=overlap, taken_down=gone)


def write_manifest(out: Path, manifest: Row, splits: dict[str, list[Row]], taken_down: int) -> None:
    """Write `manifest.json`: `manifest` with these shards, and how many samples were taken down; from it `croissant.json`.

    `out` has the overlap and the samples.parquet of each split already.
    """
    digest = hashlib.sha256()
    for shard in itertools.chain.from_iterable(splits.get(split, []) for split in SPLITS):
        digest.update(shard["sha256"].encode())
    counts = query_rows("shard_overlap_counts", overlap=out / OVERLAP_FILE)
    overlap = {row["evaluation_set"]: row["overlapping_images"] for row in counts}
    told = manifest["evaluation_overlap"]
    sets = {name: totals | {"overlapping_images": overlap.get(name, 0)} for name, totals in told["sets"].items()}
    whole = manifest | {
        "evaluation_overlap": told | {"sets": sets},
        "splits": {
            split: {"samples": sum(shard["samples"] for shard in shards), "shards": shards}
            for split, shards in splits.items()
        },
        "taken_down": taken_down,
        "digest": digest.hexdigest(),
    }
    text = json.dumps(whole, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    (out / MANIFEST_FILE).write_text(text, encoding="utf-8")
    write_croissant(out, whole, SAMPLES_FILE)


def _blurring(packed: Path, boxes: Sequence[UPath], out: Path, config: BuildDatasetConfig) -> tuple[Blurring, Row]:
    """What is done to the images on their way, and what the manifest says of it: the same after a take-down."""
    if not boxes:
        return Blurring(None, config.download.jpeg_quality), {"boxes": 0, "boxes_without_sample": 0, "samples": 0}
    (folder,) = boxes
    placed = out / PLACED_BOXES_FILE
    query_to_parquet("packed_boxes", placed, config.query, packed=packed, boxes=folder / BOXES_FILE)
    (counts,) = query_rows("packed_box_counts", config.query, placed=placed)
    total = rows_of(folder / BOXES_FILE)
    told = {
        "boxes": total,
        "boxes_without_sample": total - counts["placed_boxes"],
        "samples": counts["samples"],
    }
    return Blurring(placed, config.download.jpeg_quality), told


def _pack(packed: Path, downloads: Sequence[UPath], out: Path, blurring: Blurring) -> dict[str, list[Row]]:
    """Write all tars and their indexes. Returns the manifest's entries of the shards by split."""
    splits: dict[str, list[Row]] = {}
    for (split, file), samples in itertools.groupby(
        _with_images(packed, downloads), key=lambda sample: (sample[0]["split"], sample[0]["file"])
    ):
        splits.setdefault(split, []).append(_write_shard(out, file, samples, blurring))
    return splits


def _with_images(packed: Path, downloads: Sequence[UPath]) -> Iterator[tuple[Row, bytes]]:
    """The rows in order, each with the bytes of its image as downloaded, and that part's folder as `folder`.

    Of a pair that was taken down no image is read. Raises InputError if a tar is not there or ends before an image does.
    """
    roots = [part.path for part in downloads]
    for batch in pq.ParquetFile(packed).iter_batches(ROWS_AT_ONCE):
        rows: list[Row] = [{**row, "folder": downloads[row["part"]]} for row in batch.to_pylist()]
        wanted = [row for row in rows if not row["is_taken_down"]]
        paths = [f"{roots[row['part']]}/{row['tar']}" for row in wanted]
        starts = [row["image_offset"] for row in wanted]
        ends = [row["image_offset"] + row["stored_bytes"] for row in wanted]
        if is_local(downloads[0]):
            images = map(_range, paths, starts, ends)
        else:
            images = iter(downloads[0].fs.cat_ranges(paths, starts, ends, on_error="return"))
        for row in rows:
            yield row, b"" if row["is_taken_down"] else _whole(row, next(images))


def _range(path: str, start: int, end: int) -> bytes | Exception:
    """Bytes of a local file, fewer if it ends before; the error if it cannot be read."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError as error:
        return error
    try:
        return os.pread(file, end - start, start)
    finally:
        os.close(file)


def _whole(row: Row, image: bytes | Exception) -> bytes:
    if isinstance(image, FileNotFoundError):
        raise _broken(row, "is gone") from image
    if isinstance(image, OSError) and image.errno == errno.EINVAL:
        image = b""  # an object store says so of a range behind the end, where a local file gives nothing
    if isinstance(image, Exception):
        raise image
    if len(image) < row["stored_bytes"]:
        raise _broken(row, f"ends within the image at byte {row['image_offset']}")
    return image


def _write_shard(out: Path, file: str, samples: Iterator[tuple[Row, bytes]], blurring: Blurring) -> Row:
    (out / file).parent.mkdir(exist_ok=True)
    with ShardWriter(out, file) as shard:
        for row, stored in samples:
            if not row["is_taken_down"]:
                shard.add(row["key"], _checked(row, stored, blurring), row["caption"].encode(), _extra(row))
    return shard.entry


def _checked(row: Row, stored: bytes, blurring: Blurring) -> bytes:
    """The image as it is packed. Raises InputError if the bytes are not the JPEG that the download listed."""
    try:
        size = size_px(stored)
        if size == (row["width_px"], row["height_px"]):
            return blurring.of(row["split"], row["key"], stored)
        found = f"an image of {size[0]}x{size[1]} pixels"
    except ValueError as error:
        found = str(error)
    raise _broken(row, f"at byte {row['image_offset']}: expected the JPEG of pair {row['pair_id']}, found {found}")


def _broken(row: Row, problem: str) -> InputError:
    return InputError(f"{row['folder'] / row['tar']} {problem}; delete {row['folder']} and run again")


def _extra(row: Row) -> bytes:
    """What the sample's .json holds."""
    return EXTRA_JSON.encode({field: row[field] for field in SAMPLE_FIELDS}).encode()


def _without_folders(value: Any) -> Any:
    """Settings in which an absolute path is its last name: where a person keeps his files decides nothing."""
    if isinstance(value, dict):
        return {name: _without_folders(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value


def _told(settings: ShardsConfig) -> str:
    """What became of the pairs, and what to do."""
    funnel = "; ".join(
        f"{stage.stage} kept {stage.rows_kept} of {stage.rows_in}"
        + (
            f" (dropped {', '.join(f'{reason} {rows}' for reason, rows in stage.dropped.items())})"
            if stage.dropped
            else ""
        )
        for stage in settings.funnel
    )
    return f"{funnel or 'no pair was kept'}. Loosen the rule that drops most, or lower shards.val_share"
