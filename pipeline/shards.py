"""Packing the kept images into WebDataset shards, byte for byte the same each time; docs/shards.md is the contract."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict
from upath import UPath

from pipeline.config import BuildDatasetConfig
from pipeline.curate import counts_of
from pipeline.download import RESULTS_FILE
from pipeline.errors import InputError
from pipeline.images import IMAGE_VERDICTS_FILE, OVERLAP_COUNTS_FILE, OVERLAP_FILE
from pipeline.jpeg import as_rgb, size_px
from pipeline.query import query_to_parquet
from pipeline.stage import Counts, FunnelStage, Stage, deciding_settings, input_digest

FORMAT_VERSION = 1
SPLITS = ("train", "val")
MANIFEST_FILE = "manifest.json"
SAMPLES_FILE = "samples.parquet"
ROWS_AT_ONCE = 256  # images in memory, and requests at once to an object store
TOOLS = ("duckdb", "img2dataset", "opencv-python-headless", "pyarrow", "simplejpeg")
INDEX_SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "image_offset": pa.int64(),
        "image_size": pa.int64(),
        "text_offset": pa.int64(),
        "text_size": pa.int64(),
        "json_offset": pa.int64(),
        "json_size": pa.int64(),
        "crc32": pa.int64(),
    }
)
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


class UstarWriter:
    """A ustar file being written: no times, no owners, so that the same members give the same bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def add(self, name: str, data: bytes) -> int:
        """Append a member. Returns where its data starts."""
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self._write(member.tobuf(tarfile.USTAR_FORMAT))
        offset = self.size_bytes
        self._write(data)
        self._pad(tarfile.BLOCKSIZE)
        return offset

    def end(self) -> str:
        """Write the end of the archive. Returns the sha256 of the whole file."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._pad(tarfile.RECORDSIZE)
        return self._digest.hexdigest()

    def _pad(self, multiple: int) -> None:
        self._write(bytes(-self.size_bytes % multiple))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size_bytes += len(data)


def _shards(sources: Sequence[UPath], out: Path, settings: ShardsConfig) -> Counts:
    """`sources` is the folder of image verdicts, then the parts of the downloads in the order that those number."""
    verdicts, *downloads = sources
    config = settings.config
    packed = out / ".packed.parquet"
    rows = query_to_parquet(
        "shard_order",
        packed,
        config.query,
        verdicts=verdicts / IMAGE_VERDICTS_FILE,
        results=[part / RESULTS_FILE for part in downloads],
        seed=config.shards.seed,
        val_share=config.shards.val_share,
        samples_per_shard=config.shards.samples_per_shard,
    )
    splits = _pack(packed, downloads, out, config.download.jpeg_quality)
    if "train" not in splits:
        raise InputError(f"no image is left for the train split: {_told(settings)}")
    for split in splits:
        query_to_parquet("shard_samples", out / split / SAMPLES_FILE, config.query, packed=packed, split=split)
    packed.unlink()
    query_to_parquet("shard_overlap", out / OVERLAP_FILE, config.query, overlap=verdicts / OVERLAP_FILE)
    _write_manifest(out / MANIFEST_FILE, splits, settings, verdicts)
    return Counts(rows_in=counts_of([verdicts / IMAGE_VERDICTS_FILE]).rows_kept, rows_kept=rows)


SHARDS = Stage("shards", _shards, sql=("shard_order", "shard_samples", "shard_overlap"), version=2)


def _pack(packed: Path, downloads: Sequence[UPath], out: Path, quality: int) -> dict[str, list[Row]]:
    """Write all tars and their indexes. Returns the manifest's entries of the shards by split."""
    splits: dict[str, list[Row]] = {}
    for (split, file), samples in itertools.groupby(
        _with_images(packed, downloads), key=lambda sample: (sample[0]["split"], sample[0]["file"])
    ):
        splits.setdefault(split, []).append(_write_shard(out, file, samples, quality))
    return splits


def _with_images(packed: Path, downloads: Sequence[UPath]) -> Iterator[tuple[Row, bytes]]:
    """The rows in order, each with the bytes of its image as downloaded, and that part's folder as `folder`.

    Raises InputError if a tar is not there or ends before an image does.
    """
    for batch in pq.ParquetFile(packed).iter_batches(ROWS_AT_ONCE):
        rows: list[Row] = [{**row, "folder": downloads[row["part"]]} for row in batch.to_pylist()]
        images = downloads[0].fs.cat_ranges(
            [(row["folder"] / row["tar"]).path for row in rows],
            [row["image_offset"] for row in rows],
            [row["image_offset"] + row["stored_bytes"] for row in rows],
            on_error="return",
        )
        for row, image in zip(rows, images, strict=True):
            yield row, _whole(row, image)


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


def _write_shard(out: Path, file: str, samples: Iterator[tuple[Row, bytes]], quality: int) -> Row:
    path = out / file
    path.parent.mkdir(exist_ok=True)
    index: list[Row] = []
    with path.open("wb") as opened:
        tar = UstarWriter(opened)
        for row, stored in samples:
            index.append(_add_sample(tar, row, _checked(row, stored, quality)))
        sha256 = tar.end()
    index_file = file.removesuffix(".tar") + ".index.parquet"
    pq.write_table(pa.Table.from_pylist(index, schema=INDEX_SCHEMA), out / index_file)
    return {
        "file": file,
        "index": index_file,
        "samples": len(index),
        "size_bytes": tar.size_bytes,
        "sha256": sha256,
    }


def _checked(row: Row, stored: bytes, quality: int) -> bytes:
    """The image with three channels. Raises InputError if the bytes are not the JPEG that the download listed."""
    try:
        size = size_px(stored)
        if size == (row["width_px"], row["height_px"]):
            return as_rgb(stored, quality)
        found = f"an image of {size[0]}x{size[1]} pixels"
    except ValueError as error:
        found = str(error)
    raise _broken(row, f"at byte {row['image_offset']}: expected the JPEG of pair {row['pair_id']}, found {found}")


def _broken(row: Row, problem: str) -> InputError:
    return InputError(f"{row['folder'] / row['tar']} {problem}; delete {row['folder']} and run again")


def _add_sample(tar: UstarWriter, row: Row, image: bytes) -> Row:
    key = row["key"]
    text = row["caption"].encode()
    extra = json.dumps({field: row[field] for field in SAMPLE_FIELDS}, ensure_ascii=False, sort_keys=True).encode()
    return {
        "key": key,
        "image_offset": tar.add(f"{key}.jpg", image),
        "image_size": len(image),
        "text_offset": tar.add(f"{key}.txt", text),
        "text_size": len(text),
        "json_offset": tar.add(f"{key}.json", extra),
        "json_size": len(extra),
        "crc32": zlib.crc32(extra, zlib.crc32(text, zlib.crc32(image))),
    }


def _write_manifest(file: Path, splits: dict[str, list[Row]], settings: ShardsConfig, verdicts: UPath) -> None:
    digest = hashlib.sha256()
    for shard in itertools.chain.from_iterable(splits.get(split, []) for split in SPLITS):
        digest.update(shard["sha256"].encode())
    manifest = {
        "format_version": FORMAT_VERSION,
        "name": settings.config.name,
        "config": _without_folders(deciding_settings(settings.config)),
        "funnel": [stage.model_dump(mode="json") for stage in settings.funnel],
        "splits": {
            split: {"samples": sum(shard["samples"] for shard in shards), "shards": shards}
            for split, shards in splits.items()
        },
        "evaluation_overlap": json.loads((verdicts / OVERLAP_COUNTS_FILE).read_text(encoding="utf-8")),
        "parents": {verdicts.name: input_digest(verdicts)},
        "tools": {tool: metadata.version(tool) for tool in TOOLS},
        "digest": digest.hexdigest(),
    }
    file.write_text(json.dumps(manifest, sort_keys=True, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


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
