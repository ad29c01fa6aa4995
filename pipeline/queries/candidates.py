"""Candidates: what every source of queries writes, rows of (query, source, count, pmi, views)."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import pyarrow as pa
from upath import UPath

from pipeline.errors import InputError
from pipeline.sources.rows import TableWriter

CANDIDATES_FILE = "candidates.parquet"
CANDIDATES_SCHEMA = pa.schema(
    [
        ("query", pa.string()),
        ("source", pa.string()),  # pipeline/queries/config.py: Source
        ("count", pa.int64()),  # occurrences in the text; of words and bi-grams
        ("pmi", pa.float64()),  # pointwise mutual information, in bits; of bi-grams
        ("views", pa.int64()),  # of titles
    ]
)
BATCH_ROWS = 10_000
READ_BYTES = 1 << 20


class BatchWriter:
    """Writes one Parquet file from rows given one at a time, as tuples in the order of the schema."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._table = TableWriter(path, schema)
        self._schema = schema
        self._rows: list[tuple[object, ...]] = []

    def append(self, *row: object) -> None:
        self._rows.append(row)
        if len(self._rows) >= BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        columns = zip(*self._rows, strict=True) if self._rows else [()] * len(self._schema)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
        self._table.write(pa.Table.from_arrays(arrays, schema=self._schema))
        self._rows = []

    def __enter__(self) -> BatchWriter:
        self._table.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self._flush()
        self._table.__exit__(*error)  # type: ignore[arg-type]


class LineReader:
    """Lines of a file as text, with reasons for those that are none. It never holds more of a line than `max_bytes`."""

    def __init__(self, path: UPath, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self.is_cut = False  # the file broke off or is damaged; all lines before that were given

    def __iter__(self) -> Iterator[tuple[str | None, str]]:
        """(line without its end, "") or (None, reason): `long_line` or `invalid_utf8`."""
        lines = 0
        with open_unpacked(self._path) as file:
            try:
                while line := file.readline(self._max_bytes + 1):
                    yield self._judge(line, file)
                    lines += 1
            except (EOFError, OSError) as error:
                if not lines:
                    raise InputError(f"{self._path}: cannot be unpacked: {error}; fetch the file again") from error
                self.is_cut = True

    def _judge(self, line: bytes, file: IO[bytes]) -> tuple[str | None, str]:
        if len(line) > self._max_bytes and not line.endswith(b"\n"):
            while (rest := file.readline(READ_BYTES)) and not rest.endswith(b"\n"):
                pass
            return None, "long_line"
        try:
            return line.rstrip(b"\r\n").decode("utf-8"), ""
        except UnicodeDecodeError:
            return None, "invalid_utf8"


@contextmanager
def open_unpacked(path: UPath) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked if its name ends in .gz or .bz2. Raises InputError if there is no such file."""
    try:
        raw = path.open("rb")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError(f"{path}: no such file; check the path in the configuration") from error
    with raw:
        if path.name.endswith(".bz2"):
            with bz2.open(raw) as file:
                yield file
        elif path.name.endswith(".gz"):
            with gzip.open(raw) as unzipped:
                yield cast(IO[bytes], unzipped)
        else:
            yield raw
