"""Features of images on the disk: one file that is whole or absent, under a key that tells what they are of.

Axes: N images, D dimensions of the shared space, F dimensions before the projection into it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from model.evaluation.results import Unreadable
from model.files import writing


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
    except SafetensorError:
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
            unreadable = [Unreadable.model_validate(found) for found in about["unreadable"]]
            rows = file.get_tensor("rows").tolist()
            return Embedded(file.get_tensor("features"), file.get_tensor("before"), rows, unreadable)
    except SafetensorError:
        return None  # not one of ours, or damaged: it is embedded anew and written over


def _about(file: Any) -> dict[str, Any]:
    about: dict[str, Any] = json.loads((file.metadata() or {}).get("about", "{}"))
    return about


def write_cache(path: Path, key: str, embedded: Embedded) -> None:
    """Write a file that is whole or absent. Raises InputError if it cannot be written."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    # One entry, because safetensors writes several in an order that changes from run to run.
    about = json.dumps({"key": key, "unreadable": [found.model_dump() for found in embedded.unreadable]})
    tensors = {
        "features": embedded.features.contiguous(),
        "before": embedded.before.contiguous(),
        "rows": torch.tensor(embedded.rows, dtype=torch.long),
    }
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, metadata={"about": about})
        partial.replace(path)
