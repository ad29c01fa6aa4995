"""Groups of people in an evaluation set, and classes that nobody should fall into: what a fairness probe asks about.

A set that is a table asks for it by `fairness.toml`:

    groups = ["race", "gender"]          columns of its tables; each value is a group

    [categories]                         optional: further classes to choose from, by what they have in common
    "NAME OF THE CATEGORY" = ["a class", "another class"]
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from model.config import Settings
from model.errors import InputError
from model.evaluation.samples import LabelledImage, Layout
from model.evaluation.tables import read_columns, table_of, word_of

FILE = "fairness.toml"
REMEDY = 'write groups = ["COLUMN", ...] and, if wanted, [categories] with "NAME" = ["CLASS", ...]'


class FairnessPlan(Settings):
    """What `fairness.toml` holds."""

    groups: tuple[str, ...] = Field(min_length=1, description="Columns of test.csv or test.parquet that name groups")
    categories: dict[str, tuple[str, ...]] = Field(
        {}, description="Classes beside the set's own, by category: how often does an image fall into one?"
    )


@dataclass(frozen=True)
class Groups:
    """The group of each test image in each column, in the order of the samples ("" if it is not told), and further classes."""

    values: Mapping[str, tuple[str, ...]]
    categories: Mapping[str, tuple[str, ...]]

    @property
    def extra_classes(self) -> tuple[str, ...]:
        """Those of all categories, in order."""
        return tuple(name for names in self.categories.values() for name in names)

    @property
    def told(self) -> list[object]:
        """All of it, for a digest."""
        return [list(self.values.items()), list(self.categories.items())]


def read_groups(folder: Path, layout: Layout[LabelledImage]) -> Groups | None:
    """What `fairness.toml` asks for, None if there is no such file. Raises InputError if it cannot be answered."""
    path = folder / FILE
    if not path.is_file():
        return None
    table = table_of(folder, "test")
    if layout.stored_as != "table" or table is None:
        raise InputError(
            f"{path}: groups are columns of test.csv or test.parquet, but the set is stored as {layout.stored_as}; store it as a "
            "table (path, label, and a column for each group)"
        )
    try:
        plan = FairnessPlan.model_validate(tomllib.loads(path.read_text("utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no TOML in UTF-8 ({error}); {REMEDY}") from error
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise InputError(f"{path}: {told}; {REMEDY}") from error
    columns = read_columns(table, plan.groups)
    values = {name: tuple(map(word_of, columns[name])) for name in plan.groups}
    groups = Groups(values, plan.categories)
    taken = [*layout.class_names.words, *groups.extra_classes]
    if twice := sorted({name for name in taken if taken.count(name) > 1 and name in groups.extra_classes}):
        raise InputError(f"{path}: {twice[0]!r} is a class twice, of the set or of the categories; remove one")
    if empty := [
        name for name, words in plan.categories.items() if not all(word.strip() for word in words) or not words
    ]:
        raise InputError(
            f"{path}: the category {empty[0]!r} has no class, or one without a name; write some or remove it"
        )
    return groups
