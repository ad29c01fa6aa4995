"""Tables of path and label: test.csv or test.parquet, and the same for train and val."""

from __future__ import annotations

import csv
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from model.errors import InputError
from model.evaluation.images import FileImage
from model.evaluation.names import CLASS_NAMES, Words
from model.evaluation.samples import SPLITS, LabelledImage, Layout, Split, split_of
from model.files import sha256_file

ENDINGS = (".csv", ".parquet")
COLUMNS = ("path", "label")

Row = tuple[str, str]


def is_table(folder: Path) -> bool:
    """Whether a folder has a table of its test split."""
    return table_of(folder, "test") is not None


def read_table(folder: Path, own: Words | None, packaged: Words | None) -> Layout[LabelledImage]:
    """The set in `folder`; paths are relative to it. Raises InputError that names table and row.

    A label is a class name, or the number of one from 0. Without `classnames.txt` the classes are the words in the tables,
    in the order of the alphabet; numbers alone then need a package that knows the set.
    """
    paths = {split: path for split in SPLITS if (path := table_of(folder, split)) is not None}
    rows = {split: _rows(path) for split, path in paths.items()}
    labels = {label for read in rows.values() for _, label in read}
    names, number = class_numbers(labels, paths["test"], own, packaged)
    splits = {split: _split(folder, paths[split], rows[split], number, names) for split in paths}
    return Layout("table", names, splits["test"], splits.get("train"), splits.get("val"))


def class_numbers(
    labels: set[str], table: Path, own: Words | None, packaged: Words | None
) -> tuple[Words, dict[str, int]]:
    """The classes, and the number of each label, which is a class name or the number itself. Raises InputError."""
    names = own
    if names is None and not labels:
        raise InputError(f"{table}: no row has a label; write the class of each image")
    if names is None and all(label.isdecimal() for label in labels):
        names = packaged
        if names is None:
            raise InputError(
                f"{table}: labels are numbers and there is no {CLASS_NAMES}; write it: one class name a line, the "
                "first is label 0"
            )
    if names is None:
        names = Words(tuple(sorted(labels)), "the labels of its tables")
    number = {str(index): index for index in range(len(names.words))}
    return names, number | {name: index for index, name in enumerate(names.words)}


def number_of(where: str, label: str, number: dict[str, int], names: Words) -> int:
    """The class of a label. Raises InputError if it is none."""
    if label not in number:
        raise InputError(
            f"{where}: the label {label!r} is neither one of the {len(names.words)} names of {names.source} nor a number "
            f"from 0 to {len(names.words) - 1}; mend it"
        )
    return number[label]


def table_of(folder: Path, split: str) -> Path | None:
    """The table of a split, if the folder has one."""
    return next((path for ending in ENDINGS if (path := folder / f"{split}{ending}").is_file()), None)


def _rows(path: Path) -> list[Row]:
    columns = read_columns(path, COLUMNS)
    rows = []
    for line, (found, label) in enumerate(zip(*columns.values(), strict=True), 1):
        if isinstance(label, list):
            raise InputError(
                f"{path} row {line}: the label is a list; write one, or name the column labels if images show several classes"
            )
        word = word_of(label)
        if not word:
            raise InputError(
                f"{path} row {line}: no label; write the name or the number of its class, or remove the row"
            )
        rows.append((path_in(f"{path} row {line}", found), word))
    return rows


def path_in(where: str, cell: Any) -> str:
    """The path that a row names. Raises InputError if it names none."""
    if not word_of(cell):
        raise InputError(f"{where}: no path; write that of its image, or remove the row")
    return str(cell)


def column_names(path: Path) -> list[str]:
    """The names of a table's columns. Raises InputError if it is none."""
    try:
        if path.suffix == ".parquet":
            return list(pq.read_schema(path).names)
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file).fieldnames or [])
    except (UnicodeDecodeError, csv.Error, pa.ArrowException, OSError) as error:
        raise _broken(path, error) from error


def read_columns(path: Path, names: Sequence[str]) -> dict[str, list[Any]]:
    """These columns of a table, row by row; those of a CSV file are words. Raises InputError if one of them, or every row, is
    missing.
    """
    known = column_names(path)
    if missing := [name for name in names if name not in known]:
        raise InputError(
            f"{path}: no column {' and no column '.join(missing)}; its columns are to be {' and '.join(names)}, and it has "
            f"{', '.join(known) or 'none'}"
        )
    try:
        columns = _csv_columns(path, names) if path.suffix == ".csv" else _parquet_columns(path, names)
    # pyarrow tells of damaged pages by a plain OSError.
    except (UnicodeDecodeError, csv.Error, pa.ArrowException, OSError) as error:
        raise _broken(path, error) from error
    if not columns[names[0]]:
        raise InputError(f"{path}: no rows; write one for each image: {', '.join(names)}")
    return columns


def word_of(cell: object) -> str:
    """What a cell says, without blanks around it; nothing where it is empty, or null in Parquet."""
    return "" if cell is None else str(cell).strip()


def _csv_columns(path: Path, names: Sequence[str]) -> dict[str, list[Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [row[name] or "" for row in rows] for name in names}


def _parquet_columns(path: Path, names: Sequence[str]) -> dict[str, list[Any]]:
    # On this thread alone: nothing is to run in the background when the command ends.
    table = pq.read_table(path, columns=list(names), use_threads=False, pre_buffer=False)
    return {name: table[name].to_pylist() for name in names}


def _broken(path: Path, error: Exception) -> InputError:
    kind = "Parquet file" if path.suffix == ".parquet" else "CSV file in UTF-8"
    return InputError(f"{path}: no {kind} ({error}); save it anew")


def image_of(folder: Path, where: str, path: str, taken: Container[str]) -> FileImage:
    """The image that a row names. Raises InputError if there is none, or if a row before it (`taken`) names it too."""
    if path in taken:
        raise InputError(f"{where}: {path} stands there twice; remove one")
    if not (folder / path).is_file():
        raise InputError(
            f"{where}: no file {folder / path}; paths are relative to the table, mend it or remove the row"
        )
    return FileImage(folder / path)


def _split(folder: Path, table: Path, rows: list[Row], number: dict[str, int], names: Words) -> Split[LabelledImage]:
    samples: dict[str, LabelledImage] = {}
    for line, (path, label) in enumerate(rows, 1):
        where = f"{table} row {line}"
        found = number_of(where, label, number, names)
        samples[path] = LabelledImage(path, found, image_of(folder, where, path, samples))
    return split_of(samples.values(), (sha256_file(folder / path) for path in samples))
