"""Candidate rows: the one table that every source writes, an image's URL with one text found beside it."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

ROWS_FILE = "rows.parquet"
DATA_URL_CHARS = 200  # so much of a data: URL is kept, to recognise it
ROW_GROUP_ROWS = 122_880
ROW_GROUP_BYTES = 128 << 20  # whichever comes first: a million-character caption must not fill the memory

ROWS_SCHEMA = pa.schema(
    [
        ("source", pa.string()),  # kind and name: "site_crawl:HOST", "url_list:FILE"
        ("row", pa.int64()),  # number within the source, from 0, in its order; (source, row) is unique
        (
            "url",
            pa.string(),
        ),  # of the image, absolute, else as found; null and data: are kept, SQL labels them
        ("caption_raw", pa.string()),  # the text as found, null if there was none
        ("text_key", pa.string()),  # where the text stood: alt, title, figcaption or list
        ("page_url", pa.string()),
        ("page_opt_out", pa.string()),  # comma-joined opt-out tokens of the page, null if it has none
    ]
)


class TableWriter:
    """Writes one Parquet file (zstd) in large row groups, holding one of them in memory.

    The row groups depend on the rows alone, so equal rows written in equal batches give equal bytes.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._waiting: list[pa.Table] = []
        self._waiting_rows = self._waiting_bytes = 0
        self.rows = 0

    def write(self, table: pa.Table) -> None:
        """Append a table of the writer's schema."""
        self.rows += table.num_rows
        self._waiting.append(table)
        self._waiting_rows += table.num_rows
        self._waiting_bytes += table.nbytes
        if self._waiting_rows >= ROW_GROUP_ROWS or self._waiting_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._waiting_rows:
            self._writer.write_table(pa.concat_tables(self._waiting), row_group_size=self._waiting_rows)
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()


class RowsWriter(TableWriter):
    """Writes `rows.parquet` and numbers the rows, from the part's first one."""

    def __init__(self, out: Path, source: str, first_row: int = 0) -> None:
        super().__init__(out / ROWS_FILE, ROWS_SCHEMA)
        self._source = source
        self._first_row = first_row

    def append(self, columns: dict[str, pa.Array]) -> None:
        """Append rows given as columns; `source` and `row` are added, a column that is absent is null."""
        count = len(next(iter(columns.values())))
        number = self._first_row + self.rows
        columns = {
            **columns,
            "source": pa.repeat(pa.scalar(self._source), count),
            "row": pa.array(range(number, number + count), pa.int64()),
        }
        missing = {field.name: pa.nulls(count, field.type) for field in ROWS_SCHEMA if field.name not in columns}
        arrays = [{**columns, **missing}[name] for name in ROWS_SCHEMA.names]
        self.write(pa.Table.from_arrays(arrays, schema=ROWS_SCHEMA))
