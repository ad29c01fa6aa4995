"""A folder of shards (docs/shards.md), read by sample number: any sample is one read away.

The folder is a local path or anything fsspec opens (`s3://bucket/shards`).
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as pq

from model.data.order import Ints

FORMAT_VERSION = 1
MAX_OPEN_FILES = 512
REBUILD = "the data set is damaged, build it again"


class SampleError(ValueError):
    """A stored sample cannot be used; the message names tar and key."""


@dataclass(frozen=True)
class Sample:
    """One pair as stored."""

    image: bytes
    caption: str


@dataclass(frozen=True)
class Shard:
    """A tar and where its samples lie in it; the arrays have one entry per sample."""

    file: str
    image_offset: Ints
    image_size: Ints
    text_offset: Ints
    text_size: Ints


class Folder:
    """Files of the data set; `read` may be called from many threads."""

    def __init__(self, path: str) -> None:
        self.path = path.rstrip("/")
        self._filesystem: Any = None
        if "://" in path:
            self._filesystem, self.path = fsspec.url_to_fs(self.path)
        self._files: dict[str, int] = {}
        self._lock = threading.Lock()

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


class Split:
    """The samples of one split, numbered from 0 in the order of the tars."""

    def __init__(self, folder: Folder, name: str, shards: Sequence[Shard]) -> None:
        self.folder = folder
        self.name = name
        self.shards = shards
        self._starts = np.cumsum([0, *(len(shard.image_offset) for shard in shards)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, sample_id: int) -> Sample:
        """One sample, in one read. Raises SampleError naming tar and key if it is not there."""
        number = int(np.searchsorted(self._starts, sample_id, side="right")) - 1
        shard, row = self.shards[number], sample_id - int(self._starts[number])
        image_start, image_size = int(shard.image_offset[row]), int(shard.image_size[row])
        text_start, text_size = int(shard.text_offset[row]), int(shard.text_size[row])
        start, end = min(image_start, text_start), max(image_start + image_size, text_start + text_size)
        data = self.folder.read(shard.file, start, end - start)
        if len(data) < end - start:
            raise SampleError(f"{self.where(sample_id)}: the tar ends before it; {REBUILD}")
        text = data[text_start - start : text_start - start + text_size]
        try:
            caption = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise SampleError(f"{self.where(sample_id)}: the caption is not UTF-8 ({error}); {REBUILD}") from error
        if not caption.strip():
            raise SampleError(f"{self.where(sample_id)}: the caption is empty; {REBUILD}")
        return Sample(data[image_start - start : image_start - start + image_size], caption)

    def where(self, sample_id: int) -> str:
        """Tar and key of a sample, for messages."""
        number = int(np.searchsorted(self._starts, sample_id, side="right")) - 1
        return f"{self.folder.path}/{self.shards[number].file}: sample {sample_id:09d}"

    def captions(self) -> Iterator[str]:
        """All captions in order, from `samples.parquet`, in constant memory."""
        name = f"{self.name}/samples.parquet"
        with _opened(self.folder, name) as file:
            for batch in pq.ParquetFile(file).iter_batches(columns=["caption"]):
                yield from batch.column(0).to_pylist()


@dataclass(frozen=True)
class Dataset:
    """What `manifest.json` promises."""

    name: str
    digest: str
    train: Split
    val: Split


def open_dataset(path: str) -> Dataset:
    """Read the manifest and the indexes of a folder of shards.

    Raises FileNotFoundError if it is not one, ValueError if its parts do not fit together.
    """
    folder = Folder(path)
    with _opened(folder, "manifest.json") as file:
        manifest = json.load(file)
    if manifest.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path}/manifest.json: format_version {manifest.get('format_version')}, expected {FORMAT_VERSION}"
        )
    splits = {name: _open_split(folder, name, manifest["splits"].get(name)) for name in ("train", "val")}
    return Dataset(manifest["name"], manifest["digest"], splits["train"], splits["val"])


def _open_split(folder: Folder, name: str, entry: dict[str, Any] | None) -> Split:
    shards = [_open_shard(folder, shard) for shard in entry["shards"]] if entry else []
    split = Split(folder, name, shards)
    if entry and len(split) != entry["samples"]:
        raise ValueError(
            f"{folder.path}/manifest.json: {name} has {entry['samples']} samples, its shards {len(split)}; {REBUILD}"
        )
    return split


def _open_shard(folder: Folder, entry: dict[str, Any]) -> Shard:
    with _opened(folder, entry["index"]) as file:
        # Not pq.read_table: its scanner leaves a thread behind that aborts a process which ends soon after (pyarrow 26).
        table = pq.ParquetFile(file).read(columns=["image_offset", "image_size", "text_offset", "text_size"])
    if table.num_rows != entry["samples"]:
        raise ValueError(
            f"{folder.path}/{entry['index']}: {table.num_rows} rows, the manifest says {entry['samples']}; {REBUILD}"
        )
    columns = {name: table.column(name).to_numpy() for name in table.column_names}
    return Shard(file=entry["file"], **columns)


def _opened(folder: Folder, name: str) -> Any:
    try:
        return folder.open(name)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(
            f"{folder.path}/{name} is missing; is this a folder of shards? (docs/shards.md)"
        ) from error
