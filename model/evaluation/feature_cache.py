"""Features of images on the disk: one file that is whole or absent, under a key that tells what they are of.

Axes: N images, D dimensions of the shared space, F dimensions before the projection into it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from model.evaluation.results import Unreadable
from model.files import writing

TENSORS = ("features", "before", "rows")


@dataclass(frozen=True)
class Embedded:
    """Features (N, D) of the images that could be read, and what the tower had before it projected them (N, F).

    `rows` are the numbers of these images in what was asked for.
    """

    features: Tensor
    before: Tensor
    rows: list[int]
    unreadable: list[Unreadable]


def is_cached(path: Path, key: str) -> bool:
    """Whether `read_cache` finds something; the features themselves stay on the disk."""
    if not path.is_file():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            return bool(_about(file).get("key") == key)
    except (SafetensorError, ValueError):
        return False


def read_cache(path: Path, key: str) -> Embedded | None:
    """What `write_cache` wrote under this key, or None."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            about = _about(file)
            if about.get("key") != key:
                return None
            tensors = {name: file.get_tensor(name) for name in TENSORS}
            if about["sha256"] != _sha256(tensors):  # a bad disk changes figures and nothing else
                return None
            unreadable = [Unreadable.model_validate(found) for found in about["unreadable"]]
            return Embedded(tensors["features"], tensors["before"], tensors["rows"].tolist(), unreadable)
    except (SafetensorError, ValueError, KeyError, TypeError):
        return None  # not one of ours, or damaged: it is embedded anew and written over


def _about(file: Any) -> dict[str, Any]:
    about = json.loads((file.metadata() or {}).get("about", "{}"))
    if not isinstance(about, dict):
        raise ValueError("metadata that are no object")
    return about


def _sha256(tensors: Mapping[str, Tensor]) -> str:
    """Of the shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in TENSORS:
        digest.update(f"{name} {tuple(tensors[name].shape)} {tensors[name].dtype} ".encode())
        digest.update(tensors[name].numpy().data)
    return digest.hexdigest()


def write_cache(path: Path, key: str, embedded: Embedded) -> None:
    """Write a file that is whole or absent. Raises InputError if it cannot be written."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    tensors = {
        "features": embedded.features.contiguous(),
        "before": embedded.before.contiguous(),
        "rows": torch.tensor(embedded.rows, dtype=torch.long),
    }
    told = {
        "key": key,
        "sha256": _sha256(tensors),
        "unreadable": [found.model_dump() for found in embedded.unreadable],
    }
    # One entry, because safetensors writes several in an order that changes from run to run.
    about = json.dumps(told)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, metadata={"about": about})
        partial.replace(path)
