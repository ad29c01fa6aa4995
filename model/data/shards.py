"""A folder of shards (docs/shards.md), read by sample number: any sample is one read away.

The folder is a local path or anything fsspec opens (`s3://bucket/shards`).
"""

from __future__ import annotations

import hashlib
import os
import threading
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from model.data.cache import CacheError, SampleCache
from model.data.manifest import Manifest, ShardEntry
from model.data.order import Ints
from model.errors import InputError

MAX_OPEN_FILES = 512
PLACES = ("image_offset", "image_size", "text_offset", "text_size")  # columns of an index
CHECKS = ("json_offset", "json_size", "crc32")
REBUILD = "the data set is damaged: run its wit build-dataset command again, or copy the folder again"


class SampleError(InputError):
    """A stored sample cannot be used; the message names tar and key."""


@dataclass(frozen=True)
class Sample:
    """One pair as stored."""

    image: bytes
    caption: str


@dataclass(frozen=True)
class Checked:
    """What tells a whole sample from a damaged one: its third member, and the checksum of the three one after the other."""

    tar_sha256: str
    json_offset: Ints
    json_size: Ints
    crc32: Ints


@dataclass(frozen=True)
class Shard:
    """A tar and where its samples lie in it; the arrays have one entry per sample."""

    file: str
    index: str
    image_offset: Ints
    image_size: Ints
    text_offset: Ints
    text_size: Ints
    checked: Checked | None = None  # where samples are kept in a cache


class Folder:
    """Files of the data set; `read` may be called from many threads."""

    def __init__(self, path: str) -> None:
        self.path = path.rstrip("/")
        self._filesystem: Any = None
        if "://" in path:
            self._filesystem, self.path = fsspec.url_to_fs(self.path)
        self._files: dict[str, int] = {}
        self._lock = threading.Lock()

    @property
    def is_remote(self) -> bool:
        return self._filesystem is not None

    def open(self, name: str) -> Any:
        """A binary file object."""
        if self._filesystem is None:
            return Path(self.path, name).open("rb")
        return self._filesystem.open(f"{self.path}/{name}", "rb")

    def read(self, name: str, start: int, size: int) -> bytes:
        """Bytes [start, start + size) of a file, fewer if it ends before."""
        if self._filesystem is not None:
            data: bytes = self._filesystem.cat_file(f"{self.path}/{name}", start=start, end=start + size)
            return data
        file = self._files.get(name)
        if file is not None:
            return os.pread(file, size, start)
        file = os.open(f"{self.path}/{name}", os.O_RDONLY)
        with self._lock:
            if name not in self._files and len(self._files) < MAX_OPEN_FILES:
                self._files[name] = file
                return os.pread(file, size, start)
        try:
            return os.pread(file, size, start)
        finally:
            os.close(file)

    def close(self) -> None:
        with self._lock:
            for file in self._files.values():
                os.close(file)
            self._files.clear()


class Samples(Protocol):
    """What a loader reads from: the samples of a split, or of several, numbered from 0."""

    def __len__(self) -> int: ...

    def read(self, sample_id: int) -> Sample: ...

    def where(self, sample_id: int) -> str: ...

    def captions(self) -> Iterator[str]: ...


class Split:
    """The samples of one split, numbered from 0 in the order of the tars."""

    def __init__(self, folder: Folder, name: str, shards: Sequence[Shard], cache: SampleCache | None = None) -> None:
        self.folder = folder
        self.name = name
        self.shards = shards
        self.cache = cache
        self._starts = [0, *accumulate(len(shard.image_offset) for shard in shards)]

    def __len__(self) -> int:
        return self._starts[-1]

    def read(self, sample_id: int) -> Sample:
        """One sample, in one read. Raises SampleError naming tar and key if it is not there."""
        shard, row = self._find(sample_id)
        image_start, image_size = int(shard.image_offset[row]), int(shard.image_size[row])
        text_start, text_size = int(shard.text_offset[row]), int(shard.text_size[row])
        start, end = min(image_start, text_start), max(image_start + image_size, text_start + text_size)
        try:
            if self.cache is not None and shard.checked is not None:
                start, data = self._read_cached(self.cache, shard, shard.checked, row)
            else:
                data = self.folder.read(shard.file, start, end - start)
        except CacheError as error:
            raise SampleError(str(error)) from error
        except OSError as error:
            raise SampleError(f"{self.where(sample_id)}: cannot be read ({error}); {REBUILD}") from error
        if len(data) < end - start:
            raise SampleError(f"{self.where(sample_id)}: the tar ends before it, or is damaged; {REBUILD}")
        text = data[text_start - start : text_start - start + text_size]
        try:
            caption = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise SampleError(f"{self.where(sample_id)}: the caption is not UTF-8 ({error}); {REBUILD}") from error
        if not caption.strip():
            raise SampleError(f"{self.where(sample_id)}: the caption is empty; {REBUILD}")
        return Sample(data[image_start - start : image_start - start + image_size], caption)

    def _read_cached(self, cache: SampleCache, shard: Shard, checked: Checked, row: int) -> tuple[int, bytes]:
        """Where a sample begins in the tar, and its bytes; none if they are not those that the index promises."""
        offsets = [int(column[row]) for column in (shard.image_offset, shard.text_offset, checked.json_offset)]
        sizes = [int(column[row]) for column in (shard.image_size, shard.text_size, checked.json_size)]
        start, end = min(offsets), max(offset + size for offset, size in zip(offsets, sizes, strict=True))

        def is_whole(data: bytes) -> bool:
            crc32 = 0
            for offset, size in zip(offsets, sizes, strict=True):
                crc32 = zlib.crc32(memoryview(data)[offset - start : offset - start + size], crc32)
            return len(data) == end - start and crc32 == int(checked.crc32[row])

        def fetch() -> bytes:
            return self.folder.read(shard.file, start, end - start)

        data = cache.read(checked.tar_sha256, start, end - start, is_whole, fetch)
        return start, data if is_whole(data) else b""

    def _find(self, sample_id: int) -> tuple[Shard, int]:
        number = bisect_right(self._starts, sample_id) - 1
        return self.shards[number], sample_id - self._starts[number]

    def where(self, sample_id: int) -> str:
        """Tar and key of a sample, for messages."""
        shard, row = self._find(sample_id)
        entry = ShardEntry(file=shard.file, index=shard.index, samples=len(shard.image_offset))
        try:
            key = read_index(self.folder, entry, ["key"])["key"][row]  # not the number, once samples were taken down
        except InputError:  # where the tar cannot be read, its index is often gone too
            key = f"in row {row} of its index"
        return f"{self.folder.path}/{shard.file}: sample {key}"

    def captions(self) -> Iterator[str]:
        """All captions in order."""
        return read_captions(self.folder, self.name)


@dataclass(frozen=True)
class Dataset:
    """What `manifest.json` promises."""

    name: str
    digest: str
    train: Samples
    val: Samples


def open_dataset(path: str, cache: SampleCache | None = None) -> Dataset:
    """Read the manifest and the indexes of a folder of shards; samples of a remote one are kept in the cache, if there is one.

    Raises InputError if it is not one, or if its parts do not fit together.
    """
    folder = Folder(path)
    manifest, _ = read_manifest(folder)
    near = cache if folder.is_remote else None
    splits = {name: _open_split(folder, name, manifest, near) for name in ("train", "val")}
    return Dataset(manifest.name, manifest.digest, splits["train"], splits["val"])


def read_manifest(folder: Folder) -> tuple[Manifest, str]:
    """The manifest, and the sha256 of its bytes. Raises InputError."""
    path = f"{folder.path}/manifest.json"
    try:
        with folder.open("manifest.json") as file:
            content = file.read()
        return Manifest.model_validate_json(content), hashlib.sha256(content).hexdigest()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path}: no such file; is this a folder of shards (docs/shards.md)?") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors())
        raise InputError(f"{path}: not a manifest of format_version 1 ({problems}); {REBUILD}") from error


def read_index(folder: Folder, shard: ShardEntry, columns: Sequence[str]) -> pa.Table:
    """These columns of a shard's index, one row per sample. Raises InputError if they are not there."""
    with _parquet(folder, shard.index, columns) as file:
        table = file.read(columns=list(columns), use_threads=False)
    if table.num_rows != shard.samples:
        raise InputError(
            f"{folder.path}/{shard.index}: {table.num_rows} rows, the manifest says {shard.samples}; {REBUILD}"
        )
    return table


def read_captions(folder: Folder, split: str) -> Iterator[str]:
    """All captions of a split in order, from its `samples.parquet`, in constant memory. Raises InputError."""
    with _parquet(folder, f"{split}/samples.parquet", ["caption"]) as file:
        for batch in file.iter_batches(columns=["caption"], use_threads=False):
            yield from batch.column(0).to_pylist()


def _open_split(folder: Folder, name: str, manifest: Manifest, cache: SampleCache | None) -> Split:
    is_cached = cache is not None
    split = Split(folder, name, [_open_shard(folder, shard, is_cached) for shard in manifest.shards(name)], cache)
    if len(split) != manifest.samples(name):
        raise InputError(
            f"{folder.path}/manifest.json: {name} has {manifest.samples(name)} samples, its shards {len(split)}; {REBUILD}"
        )
    return split


def _open_shard(folder: Folder, shard: ShardEntry, is_cached: bool) -> Shard:
    if is_cached and not shard.sha256:
        raise InputError(
            f"{folder.path}/manifest.json: no sha256 of {shard.file}, by which data.cache_folder knows it; {REBUILD}"
        )
    table = read_index(folder, shard, [*PLACES, *CHECKS] if is_cached else PLACES)
    places, checks = (
        {name: _numbers(folder, shard, table, name) for name in names}
        for names in (PLACES, CHECKS if is_cached else ())
    )
    return Shard(shard.file, shard.index, **places, checked=Checked(shard.sha256, **checks) if is_cached else None)


def _numbers(folder: Folder, shard: ShardEntry, table: pa.Table, name: str) -> Ints:
    """A column of an index. Raises InputError if a row has no whole number there."""
    column = table[name]
    if not pa.types.is_integer(column.type) or column.null_count:
        raise InputError(f"{folder.path}/{shard.index}: not every row has a whole number in {name}; {REBUILD}")
    # Not by Arrow's to_numpy, which imports pandas: 0.4 s and 57 MB of each rank.
    return np.asarray(np.from_dlpack(column.combine_chunks()), dtype=np.int64)


@contextmanager
def _parquet(folder: Folder, name: str, columns: Sequence[str]) -> Iterator[pq.ParquetFile]:
    """A Parquet file that has these columns; InputError, also while it is read, if it is not one.

    To be read without Arrow's threads, which also read ahead: one of them may let go of the Python file while the interpreter
    ends, and then aborts the process (pyarrow 26; a rank that ends well would count as crashed).
    """
    path = f"{folder.path}/{name}"
    try:
        with folder.open(name) as opened:
            file = pq.ParquetFile(opened, pre_buffer=False)
            missing = [column for column in columns if column not in file.schema_arrow.names]
            if missing:
                raise InputError(f"{path}: no column {', '.join(missing)} (docs/shards.md); {REBUILD}")
            yield file
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path}: no such file, but manifest.json names it; {REBUILD}") from error
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not readable Parquet ({error}); {REBUILD}") from error
