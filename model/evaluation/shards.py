"""What the evaluation reads from a folder of shards (docs/shards.md): manifest, pairs, training captions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from model.data.shards import FORMAT_VERSION, REBUILD, Folder
from model.evaluation.errors import InputError
from model.evaluation.images import ImageRef

CAPTIONS_READ = 1_000_000


@dataclass(frozen=True)
class Pair:
    """An image and all its captions."""

    key: str
    image: ImageRef
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Shards:
    """A folder of shards and its manifest; `sha256` is that of the manifest's bytes."""

    folder: Folder
    manifest: dict[str, Any]
    sha256: str

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def digest(self) -> str:
        return str(self.manifest["digest"])

    def samples(self, split: str) -> int:
        """Samples of a split; 0 where there is none."""
        return int(self.manifest["splits"].get(split, {}).get("samples", 0))


def read_shards(path: str) -> Shards:
    """The data set in a folder, local or in an object store; raises InputError."""
    folder = Folder(path)
    where = f"{path}/manifest.json"
    try:
        with folder.open("manifest.json") as file:
            content = file.read()
        manifest = json.loads(content)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"{where}: no such file; give the folder of shards that the run learned from (--shards)"
        ) from error
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error}); {REBUILD}") from error
    if not isinstance(manifest, dict) or manifest.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{where}: is not a manifest of format_version {FORMAT_VERSION} (docs/shards.md); check --shards"
        )
    return Shards(folder, manifest, hashlib.sha256(content).hexdigest())


def first_pairs(shards: Shards, split: str, limit: int) -> list[Pair]:
    """The first `limit` pairs of a split: a random sample, because shards are shuffled before they are written."""
    pairs: list[Pair] = []
    for shard in shards.manifest["splits"].get(split, {}).get("shards", []):
        if len(pairs) >= limit:
            break
        rows = _read_parquet(shards.folder, shard["index"]).slice(0, limit - len(pairs)).to_pylist()
        pairs += [_pair(shards.folder, shard["file"], row) for row in rows]
    return pairs


def training_captions(shards: Shards) -> Iterator[str]:
    """The captions of the training split, the first million of them."""
    if shards.samples("train") == 0:
        return
    left = CAPTIONS_READ
    name = "train/samples.parquet"
    try:
        with shards.folder.open(name) as file:
            for batch in pq.ParquetFile(file).iter_batches(columns=["caption"]):
                yield from batch.slice(0, left).column(0).to_pylist()
                left -= min(left, batch.num_rows)
                if left == 0:
                    return
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise InputError(f"{shards.folder.path}/{name}: not readable Parquet ({error}); {REBUILD}") from error


def _pair(folder: Folder, tar: str, row: dict[str, Any]) -> Pair:
    where = f"{folder.path}/{tar}"
    try:
        captions = json.loads(folder.read(tar, row["json_offset"], row["json_size"]))["captions"]
    except FileNotFoundError as error:
        raise InputError(f"{where}: no such file, but manifest.json names it; {REBUILD}") from error
    except (ValueError, KeyError) as error:
        raise InputError(f"{where}: the .json of key {row['key']!r} holds no captions ({error}); {REBUILD}") from error
    return Pair(
        row["key"], ImageRef(folder, tar, row["image_offset"], row["image_size"]), tuple(dict.fromkeys(captions))
    )


def _read_parquet(folder: Folder, name: str) -> pa.Table:
    try:
        with folder.open(name) as file:
            # Not pq.read_table: its scanner leaves a thread behind that aborts a process which ends soon after (pyarrow 26).
            return pq.ParquetFile(file).read()
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise InputError(f"{folder.path}/{name}: not readable Parquet ({error}); {REBUILD}") from error
