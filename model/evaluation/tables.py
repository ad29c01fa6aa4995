"""Tables of path and label: test.csv or test.parquet, and the same for train and val."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

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
    return _table(folder, "test") is not None


def read_table(folder: Path, own: Words | None, packaged: Words | None) -> Layout:
    """The set in `folder`; paths are relative to it. Raises InputError that names table and row.

    A label is a class name, or the number of one from 0. Without `classnames.txt` the classes are the words in the tables,
    in the order of the alphabet; numbers alone then need a package that knows the set.
    """
    paths = {split: path for split in SPLITS if (path := _table(folder, split)) is not None}
    rows = {split: _rows(path) for split, path in paths.items()}
    labels = {label for read in rows.values() for _, label in read}
    names = own
    if names is None and labels and all(label.isdecimal() for label in labels):
        names = packaged
        if names is None:
            raise InputError(
                f"{paths['test']}: labels are numbers and there is no {CLASS_NAMES}; write it: one class name a line, the "
                "first is label 0"
            )
    if names is None:
        names = Words(tuple(sorted(labels)), "the labels of its tables")
    number = {str(index): index for index in range(len(names.words))}
    number |= {name: index for index, name in enumerate(names.words)}
    splits = {split: _split(folder, paths[split], rows[split], number, names) for split in paths}
    return Layout("table", names, splits["test"], splits.get("train"), splits.get("val"))


def _table(folder: Path, split: str) -> Path | None:
    return next((path for ending in ENDINGS if (path := folder / f"{split}{ending}").is_file()), None)


def _rows(path: Path) -> list[Row]:
    rows = _csv_rows(path) if path.suffix == ".csv" else _parquet_rows(path)
    if not rows:
        raise InputError(f"{path}: no rows; write one for each image: {', '.join(COLUMNS)}")
    return rows


def _csv_rows(path: Path) -> list[Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            _require(path, reader.fieldnames or [])
            return [(row["path"] or "", (row["label"] or "").strip()) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: no CSV file in UTF-8 ({error}); save it anew") from error


def _parquet_rows(path: Path) -> list[Row]:
    try:
        _require(path, pq.read_schema(path).names)
        # On this thread alone: nothing is to run in the background when the command ends.
        table = pq.read_table(path, columns=list(COLUMNS), use_threads=False, pre_buffer=False)
    except pa.ArrowException as error:
        raise InputError(f"{path}: no Parquet file ({error}); save it anew") from error
    return [
        (str(found), str(label)) for found, label in zip(*(table[name].to_pylist() for name in COLUMNS), strict=True)
    ]


def _require(path: Path, names: Sequence[str]) -> None:
    if missing := [name for name in COLUMNS if name not in names]:
        raise InputError(f"{path}: no column {' and no column '.join(missing)}; its columns are to be path and label")


def _split(folder: Path, table: Path, rows: list[Row], number: dict[str, int], names: Words) -> Split:
    samples: dict[str, LabelledImage] = {}
    for line, (path, label) in enumerate(rows, 1):
        where = f"{table} row {line}"
        if label not in number:
            raise InputError(
                f"{where}: the label {label!r} is neither one of the {len(names.words)} names of {names.source} nor a number "
                f"from 0 to {len(names.words) - 1}; mend it"
            )
        if path in samples:
            raise InputError(f"{where}: {path} stands there twice; remove one")
        if not (folder / path).is_file():
            raise InputError(
                f"{where}: no file {folder / path}; paths are relative to the table, mend it or remove the row"
            )
        samples[path] = LabelledImage(path, number[label], FileImage(folder / path))
    return split_of(samples.values(), (sha256_file(folder / path) for path in samples))
