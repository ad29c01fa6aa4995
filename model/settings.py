"""What all settings are: frozen, complete, and read from JSON with an error that names the field. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from model.errors import InputError

OPERATIONAL: dict[str, Any] = {"operational": True}
"""Marks settings of how a run is computed or watched, not of what it learns: they may differ when it is resumed."""


class Settings(BaseModel):
    """Base of all settings: frozen, complete, every number finite, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The settings in a JSON file. Raises InputError that names the file and the fields."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file; write the {cls.__name__} there as JSON") from error
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors()
            )
            raise InputError(f"{path}: {problems}") from error
