"""Several labels an image in tables (a column `labels`) and in tars (KEY.npy, KEY.cls or KEY.json)."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from model.data.shards import Folder
from model.errors import InputError
from model.evaluation.images import ImageRef
from model.evaluation.multilabel_samples import (
    IGNORED,
    LABELS,
    ManyLabelled,
    ManyLayout,
    ManySplit,
    many_labelled,
    many_split,
)
from model.evaluation.names import CLASS_NAMES, Words
from model.evaluation.samples import IMAGE_ENDINGS, SPLITS
from model.evaluation.tables import class_numbers, column_names, image_of, number_of, path_in, read_columns, table_of
from model.evaluation.wds import members_of, tars_of
from model.files import sha256_file

SEPARATOR = "|"
"""Between labels in a CSV file; class names have commas in them."""
LABEL_ENDINGS = ("npy", "cls", "json")

Marks = tuple[list[int], list[int]]
"""The classes that an image shows, and those that are ignored of it."""


def is_multilabel_table(folder: Path) -> bool:
    """Whether the table of the test split has a column `labels` in the place of `label`. Raises InputError if it is broken."""
    table = table_of(folder, "test")
    return table is not None and LABELS in column_names(table)


def read_multilabel_table(folder: Path, own: Words | None, packaged: Words | None) -> ManyLayout:
    """The set in `folder`; paths are relative to it. Raises InputError that names table and row.

    A cell is a list, or labels with | between them; a label is a class name or the number of one. A cell may be empty.
    """
    tables = {split: path for split in SPLITS if (path := table_of(folder, split)) is not None}
    rows = {split: _rows(path) for split, path in tables.items()}
    told = {label for read in rows.values() for _, labels, ignored in read for label in (*labels, *ignored)}
    names, number = class_numbers(told, tables["test"], own, packaged)
    splits = {split: _table_split(folder, tables[split], rows[split], number, names) for split in tables}
    return ManyLayout("table", names, splits["test"], splits.get("train"), splits.get("val"))


def read_multilabel_wds(folder: Path, own: Words | None, packaged: Words | None) -> ManyLayout:
    """The set in `folder`; KEY.npy and KEY.cls are one 0 or 1 for each class, KEY.json is a list of names or numbers, or has
    such lists as `labels` and `ignored`. Raises InputError that names tar and key.
    """
    names = own or packaged
    if names is None:
        raise InputError(f"{folder / CLASS_NAMES}: no such file; write it: one class name a line; the first is label 0")
    splits = {
        split: _tar_split(folder / split, names) for split in SPLITS if (folder / split / "nshards.txt").is_file()
    }
    if "test" not in splits:
        raise InputError(f"{folder / 'test' / 'nshards.txt'}: no such file; write it: the number of tars, one integer")
    return ManyLayout("wds", names, splits["test"], splits.get("train"), splits.get("val"))


def _rows(table: Path) -> list[tuple[str, list[str], list[str]]]:
    has_ignored = IGNORED in column_names(table)
    columns = read_columns(table, ["path", LABELS, IGNORED] if has_ignored else ["path", LABELS])
    paths = [path_in(f"{table} row {line}", path) for line, path in enumerate(columns["path"], 1)]
    ignored = [_parts(cell) for cell in columns[IGNORED]] if has_ignored else [[] for _ in paths]
    return list(zip(paths, map(_parts, columns[LABELS]), ignored, strict=True))


def _parts(cell: Any) -> list[str]:
    found = cell if isinstance(cell, list) else str("" if cell is None else cell).split(SEPARATOR)
    return [word for part in found if (word := str(part).strip())]


def _table_split(
    folder: Path, table: Path, rows: list[tuple[str, list[str], list[str]]], number: dict[str, int], names: Words
) -> ManySplit:
    samples: dict[str, ManyLabelled] = {}
    for line, (path, labels, ignored) in enumerate(rows, 1):
        where = f"{table} row {line}"
        shown, unclear = ([number_of(where, label, number, names) for label in told] for told in (labels, ignored))
        samples[path] = many_labelled(path, shown, unclear, image_of(folder, where, path, samples))
    return many_split(samples.values(), (sha256_file(folder / path) for path in samples))


def _tar_split(folder: Path, names: Words) -> ManySplit:
    tars = tars_of(folder)
    samples = [_sample(tar, key, files, names) for tar in tars for key, files in members_of(tar).items()]
    if not samples:
        raise InputError(f"{folder}: no samples in its {len(tars)} tars; write the set anew")
    return many_split(samples, map(sha256_file, tars))


def _sample(tar: Path, key: str, files: dict[str, Any], names: Words) -> ManyLabelled:
    folder, where = Folder(str(tar.parent)), f"{tar}: key {key!r}"
    image = next((files[ending] for ending in IMAGE_ENDINGS if ending in files), None)
    ending = next((ending for ending in LABEL_ENDINGS if ending in files), None)
    if image is None or ending is None:
        missing = "image (.jpg, .jpeg, .png or .webp)" if image is None else "labels (.npy, .cls or .json)"
        raise InputError(f"{where} has no {missing}; a sample is KEY.jpg and one of KEY.npy, KEY.cls, KEY.json")
    stored = ImageRef(folder, tar.name, files[ending].offset_data, files[ending].size).read()
    labels, ignored = _marks(where, ending, stored, names)
    return many_labelled(
        f"{tar.name}/{key}", labels, ignored, ImageRef(folder, tar.name, image.offset_data, image.size)
    )


def _marks(where: str, ending: str, stored: bytes, names: Words) -> Marks:
    try:
        if ending == "json":
            told = json.loads(stored)
        elif ending == "npy":
            marks = np.load(io.BytesIO(stored), allow_pickle=False).reshape(-1).tolist()
        else:
            marks = [int(mark) for mark in stored.decode("ascii").split()]
    except (ValueError, EOFError) as error:  # an empty .npy is an EOFError
        raise InputError(f"{where} has labels that cannot be read (.{ending}: {error}); write them anew") from error
    if ending == "json":
        return _listed(where, told, names)
    if len(marks) != len(names.words) or set(marks) - {0, 1}:
        odd = next((mark for mark in marks if mark not in (0, 1)), None)
        also = f", one of them {odd!r}" if odd is not None else ""
        raise InputError(
            f"{where} has {len(marks)} marks in its .{ending}{also}; write one for each of the {len(names.words)} names of "
            f"{names.source}: 1 for a class that it shows, else 0"
        )
    return [label for label, mark in enumerate(marks) if mark], []


def _listed(where: str, told: Any, names: Words) -> Marks:
    fields = told if isinstance(told, dict) else {LABELS: told}
    lists = [fields.get(LABELS), fields.get(IGNORED, [])]
    if not all(isinstance(each, list) for each in lists):
        raise InputError(f'{where} has no list of labels in its .json; write ["NAME", ...] or {{"{LABELS}": [...]}}')
    number = {str(index): index for index in range(len(names.words))}
    number |= {name: index for index, name in enumerate(names.words)}
    labels, ignored = ([number_of(where, str(label), number, names) for label in each] for each in lists)
    return labels, ignored
