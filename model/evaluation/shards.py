"""What the evaluation reads from a folder of shards (docs/shards.md): manifest, pairs, training captions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from model.data.manifest import Manifest
from model.data.shards import REBUILD, Folder, read_captions, read_index, read_manifest
from model.errors import InputError
from model.evaluation.images import ImageRef

CAPTIONS_READ = 1_000_000
COLUMNS = ("key", "image_offset", "image_size", "json_offset", "json_size")


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
    manifest: Manifest
    sha256: str


def read_shards(path: str) -> Shards:
    """The data set in a folder, local or in an object store; raises InputError."""
    folder = Folder(path)
    return Shards(folder, *read_manifest(folder))


def first_pairs(shards: Shards, split: str, limit: int) -> list[Pair]:
    """The first `limit` pairs of a split: a random sample, because shards are shuffled before they are written."""
    pairs: list[Pair] = []
    for shard in shards.manifest.shards(split):
        if len(pairs) >= limit:
            break
        rows = read_index(shards.folder, shard, COLUMNS).slice(0, limit - len(pairs)).to_pylist()
        pairs += [_pair(shards.folder, shard.file, row) for row in rows]
    return pairs


def training_captions(shards: Shards) -> Iterator[str]:
    """The captions of the training split, the first million of them."""
    if shards.manifest.samples("train"):
        yield from islice(read_captions(shards.folder, "train"), CAPTIONS_READ)


def _pair(folder: Folder, tar: str, row: dict[str, Any]) -> Pair:
    where = f"{folder.path}/{tar}"
    try:
        captions = json.loads(folder.read(tar, row["json_offset"], row["json_size"]))["captions"]
    except FileNotFoundError as error:
        raise InputError(f"{where}: no such file, but manifest.json names it; {REBUILD}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{where}: the .json of key {row['key']!r} holds no captions ({error}); {REBUILD}") from error
    return Pair(
        row["key"], ImageRef(folder, tar, row["image_offset"], row["image_size"]), tuple(dict.fromkeys(captions))
    )
