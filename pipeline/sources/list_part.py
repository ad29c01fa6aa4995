"""How the rows of one file of a URL list are read, be it Parquet, CSV, TSV or JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from pydantic import Field
from upath import UPath

from pipeline.errors import InputError
from pipeline.parquet import batches, open_parquet
from pipeline.settings import Settings
from pipeline.sources.csv_quotes import QuoteWatch
from pipeline.sources.files import open_seekable, open_stream, readable

Format = Literal["parquet", "csv", "tsv", "jsonl"]

FORMATS_OF_ENDINGS: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
DELIMITERS: dict[Format, str] = {"csv": ",", "tsv": "\t"}
HEADER = (
    ". A CSV file has commas between its columns, a TSV file tabs; their names stand in its first line, or in "
    "source.url_list.column_names"
)
COMPRESSED_ENDINGS = frozenset((".gz", ".bz2", ".xz", ".zst"))  # of text files; Parquet is compressed within
FIELD = "source.url_list.paths"
DAMAGE = "it may be cut short, damaged, or of another format than its name tells; mend it, set source.url_list.format"
BATCH_ROWS = 8_192
HEAD_BYTES = 1 << 17  # of text: a header line is at most as long
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")  # UTF-32 starts with one of them or with NULs
BLOCK_BYTES = 16 << 20  # of CSV and TSV: a row is at most as long
MAX_LINE_BYTES = 16 << 20  # of JSON lines


class UrlListPart(Settings):
    """The rows of one file that one task reads."""

    path: str
    source: str = Field(description="Name of the file in its rows")
    sha256: str = Field(description="Of the file: what the part's identity hangs on, for the stage has no other source")
    format: Format
    url_column: str
    caption_column: str
    page_url_column: str
    column_names: tuple[str, ...]
    first_row: int
    row_count: int | None = Field(description="Rows from first_row; None = to the end")
    refused: str = Field("", description="Why the file cannot be read, where that was seen when the parts were planned")


def format_of(path: str) -> Format:
    """The format that a file's ending tells. Raises InputError if it tells none."""
    endings = [ending.lower() for ending in UPath(path.partition("?")[0]).suffixes]
    while endings and endings[-1] in COMPRESSED_ENDINGS:
        endings.pop()
    found = FORMATS_OF_ENDINGS.get(endings[-1] if endings else "")
    if found is None:
        known = " ".join(sorted(FORMATS_OF_ENDINGS))
        raise InputError(f"{path}: its ending tells no format (known: {known}); set source.url_list.format")
    return found


def check_text_file(part: UrlListPart) -> None:
    """Raise InputError if the start of a text file is not UTF-8, or a column is not in its header line."""
    with readable(part.path, FIELD, DAMAGE), open_stream(part.path, FIELD) as file:
        head = file.read(HEAD_BYTES)
    if head.startswith(UTF16_MARKS) or b"\0" in head[:4]:
        raise InputError(f"{part.path}: is UTF-16 or no text at all; save it as UTF-8, or check {FIELD}")
    if part.format == "jsonl":
        return
    if not head.strip():
        raise InputError(f"{part.path}: is empty; remove it from {FIELD}")
    check_columns(part, part.column_names or _header(part, head))


def _header(part: UrlListPart, head: bytes) -> list[str]:
    """The cells of the first line that is not empty."""
    text = io.StringIO(head.decode("utf-8-sig", "surrogateescape"), newline="")
    if part.format == "csv":
        lines = csv.reader(text)
    else:
        lines = csv.reader(text, delimiter=DELIMITERS["tsv"], quoting=csv.QUOTE_NONE)
    names: list[str] = next(filter(None, lines), [])
    with readable(part.path, FIELD):
        "".join(names).encode("utf-8", "surrogateescape").decode()  # UnicodeDecodeError where a byte is no UTF-8
    return names


def check_columns(part: UrlListPart, present: Sequence[str]) -> None:
    """Raise InputError unless each wanted column is one of those present, once."""
    named = {
        "url_column": part.url_column,
        "caption_column": part.caption_column,
        "page_url_column": part.page_url_column,
    }
    for field, column in named.items():
        if column and column not in present:
            names = ", ".join(map(repr, present))
            remedy = f"set source.url_list.{field}{HEADER if part.format in DELIMITERS else ''}"
            raise InputError(f"{part.path}: has no column {column!r}, it has {names}; {remedy}")
        if column and present.count(column) > 1:
            raise InputError(
                f"{part.path}: has {present.count(column)} columns {column!r}; rename all but the one that is meant, "
                f"or set source.url_list.{field} to another"
            )


def _wanted(part: UrlListPart) -> list[str]:
    return list(dict.fromkeys(filter(None, (part.url_column, part.caption_column, part.page_url_column))))


@contextmanager
def open_parquet_list(path: str) -> Iterator[pq.ParquetFile]:
    """The file, local or remote. Raises InputError if the block cannot read it."""
    with readable(path, FIELD, DAMAGE), open_seekable(path, FIELD) as file, open_parquet(file) as parquet:
        yield parquet


def read_batches(part: UrlListPart, tally: Counter[str]) -> Iterator[pa.RecordBatch]:
    """The part's rows, the wanted columns of each; those that cannot be read are counted in `tally` by reason.

    Raises InputError if the file is damaged, or a wanted column is absent or holds no text.
    """
    readers = {"parquet": _parquet_batches, "csv": _csv_batches, "tsv": _csv_batches, "jsonl": _json_batches}
    return readers[part.format](part, tally)


def _parquet_batches(part: UrlListPart, tally: Counter[str]) -> Iterator[pa.RecordBatch]:
    """The part's rows, reading only the row groups that hold some of them."""
    first, end = part.first_row, part.first_row + (part.row_count or 0)
    with open_parquet_list(part.path) as file:
        for name in _wanted(part):
            _check_text(part, name, file.schema_arrow.field(name).type)
        at = 0
        for group in range(file.num_row_groups):
            group_at, at = at, at + file.metadata.row_group(group).num_rows
            if group_at >= end or at <= first:
                continue
            batch_at = group_at
            for batch in batches(file, BATCH_ROWS, _wanted(part), [group]):
                low, high = max(first - batch_at, 0), min(end - batch_at, batch.num_rows)
                if low < high:
                    yield batch.slice(low, high - low)
                batch_at += batch.num_rows


def _check_text(part: UrlListPart, name: str, kind: pa.DataType) -> None:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    if not any(is_it(inner) for is_it in (*texts, pa.types.is_binary, pa.types.is_large_binary)):
        raise InputError(f"{part.path}: column {name!r} holds {kind}, not text; choose another column or convert it")


def _csv_batches(part: UrlListPart, tally: Counter[str]) -> Iterator[pa.RecordBatch]:
    """The rows of a CSV (RFC 4180) or TSV (no quoting, as in CC3M and CC12M) file. Only an empty cell is null."""
    is_csv = part.format == "csv"

    def count(row: pa_csv.InvalidRow) -> str:
        tally["ragged_row"] += 1
        return "skip"

    read = pa_csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, column_names=list(part.column_names) or None)
    parse = pa_csv.ParseOptions(
        delimiter=DELIMITERS[part.format],
        quote_char='"' if is_csv else False,
        newlines_in_values=is_csv,
        invalid_row_handler=count,
    )
    # Columns are read as bytes, so that a bad byte costs a character and not the file.
    convert = pa_csv.ConvertOptions(
        include_columns=_wanted(part),
        column_types={name: pa.binary() for name in _wanted(part)},
        null_values=[""],
        strings_can_be_null=True,
    )
    with readable(part.path, FIELD, DAMAGE), open_stream(part.path, FIELD) as file:
        watched = QuoteWatch(file, part.path, BLOCK_BYTES) if is_csv else file
        yield from pa_csv.open_csv(watched, read, parse, convert)


def _json_batches(part: UrlListPart, tally: Counter[str]) -> Iterator[pa.RecordBatch]:
    """The objects of a JSON lines file, as columns; a line that is none is counted as bad_json."""
    with readable(part.path, FIELD, DAMAGE), open_stream(part.path, FIELD) as file:
        objects = _objects(file, tally)
        is_first = True
        while rows := list(islice(objects, BATCH_ROWS)):
            if is_first:
                check_columns(part, sorted({name for row in rows for name in row}))
                is_first = False
            columns = {name: [_as_bytes(row.get(name)) for row in rows] for name in _wanted(part)}
            yield pa.RecordBatch.from_pydict({name: pa.array(cells, pa.binary()) for name, cells in columns.items()})


def _objects(file: IO[bytes], tally: Counter[str]) -> Iterator[dict[str, Any]]:
    while line := file.readline(MAX_LINE_BYTES):
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            tally["too_long_line"] += 1
            while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            continue
        if not line.strip():
            continue
        try:
            # Bad bytes pass through json as surrogates and come out as they were, to be mended like everyone else's.
            value = json.loads(line.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            yield value
        else:
            tally["bad_json"] += 1


def _as_bytes(value: object) -> bytes | None:
    """A JSON value as the bytes of its text; numbers, lists and the like are no text, but not nothing either."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair, written as an escape
        return text.encode("utf-8", "replace")
