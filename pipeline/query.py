"""The one door to DuckDB: a SQL file of ours, values by name, rows to Parquet or to Python.

The only text that is ever executed is a file of `sql/`; paths and numbers travel as `$name` parameters, so a hostile file name
stays a file name.
"""

from __future__ import annotations

import functools
import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb
import fsspec
from pydantic import Field
from pydantic.config import JsonDict
from upath import UPath

from pipeline.errors import InputError
from pipeline.scratch import scratch_folder
from pipeline.settings import Settings

ROW_GROUP_ROWS = 122_880
# Marks a setting that a stage's fingerprint leaves out; pipeline/stage.py reads it.
SPEED_ONLY: JsonDict = {"speed_only": True}


class QueryConfig(Settings):
    """Bounds of one DuckDB statement. They change how it is computed, never its answer."""

    memory_limit_mb: int = Field(
        2_000,
        ge=100,
        description="Memory that DuckDB may use before it spills to disk, in MB",
        json_schema_extra=SPEED_ONLY,
    )
    threads: int = Field(
        0, ge=0, description="Threads of one statement; 0 = one per core", json_schema_extra=SPEED_ONLY
    )


@functools.cache
def read_sql(name: str) -> str:
    """The text of `sql/<name>.sql`."""
    file = resources.files("sql") / f"{name}.sql"
    return file.read_text(encoding="utf-8")


def sql_digest(name: str) -> str:
    """sha256 of the text of `sql/<name>.sql`."""
    return hashlib.sha256(read_sql(name).encode()).hexdigest()


def query_to_parquet(name: str, out: Path, config: QueryConfig, **params: object) -> int:
    """Write the rows of `sql/<name>.sql` to the Parquet file `out`; return how many."""
    statement = (
        f"copy (\n{read_sql(name)}\n) to $out (format parquet, compression zstd, row_group_size {ROW_GROUP_ROWS})"
    )
    with _connection(config, params.values()) as connection:
        (rows,) = connection.execute(statement, {**_as_values(params), "out": str(out)}).fetchone()
    return int(rows)


def query_rows(name: str, config: QueryConfig | None = None, **params: object) -> list[dict[str, Any]]:
    """The rows of `sql/<name>.sql`, each as a dict; for tables small enough to show."""
    with _connection(config or QueryConfig(), params.values()) as connection:
        cursor = connection.execute(read_sql(name), _as_values(params))
        columns = [column[0] for column in cursor.description]
        return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]


class _Database:
    """An in-memory DuckDB, and the folder that it spills to."""

    def __init__(self) -> None:
        self._spill = scratch_folder("duckdb")
        self.connection = duckdb.connect()
        self.connection.execute("set enable_progress_bar = false")  # it would be drawn over the log of a slow statement
        self.connection.execute("set enable_external_file_cache = false")
        self.connection.execute("set temp_directory = $folder", {"folder": self._spill.name})

    def bound(self, config: QueryConfig) -> None:
        self.connection.execute("set memory_limit = $limit", {"limit": f"{config.memory_limit_mb}MB"})
        if config.threads:
            self.connection.execute("set threads = $threads", {"threads": config.threads})
        else:
            self.connection.execute("reset threads")

    def rest(self) -> None:
        """Give back the memory that its threads keep for the next statement: they end."""
        self.connection.execute("set threads = 1")

    def close(self) -> None:
        self.connection.close()
        self._spill.cleanup()


# Opening one costs 30 ms of the processor, as much as a statement over some thousand rows.
_resting: deque[_Database] = deque()


@contextmanager
def _connection(config: QueryConfig, values: Sequence[object] | Any) -> Iterator[Any]:
    """A DuckDB within the bounds, for one statement: no other runs in it at the same time, and none after one that failed."""
    protocols = _remote_protocols(values)
    database = _Database() if protocols else _rested()
    try:
        with _naming_errors(config):
            database.bound(config)
            for protocol in protocols:
                database.connection.register_filesystem(fsspec.filesystem(protocol))
            yield database.connection
    except BaseException:
        database.close()
        raise
    if protocols:
        database.close()
    else:
        database.rest()
        _resting.append(database)


def _rested() -> _Database:
    with suppress(IndexError):
        return _resting.pop()
    return _Database()


@contextmanager
def _naming_errors(config: QueryConfig) -> Iterator[None]:
    try:
        yield
    except (duckdb.IOException, duckdb.InvalidInputException) as error:
        remedy = "check that the file is readable Parquet and that the disk is not full"
        raise InputError(f"{_first_line(error)}; {remedy}") from error
    except duckdb.OutOfMemoryException as error:
        remedy = f"raise query.memory_limit_mb (now {config.memory_limit_mb})"
        raise InputError(f"{_first_line(error)}; {remedy}") from error


def _first_line(error: Exception) -> str:
    """DuckDB's own advice, in the lines that follow, is for who writes the SQL."""
    return str(error).split("\n", 1)[0]


def _remote_protocols(values: Any) -> set[str]:
    protocols = set()
    for value in values:
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(item, UPath) and item.protocol not in ("", "file", "local"):
                protocols.add(item.protocol)
    return protocols


def _as_values(params: dict[str, object]) -> dict[str, object]:
    return {name: _as_value(value) for name, value in params.items()}


def _as_value(value: object) -> object:
    if isinstance(value, (list, tuple)):
        return [_as_value(item) for item in value]
    if isinstance(value, UPath) and value.protocol in ("", "file", "local"):
        return value.path
    if isinstance(value, (Path, UPath)):
        return str(value)
    return value
