"""The source `url_list`: files of image URLs with captions, Parquet, CSV, TSV or JSON lines, to candidate rows."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from pydantic import Field
from upath import UPath

from pipeline.errors import InputError
from pipeline.parquet import batches, open_parquet
from pipeline.settings import Settings
from pipeline.sources.config import UrlListConfig
from pipeline.sources.csv_quotes import QuoteWatch
from pipeline.sources.files import expand, open_seekable, open_stream, readable, sha256_file
from pipeline.sources.rows import DATA_URL_CHARS, RowsWriter
from pipeline.stage import Counts, Stage

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
TEXT_KEY = "list"
BATCH_ROWS = 8_192
HEAD_BYTES = 1 << 17  # of text: a header line is at most as long
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")  # UTF-32 starts with one of them or with NULs
BLOCK_BYTES = 16 << 20  # of CSV and TSV: a row is at most as long
MAX_LINE_BYTES = 16 << 20  # of JSON lines

log = logging.getLogger(__name__)


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


def plan(config: UrlListConfig) -> list[UrlListPart]:
    """The parts of all lists, in order: `rows_per_part` rows of a Parquet file, or one whole text file, each.

    A text file tells its rows only by being read from the start; to spread a large one over tasks, split it or make it
    Parquet. Every file is read once for its checksum. A list that is absent, empty, unreadable, of unknown format or
    encoding, or does not have each column once (of JSON lines, the reader tells) is a part that fails and says so; where
    no list is any better, raises its InputError at once.
    """
    if not config.paths:
        raise InputError("source.url_list.paths is empty; name at least one file of pairs")
    paths = list(dict.fromkeys(path for pattern in config.paths for path in expand(pattern, FIELD)))
    names = Counter(map(_name, paths))
    parts: list[UrlListPart] = []
    first_error: InputError | None = None
    for path in paths:
        # Files of one name in several folders go by their whole path, for a source must be one file.
        source = _name(path) if names[_name(path)] == 1 else path
        try:
            parts += _plan_file(path, source, config)
        except InputError as error:
            first_error = first_error or error
            parts.append(_part(path, source, "", "parquet", config).model_copy(update={"refused": str(error)}))
    if first_error and all(part.refused for part in parts):
        raise first_error
    return parts


def read_url_list(sources: Sequence[UPath], out: Path, part: UrlListPart) -> Counts:
    """Write `rows.parquet` of one part (`sources` is empty: the part names its file and holds its checksum)."""
    if part.refused:
        raise InputError(part.refused)
    tally: Counter[str] = Counter()  # rows dropped, by reason
    mended: Counter[str] = Counter()  # values changed, by reason
    reader = {"parquet": _parquet_batches, "csv": _csv_batches, "tsv": _csv_batches, "jsonl": _json_batches}[
        part.format
    ]
    with RowsWriter(out, f"url_list:{part.source}", part.first_row) as writer:
        for batch in reader(part, tally):
            writer.append(_columns(batch, part, mended))
    if writer.rows == 0:
        unread = f" that can be read ({_told(tally)})" if tally else ""
        raise InputError(f"{part.path}: holds no row{unread}; remove it from {FIELD} or mend it")
    if tally or mended:
        log.warning("%s: %d rows; dropped: %s; values mended: %s", part.path, writer.rows, _told(tally), _told(mended))
    return Counts(rows_in=writer.rows + tally.total(), rows_kept=writer.rows, dropped=dict(sorted(tally.items())))


URL_LIST = Stage("url_list", read_url_list, version=3)


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items())) or "none"


def _name(path: str) -> str:
    return str(UPath(path).name)


def _plan_file(path: str, source: str, config: UrlListConfig) -> list[UrlListPart]:
    file_format = _format(path) if config.format == "auto" else config.format
    part = _part(path, source, sha256_file(path, FIELD), file_format, config)
    if file_format != "parquet":
        _check_text_file(part)
        return [part]
    with _open_parquet(path) as file:
        _check_columns(part, file.schema_arrow.names)
        rows = file.metadata.num_rows
    if rows == 0:
        raise InputError(f"{path}: holds no rows; remove it from source.url_list.paths")
    starts = range(0, rows, config.rows_per_part)
    ranges = [(start, min(config.rows_per_part, rows - start)) for start in starts]
    return [part.model_copy(update={"first_row": start, "row_count": count}) for start, count in ranges]


def _part(path: str, source: str, sha256: str, file_format: Format, config: UrlListConfig) -> UrlListPart:
    return UrlListPart(
        path=path,
        source=source,
        sha256=sha256,
        format=file_format,
        url_column=config.url_column,
        caption_column=config.caption_column,
        page_url_column=config.page_url_column,
        column_names=config.column_names,
        first_row=0,
        row_count=None,
    )


def _format(path: str) -> Format:
    endings = [ending.lower() for ending in UPath(path.partition("?")[0]).suffixes]
    while endings and endings[-1] in COMPRESSED_ENDINGS:
        endings.pop()
    found = FORMATS_OF_ENDINGS.get(endings[-1] if endings else "")
    if found is None:
        known = " ".join(sorted(FORMATS_OF_ENDINGS))
        raise InputError(f"{path}: its ending tells no format (known: {known}); set source.url_list.format")
    return found


def _check_text_file(part: UrlListPart) -> None:
    """Raise InputError if the start of a text file is not UTF-8, or a column is not in its header line."""
    with readable(part.path, FIELD, DAMAGE), open_stream(part.path, FIELD) as file:
        head = file.read(HEAD_BYTES)
    if head.startswith(UTF16_MARKS) or b"\0" in head[:4]:
        raise InputError(f"{part.path}: is UTF-16 or no text at all; save it as UTF-8, or check {FIELD}")
    if part.format == "jsonl":
        return
    if not head.strip():
        raise InputError(f"{part.path}: is empty; remove it from {FIELD}")
    _check_columns(part, part.column_names or _header(part, head))


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


def _check_columns(part: UrlListPart, present: Sequence[str]) -> None:
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
def _open_parquet(path: str) -> Iterator[pq.ParquetFile]:
    with readable(path, FIELD, DAMAGE), open_seekable(path, FIELD) as file, open_parquet(file) as parquet:
        yield parquet


def _parquet_batches(part: UrlListPart, tally: Counter[str]) -> Iterator[pa.RecordBatch]:
    """The part's rows, reading only the row groups that hold some of them."""
    first, end = part.first_row, part.first_row + (part.row_count or 0)
    with _open_parquet(part.path) as file:
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
                _check_columns(part, sorted({name for row in rows for name in row}))
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


def _columns(batch: pa.RecordBatch, part: UrlListPart, mended: Counter[str]) -> dict[str, pa.Array]:
    url = _as_text(batch[part.url_column], mended)
    is_data = pc.starts_with(url, "data:", ignore_case=True)
    columns = {
        "url": pc.if_else(is_data, pc.utf8_slice_codeunits(url, 0, DATA_URL_CHARS), url),
        "caption_raw": _as_text(batch[part.caption_column], mended),
        "text_key": pa.repeat(pa.scalar(TEXT_KEY), len(url)),
    }
    if part.page_url_column:
        columns["page_url"] = _as_text(batch[part.page_url_column], mended)
    return columns


def _as_text(array: pa.Array, mended: Counter[str]) -> pa.Array:
    """A column as strings; bytes that are no UTF-8 become U+FFFD, and the values that had some are counted."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    try:
        text = array.cast(pa.string())
        text.validate(full=True)
        return text
    except pa.ArrowInvalid:
        values = array.cast(pa.binary()).to_pylist()
    texts = [None if value is None else value.decode("utf-8", "replace") for value in values]
    pairs = zip(texts, values, strict=True)
    mended["invalid_utf8"] += sum(text is not None and text.encode() != value for text, value in pairs)
    return pa.array(texts, pa.string())
