"""Reading Parquet through Python's files, on the calling thread alone, and without pandas.

Where Arrow reads ahead, its own threads free Python's buffers, now and then after the interpreter has begun to end. Python
then ends that thread, and C++ answers with "terminate called without an active exception": a command that did its work exits
with status 134 (pyarrow 26; one exit of thirty on two busy cores). Files that Arrow opens itself by path do not have this.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath


class _NoPandas(MetaPathFinder):
    """For as long as it is among the finders, an import of pandas fails."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname == "pandas":
            raise ImportError(name=fullname)


def _keep_pandas_out() -> None:
    """Make Arrow believe that there is no pandas, until somebody asks it for a DataFrame.

    At its first array it would import pandas only to find out whether it was given a Series: 0.4 s and 57 MB of each process
    (pyarrow 26). It looks once, so pandas is hidden for that moment alone.
    """
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([None])
    finally:
        sys.meta_path.remove(finder)


_keep_pandas_out()


def open_parquet(stream: IO[bytes]) -> pq.ParquetFile:
    """A Parquet file for its footer; its rows are read by `batches`."""
    return pq.ParquetFile(stream, pre_buffer=False)


def batches(
    file: pq.ParquetFile, rows: int, columns: Sequence[str] | None = None, row_groups: Sequence[int] | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of a file of `open_parquet`, at most `rows` at once."""
    groups = None if row_groups is None else list(row_groups)
    names = None if columns is None else list(columns)
    yield from file.iter_batches(rows, row_groups=groups, columns=names, use_threads=False)


def read_parquet(path: UPath, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a file, in any store."""
    with path.open("rb") as opened, open_parquet(opened) as file:
        return file.read(None if columns is None else list(columns), use_threads=False)
