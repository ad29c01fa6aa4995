"""The images of a data set's shards as vectors on disk: one file per tar, made once for a model, a part that a kill cannot undo.

A file holds unit vectors (N, D) in fp16 and the rows of the tar's index that they are of. Axes: N images, D dimensions.
"""

# ruff: noqa: N815 (a tensor's name ends in its axes)
from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from model.data.manifest import ShardEntry
from model.data.shards import REBUILD, read_index
from model.errors import InputError
from model.evaluation.embed import check_finite
from model.evaluation.images import PREPROCESSING, ImageRef
from model.evaluation.passes import Progress, Say, judged_parts
from model.evaluation.results import Unreadable
from model.evaluation.shards import Shards
from model.files import writing
from model.use.loading import Loaded

BATCH = 256
KIND = "unit features, fp16"


@dataclass(frozen=True)
class IndexPart:
    """The vectors of one tar: where they lie, and what they must be of."""

    shard: ShardEntry
    path: Path
    key: str


@dataclass(frozen=True)
class Vectors:
    """What such a file holds."""

    features_ND: Tensor
    rows: list[int]
    unreadable: list[Unreadable]


def index_parts(cache: Path, shards: Shards, splits: Sequence[str], loaded: Loaded) -> list[IndexPart]:
    """One per tar, in the order of the manifest; a file that is not there yet is made by `complete_index`.

    Raises InputError for names that lead out of `cache`.
    """
    weights = loaded.embedder.weights_sha256
    folder = cache / f"{shards.manifest.name}-{weights[:16]}"
    parts = []
    for split in splits:
        for shard in shards.manifest.shards(split):
            about = [KIND, weights, PREPROCESSING, loaded.embedder.image_px, shard.file, shard.sha256]
            key = hashlib.sha256(json.dumps(about).encode()).hexdigest()
            path = (folder / shard.file).with_suffix(".safetensors")
            if not path.resolve().is_relative_to(cache.resolve()):
                raise InputError(
                    f"{shards.folder.path}/manifest.json: the name {shards.manifest.name!r} with the shard {shard.file!r} "
                    f"leads out of {cache}; {REBUILD}"
                )
            parts.append(IndexPart(shard, path, key))
    return parts


def complete_index(
    shards: Shards, parts_of_each: Sequence[Sequence[IndexPart]], models: Sequence[Loaded], say: Say
) -> None:
    """Embed the tars that an index lacks; an image is decoded once for all models, which want the same size.

    Raises InputError where they do not, or a model gives features that are not finite.
    """
    embedder = models[0].embedder
    for other in models[1:]:
        if other.embedder.image_px != embedder.image_px:
            raise InputError(
                f"{other.name} sees images of {other.embedder.image_px} pixels, {models[0].name} of {embedder.image_px}; "
                "embed with one after the other"
            )
    columns = list(zip(*parts_of_each, strict=True))
    missing = [[index for index, part in enumerate(column) if read_vectors(part) is None] for column in columns]
    total = sum(column[0].shard.samples for column in columns)
    to_do = sum(column[0].shard.samples for column, lacking in zip(columns, missing, strict=True) if lacking)
    name = shards.manifest.name
    progress = Progress(f"embedding {name}", total, total - to_do, say)
    for column, lacking in zip(columns, missing, strict=True):
        if lacking:
            _embed_tar(shards, column, lacking, models, progress, say)


def _embed_tar(
    shards: Shards,
    column: Sequence[IndexPart],
    lacking: Sequence[int],
    models: Sequence[Loaded],
    progress: Progress,
    say: Say,
) -> None:
    shard = column[0].shard
    table = read_index(shards.folder, shard, ("key", "image_offset", "image_size")).to_pylist()
    images = [
        (f"{shard.file}: {row['key']}", ImageRef(shards.folder, shard.file, row["image_offset"], row["image_size"]))
        for row in table
    ]
    embedder = models[0].embedder
    judges = [models[index].embedder.towers.encode_image_twice for index in lacking]
    (judged,) = judged_parts([images], embedder.image_px, BATCH, embedder.device, judges, progress)
    for found in judged.unreadable:
        say(f"left out: {found.key}: {found.reason}")
    for index, tensors in zip(lacking, judged.found, strict=True):
        features_ND = tensors[-1] if tensors else torch.empty(0, 0)
        check_finite(f"{shard.file} by {models[index].name}", features_ND)
        _write_vectors(column[index], Vectors(functional.normalize(features_ND).half(), judged.rows, judged.unreadable))


def read_vectors(part: IndexPart) -> Vectors | None:
    """What was written for this tar and model, or None."""
    if not part.path.is_file():
        return None
    try:
        with safe_open(part.path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
            if about.get("key") != part.key:
                return None
            unreadable = [Unreadable.model_validate(found) for found in about["unreadable"]]
            return Vectors(file.get_tensor("features"), file.get_tensor("rows").tolist(), unreadable)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError):
        return None  # not one of ours, or damaged: it is embedded anew and written over


def _write_vectors(part: IndexPart, vectors: Vectors) -> None:
    partial = part.path.with_name(f".{part.path.name}.{os.getpid()}.partial")
    about = json.dumps({"key": part.key, "unreadable": [found.model_dump() for found in vectors.unreadable]})
    tensors = {"features": vectors.features_ND, "rows": torch.tensor(vectors.rows, dtype=torch.int64)}
    with writing(part.path):
        part.path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, metadata={"about": about})
        partial.replace(part.path)
