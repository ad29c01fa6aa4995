"""Checking a folder of shards against its promise, docs/shards.md: all that its manifest names is read again."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import tarfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import simplejpeg
from pydantic import BaseModel, ConfigDict, ValidationError
from upath import UPath

from pipeline.errors import InputError
from pipeline.parquet import batches, open_parquet, read_parquet
from pipeline.shards import MANIFEST_FILE, SAMPLES_FILE, SPLITS
from pipeline.tars import INDEX_SCHEMA

CHUNK_BYTES = 1 << 20
BATCH_ROWS = 16_384
TOLD_IN_BOTH = ("pair_id", "url", "page_url", "text_key", "sha256", "original_width_px", "original_height_px")
SAMPLES_COLUMNS = ("key", "shard", "caption", "width_px", "height_px", *TOLD_IN_BOTH)
MEMBERS = (("jpg", "image"), ("txt", "text"), ("json", "json"))

Row = dict[str, Any]


class _Promise(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ShardPromise(_Promise):
    """What the manifest says of one shard."""

    file: str
    index: str
    samples: int
    size_bytes: int
    sha256: str


class SplitPromise(_Promise):
    """What the manifest says of one split."""

    samples: int
    shards: tuple[ShardPromise, ...]


class ManifestPromise(_Promise):
    """What the manifest says of the shards."""

    splits: dict[str, SplitPromise]
    digest: str


@dataclass(frozen=True)
class Verified:
    """How much was checked, and how much of it is not as promised."""

    shards: int
    samples: int
    problems: int


def verify(folder: UPath, tell: Callable[[str], None]) -> Verified:
    """Read a folder of shards whole, and `tell` each problem in one line, with the file and the sample.

    A tar is read twice: for its checksum, and sample by sample. Raises InputError if there is no manifest.
    """
    problems = 0
    manifest = None
    for found in _read_manifest(folder):
        if isinstance(found, ManifestPromise):
            manifest = found
        else:
            problems += 1
            tell(found)
    if manifest is None:
        return Verified(0, 0, problems)
    for split, promise in manifest.splits.items():
        for problem in _split_problems(folder, split, promise):
            problems += 1
            tell(problem)
    shards = sum(len(split.shards) for split in manifest.splits.values())
    return Verified(shards, sum(split.samples for split in manifest.splits.values()), problems)


def _read_manifest(folder: UPath) -> Iterator[ManifestPromise | str]:
    """The manifest, if it is one, and what is wrong with it."""
    try:
        data = (folder / MANIFEST_FILE).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{folder}: no {MANIFEST_FILE}, so no shards; build the data set first") from error
    try:
        manifest = ManifestPromise.model_validate_json(data)
    except ValidationError as error:
        yield f"{MANIFEST_FILE}: not as docs/shards.md says: {error.errors()[0]['msg']}"
        return
    digest = hashlib.sha256()
    for split in SPLITS:
        for shard in manifest.splits[split].shards if split in manifest.splits else ():
            digest.update(shard.sha256.encode())
    if digest.hexdigest() != manifest.digest:
        yield f"{MANIFEST_FILE}: its digest is not that of the checksums in it"
    for name, promise in manifest.splits.items():
        if promise.samples != (found := sum(shard.samples for shard in promise.shards)):
            yield f"{MANIFEST_FILE}: {promise.samples} samples in {name}, but {found} in its shards"
    yield manifest


def _split_problems(folder: UPath, split: str, promise: SplitPromise) -> Iterator[str]:
    """The problems of a split, shard by shard in order; several shards are read at a time."""
    unread: list[str] = []
    samples = _sample_rows(folder, split, promise, unread)
    workers = os.cpu_count() or 1
    waiting: deque[Future[list[str]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for shard in promise.shards:
            rows = list(itertools.islice(samples, shard.samples))
            waiting.append(pool.submit(_shard_problems, folder, shard, rows if len(rows) == shard.samples else None))
            if len(waiting) > workers:  # so that not the rows of all shards are in memory
                yield from waiting.popleft().result()
        for future in waiting:
            yield from future.result()
    yield from unread


def _sample_rows(folder: UPath, split: str, promise: SplitPromise, unread: list[str]) -> Iterator[Row]:
    """The rows of samples.parquet in order; what keeps it from being read goes to `unread`."""
    name = f"{split}/{SAMPLES_FILE}"
    try:
        with (folder / name).open("rb") as opened:
            file = open_parquet(opened)
            if missing := [column for column in SAMPLES_COLUMNS if column not in file.schema_arrow.names]:
                unread.append(f"{name}: no column {', '.join(missing)}")
            elif file.metadata.num_rows != promise.samples:
                unread.append(f"{name}: {file.metadata.num_rows} rows, but {promise.samples} samples")
            else:
                for batch in batches(file, BATCH_ROWS, SAMPLES_COLUMNS):
                    yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        unread.append(f"{name}: {_reading(error)}")


def _shard_problems(folder: UPath, shard: ShardPromise, rows: Sequence[Row] | None) -> list[str]:
    """The problems of one shard; `rows` are those of its samples, None if they could not be read."""
    try:
        with (folder / shard.file).open("rb") as tar:
            problems = _tar_problems(tar, shard)
            try:
                index = _read_index(folder, shard)
            except ValueError as error:
                return [*problems, f"{shard.index}: {error}"]
            for number, places in enumerate(index):
                if problem := _sample_problem(tar, places, shard.file, rows[number] if rows is not None else None):
                    problems.append(f"{shard.file} sample {places['key']}: {problem}")
            return problems
    except OSError as error:
        return [f"{shard.file}: {_reading(error)}"]


def _tar_problems(tar: IO[bytes], shard: ShardPromise) -> list[str]:
    digest, size_bytes = hashlib.sha256(), 0
    while chunk := tar.read(CHUNK_BYTES):
        digest.update(chunk)
        size_bytes += len(chunk)
    if size_bytes != shard.size_bytes:
        return [f"{shard.file}: {size_bytes} bytes, but the manifest says {shard.size_bytes}"]
    if digest.hexdigest() != shard.sha256:
        return [f"{shard.file}: its checksum is not that of the manifest"]
    return []


def _read_index(folder: UPath, shard: ShardPromise) -> list[Row]:
    """Raises ValueError if the index cannot be read or has another number of samples."""
    try:
        table = read_parquet(folder / shard.index)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(_reading(error)) from error
    if missing := [column for column in INDEX_SCHEMA.names if column not in table.column_names]:
        raise ValueError(f"no column {', '.join(missing)}")
    if table.num_rows != shard.samples:
        raise ValueError(f"{table.num_rows} rows, but the manifest says {shard.samples} samples")
    return list(table.to_pylist())


def _reading(error: Exception) -> str:
    return "is gone" if isinstance(error, FileNotFoundError) else f"cannot be read ({str(error).splitlines()[0]})"


def _sample_problem(tar: IO[bytes], places: Row, shard: str, row: Row | None) -> str | None:
    """The first thing about a sample that is not as promised."""
    try:
        image, text, extra = (_member(tar, places, ending, name) for ending, name in MEMBERS)
        if zlib.crc32(extra, zlib.crc32(text, zlib.crc32(image))) != places["crc32"]:
            undecodable = _image_problem(image, row)
            raise ValueError(f"its bytes are not those that were packed{f', and {undecodable}' if undecodable else ''}")
        if undecodable := _image_problem(image, row):
            raise ValueError(undecodable)
        told = json.loads(extra)
        if told["captions"][0] != text.decode():
            raise ValueError("its .txt is not the first caption in its .json")
        if row is not None:
            _compare(places, text.decode(), told, shard, row)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        return str(error) if type(error) is ValueError else f"its .txt or .json is not as promised ({error!r})"
    return None


def _member(tar: IO[bytes], places: Row, ending: str, name: str) -> bytes:
    """The data of one member where the index says it is. Raises ValueError if it is not there."""
    offset, size = places[f"{name}_offset"], places[f"{name}_size"]
    tar.seek(offset - tarfile.BLOCKSIZE)
    header = tar.read(tarfile.BLOCKSIZE)
    data = tar.read(size)
    if len(header) < tarfile.BLOCKSIZE or len(data) < size:
        raise ValueError(f"the tar ends before its .{ending} does")
    try:
        member = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    except tarfile.HeaderError as error:
        raise ValueError(f"no member of the tar before byte {offset}, where the index has its .{ending}") from error
    if (member.name, member.size) != (wanted := (f"{places['key']}.{ending}", size)):
        raise ValueError(f"the member before byte {offset} is {(member.name, member.size)}, the index says {wanted}")
    return data


def _image_problem(image: bytes, row: Row | None) -> str | None:
    try:
        height_px, width_px, _ = simplejpeg.decode_jpeg(image, colorspace="RGB").shape
        colour_space = simplejpeg.decode_jpeg_header(image)[2]
    except ValueError as error:
        return f"its image cannot be decoded ({error})"
    if colour_space == "Gray":
        return "its image is grey, not RGB"
    if row is not None and (width_px, height_px) != (row["width_px"], row["height_px"]):
        return f"its image has {width_px}x{height_px} pixels, {SAMPLES_FILE} says {row['width_px']}x{row['height_px']}"
    return None


def _compare(places: Row, text: str, told: Row, shard: str, row: Row) -> None:
    """Raise ValueError if the tar and samples.parquet tell different things of a sample."""
    found = {"key": places["key"], "shard": shard, "caption": text} | {name: told[name] for name in TOLD_IN_BOTH}
    if differing := [name for name, value in found.items() if row[name] != value]:
        raise ValueError(f"{SAMPLES_FILE} has another {', '.join(differing)}")
