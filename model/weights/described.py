"""What a format's JSON says of a model, read field by field: what this project cannot represent is refused by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.data.images import MEAN_RGB, STD_RGB
from model.errors import InputError

TOLERANCE = 1e-4


def read_json(path: Path) -> dict[str, Any]:
    """An object in a JSON file. Raises InputError if there is none."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; copy it there") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); copy it again") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: not a JSON object; copy it again")
    return found


def require(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> None:
    """Raise InputError if a field that is there is not what it must be."""
    for name, value in wanted.items():
        if name in found and found[name] != value:
            raise InputError(
                f"{path}: {where}.{name} is {found[name]!r}; only models with {value!r} can be represented here"
            )


def require_normalisation(path: Path, mean: Any, std: Any) -> None:
    """Raise InputError unless images are normalised as the official code does it."""
    for name, found, wanted in (("mean", mean, MEAN_RGB), ("std", std, STD_RGB)):
        if found is None:
            continue
        if len(found) != 3 or any(abs(one - other) > TOLERANCE for one, other in zip(found, wanted, strict=True)):
            raise InputError(
                f"{path}: images are normalised with {name} {found}; only {list(wanted)}, OpenAI's, can be represented here"
            )
