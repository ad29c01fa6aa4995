"""Several labels an image in tables (a column `labels`) and in tars (KEY.npy, KEY.cls or KEY.json)."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.lib.format import read_array

from model.data.shards import Folder
from model.errors import InputError
from model.evaluation.images import ImageRef
from model.evaluation.multilabel_samples import (
    IGNORED_FIELD,
    LABELS_FIELD,
    MultilabelImage,
    multilabel_image,
    multilabel_split,
)
from model.evaluation.names import Words
from model.evaluation.samples import IMAGE_ENDINGS, SPLITS, Layout, Split
from model.evaluation.tables import (
    class_numbers,
    column_names,
    image_of,
    number_of,
    path_in,
    read_columns,
    table_of,
    word_of,
)
from model.evaluation.wds import is_wds_split, members_of, names_of, tars_of
from model.files import sha256_file

SEPARATOR = "|"
"""Between labels in a CSV file; class names have commas in them."""
_LABELS_OF: dict[str, Callable[[bytes], Any]] = {
    "npy": lambda stored: read_array(io.BytesIO(stored), allow_pickle=False).reshape(-1).tolist(),
    "cls": lambda stored: [int(mark) for mark in stored.decode("ascii").split()],
    "json": json.loads,
}
"""What a member of a tar holds, by its ending. All raise ValueError if it is no such file."""

Marks = tuple[list[int], list[int]]
"""The classes that an image shows, and those that are ignored of it."""


def is_multilabel_table(folder: Path) -> bool:
    """Whether the table of the test split has a column `labels` in the place of `label`. Raises InputError if it is broken."""
    table = table_of(folder, "test")
    return table is not None and LABELS_FIELD in column_names(table)


def read_multilabel_table(folder: Path, own: Words | None, packaged: Words | None) -> Layout[MultilabelImage]:
    """The set in `folder`; paths are relative to it. Raises InputError that names table and row.

    A cell is a list, or labels with | between them; a label is a class name or the number of one. A cell may be empty.
    """
    tables = {split: path for split in SPLITS if (path := table_of(folder, split)) is not None}
    rows = {split: _rows(path) for split, path in tables.items()}
    told = {label for read in rows.values() for _, labels, ignored in read for label in (*labels, *ignored)}
    names, number = class_numbers(told, tables["test"], own, packaged)
    splits = {split: _table_split(folder, tables[split], rows[split], number, names) for split in tables}
    return Layout("table", names, splits["test"], splits.get("train"), splits.get("val"))


def read_multilabel_wds(folder: Path, own: Words | None, packaged: Words | None) -> Layout[MultilabelImage]:
    """The set in `folder`; KEY.npy and KEY.cls are one 0 or 1 for each class, KEY.json is a list of names or numbers, or has
    such lists as `labels` and `ignored`. Raises InputError that names tar and key.
    """
    names = names_of(folder, own, packaged)
    train, val = (
        _tar_split(folder / split, names) if is_wds_split(folder / split) else None for split in ("train", "val")
    )
    return Layout("wds", names, _tar_split(folder / "test", names), train, val)


def _rows(table: Path) -> list[tuple[str, list[str], list[str]]]:
    has_ignored = IGNORED_FIELD in column_names(table)
    columns = read_columns(table, ["path", LABELS_FIELD, IGNORED_FIELD] if has_ignored else ["path", LABELS_FIELD])
    paths = [path_in(f"{table} row {line}", path) for line, path in enumerate(columns["path"], 1)]
    ignored = [_parts(cell) for cell in columns[IGNORED_FIELD]] if has_ignored else [[] for _ in paths]
    return list(zip(paths, map(_parts, columns[LABELS_FIELD]), ignored, strict=True))


def _parts(cell: Any) -> list[str]:
    found = cell if isinstance(cell, list) else word_of(cell).split(SEPARATOR)
    return [word for part in found if (word := word_of(part))]


def _table_split(
    folder: Path, table: Path, rows: list[tuple[str, list[str], list[str]]], number: dict[str, int], names: Words
) -> Split[MultilabelImage]:
    samples: dict[str, MultilabelImage] = {}
    for line, (path, labels, ignored) in enumerate(rows, 1):
        where = f"{table} row {line}"
        shown, unclear = ([number_of(where, label, number, names) for label in told] for told in (labels, ignored))
        samples[path] = multilabel_image(path, shown, unclear, image_of(folder, where, path, samples))
    return multilabel_split(samples.values(), (sha256_file(folder / path) for path in samples))


def _tar_split(folder: Path, names: Words) -> Split[MultilabelImage]:
    tars = tars_of(folder)
    samples = [_sample(tar, key, files, names) for tar in tars for key, files in members_of(tar).items()]
    if not samples:
        raise InputError(f"{folder}: no samples in its {len(tars)} tars; write the set anew")
    return multilabel_split(samples, map(sha256_file, tars))


def _sample(tar: Path, key: str, files: dict[str, Any], names: Words) -> MultilabelImage:
    folder, where = Folder(str(tar.parent)), f"{tar}: key {key!r}"
    image = next((files[ending] for ending in IMAGE_ENDINGS if ending in files), None)
    ending = next((ending for ending in _LABELS_OF if ending in files), None)
    if image is None or ending is None:
        missing = "image (.jpg, .jpeg, .png or .webp)" if image is None else "labels (.npy, .cls or .json)"
        raise InputError(f"{where} has no {missing}; a sample is KEY.jpg and one of KEY.npy, KEY.cls, KEY.json")
    stored = ImageRef(folder, tar.name, files[ending].offset_data, files[ending].size).read()
    labels, ignored = _marks(where, ending, stored, names)
    return multilabel_image(
        f"{tar.name}/{key}", labels, ignored, ImageRef(folder, tar.name, image.offset_data, image.size)
    )


def _marks(where: str, ending: str, stored: bytes, names: Words) -> Marks:
    try:
        marks = _LABELS_OF[ending](stored)
    except ValueError as error:
        raise InputError(f"{where} has labels that cannot be read (.{ending}: {error}); write them anew") from error
    if ending == "json":
        return _listed(where, marks, names)
    if len(marks) != len(names.words) or set(marks) - {0, 1}:
        odd = next((mark for mark in marks if mark not in (0, 1)), None)
        also = f", one of them {odd!r}" if odd is not None else ""
        raise InputError(
            f"{where} has {len(marks)} marks in its .{ending}{also}; write one for each of the {len(names.words)} names of "
            f"{names.source}: 1 for a class that it shows, else 0"
        )
    return [label for label, mark in enumerate(marks) if mark], []


def _listed(where: str, told: Any, names: Words) -> Marks:
    fields = told if isinstance(told, dict) else {LABELS_FIELD: told}
    lists = [fields.get(LABELS_FIELD), fields.get(IGNORED_FIELD, [])]
    if not all(isinstance(each, list) for each in lists):
        raise InputError(
            f'{where} has no list of labels in its .json; write ["NAME", ...] or {{"{LABELS_FIELD}": [...]}}'
        )
    number = {str(index): index for index in range(len(names.words))}
    number |= {name: index for index, name in enumerate(names.words)}
    labels, ignored = ([number_of(where, str(label), number, names) for label in each] for each in lists)
    return labels, ignored
