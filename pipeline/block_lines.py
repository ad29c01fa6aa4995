"""The lines of a block list's file, each in normal form or with the reason why it cannot be used."""

from __future__ import annotations

import csv
import logging
import lzma
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import IO, Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from pipeline.block_entries import NORMAL, ListName
from pipeline.errors import InputError
from pipeline.parquet import batches, open_parquet
from pipeline.settings import Settings
from pipeline.sources.files import open_seekable, open_stream
from pipeline.sources.rows import TableWriter

BATCH_ROWS = 16_384
CHUNK_BYTES = 1 << 20
MAX_LINE_BYTES = 16_384  # no entry is longer
MAX_ROW_BYTES = 1 << 20  # of CSV, whose other columns may be long
SHOWN_CHARS = 200  # of a line that cannot be used
BOM = b"\xef\xbb\xbf"

Format = Literal["text", "CSV", "Parquet"]
FORMATS: dict[ListName, tuple[Format, ...]] = {
    "hosts": ("text",),
    "urls": ("text",),
    "words": ("text",),
    "tombstones": ("text", "CSV", "Parquet"),
    "scores": ("Parquet",),
    "sha256": ("text",),
    "hashes": ("text",),
}
_FORMATS_OF_ENDINGS: dict[str, Format] = {"csv": "CSV", "parquet": "Parquet", "pq": "Parquet"}  # others are text
_COMPRESSED = re.compile(r"\.(?:gz|bz2|xz|zst|zip)$")
KEY_COLUMNS = ("pair_id", "url")
HARMLESS = frozenset(("empty", "comment"))  # what a list may hold beside its entries

LINES_SCHEMA = pa.schema(
    [
        ("list", pa.string()),
        ("key", pa.string()),  # what `value` is: host, url, word, pair_id, md5 or sha256
        ("value", pa.string()),  # in normal form; of a line that cannot be used, its start
        ("score", pa.float64()),
        ("file", pa.string()),
        ("line", pa.int64()),  # from 1; of Parquet the number of the row
        ("drop_reason", pa.string()),  # empty, comment, too_long, not_utf8, invalid; null = in use
    ]
)

log = logging.getLogger(__name__)


class BlockFile(Settings):
    """One file of a list."""

    name: ListName
    path: str
    sha256: str = Field(description="Of the file: what the stage's identity hangs on, for it has no other source")

    @property
    def option(self) -> str:
        """The setting that names the file."""
        return option_of(self.name)


class Found(NamedTuple):
    """What stands in a line, before anyone looks at it; `reason` = it is no entry."""

    line: int
    raw: bytes | str | None
    score: float | None = None
    reason: str | None = None


class Line(NamedTuple):
    """A line as the table holds it, less list and file."""

    key: str | None
    value: str
    score: float | None
    line: int
    drop_reason: str | None


def option_of(name: ListName) -> str:
    """The setting that names the files of a list. Hashes are those of images, which only the download sees."""
    return {"hashes": "download.block_hashes", "sha256": "--sha256"}.get(name, f"block.{name}")


def check_format(name: ListName, path: str, option: str) -> None:
    """Raise InputError if the list takes no files of the format that the ending of `path` tells."""
    if _format(path) not in FORMATS[name]:
        takes = " or ".join(FORMATS[name])
        raise InputError(f"{path}: {option} takes {takes}, this is {_format(path)} by its ending; convert it")


def write_lines(file: BlockFile, score_column: str, writer: TableWriter) -> None:
    """Append every line of a file (LINES_SCHEMA). Raises InputError if it cannot be read or all of its entries are unusable."""
    used = 0
    unusable: Counter[str] = Counter()
    first: dict[str, int] = {}
    batch: list[Line] = []
    for line in _read(file, score_column):
        if line.drop_reason is None:
            used += 1
        elif line.drop_reason not in HARMLESS:
            unusable[line.drop_reason] += 1
            first.setdefault(line.drop_reason, line.line)
        batch.append(line)
        if len(batch) == BATCH_ROWS:
            writer.write(_table(file, batch))
            batch = []
    writer.write(_table(file, batch))
    told = ", ".join(f"{lines:,} {reason} (first: line {first[reason]:,})" for reason, lines in unusable.items())
    if unusable and not used:
        raise InputError(
            f"{file.path}: no line can be used as an entry of {file.option}: {told}; is it the right file?"
        )
    if unusable:
        log.warning("%s: %d entries of %s; cannot be used: %s", file.path, used, file.option, told)


def _table(file: BlockFile, lines: Sequence[Line]) -> pa.Table:
    columns: dict[str, Any] = dict(zip(Line._fields, zip(*lines, strict=True), strict=True)) if lines else {}
    constants = {"list": file.name, "file": file.path}
    arrays = [
        pa.repeat(pa.scalar(constants[field.name]), len(lines))
        if field.name in constants
        else pa.array(columns.get(field.name, ()), field.type)
        for field in LINES_SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=LINES_SCHEMA)


def _format(path: str) -> Format:
    name = _COMPRESSED.sub("", path.partition("?")[0].lower())
    return _FORMATS_OF_ENDINGS.get(name.rpartition(".")[2], "text")


def _read(file: BlockFile, score_column: str) -> Iterator[Line]:
    file_format = _format(file.path)
    try:
        if file_format == "Parquet":
            with open_seekable(file.path, file.option) as stream, open_parquet(stream) as parquet:
                column = score_column if file.name == "scores" else None
                yield from (_judge(file.name, found) for found in _parquet_rows(file, parquet, column))
            return
        with open_stream(file.path, file.option) as stream:
            rows = _csv_rows(file, stream) if file_format == "CSV" else _text_lines(stream)
            yield from (_judge(file.name, found) for found in rows)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException, csv.Error) as error:
        raise InputError(
            f"{file.path}: cannot be read: {error}; mend or fetch it again, or check {file.option}"
        ) from error


def _lines(stream: IO[bytes], limit: int) -> Iterator[bytes]:
    """The lines without their line feeds; one that is longer than `limit` bytes may be cut, but not to so few."""
    rest = b""
    is_first = True
    while chunk := stream.read(CHUNK_BYTES):
        if is_first:
            chunk, is_first = chunk.removeprefix(BOM), False
        *whole, rest = (rest + chunk).split(b"\n")
        rest = rest[: limit + 1]
        yield from whole
    if rest:
        yield rest


def _text_lines(stream: IO[bytes]) -> Iterator[Found]:
    for number, line in enumerate(_lines(stream, MAX_LINE_BYTES), start=1):
        entry = line.strip()
        if entry.startswith(b"#"):
            yield Found(number, entry[: 4 * SHOWN_CHARS], reason="comment")
        elif len(line) > MAX_LINE_BYTES:
            yield Found(number, line[: 4 * SHOWN_CHARS], reason="too_long")
        else:
            yield Found(number, _COMMENT.split(entry, maxsplit=1)[0] if b"#" in entry else entry)


_COMMENT = re.compile(rb"\s#")


def _csv_rows(file: BlockFile, stream: IO[bytes]) -> Iterator[Found]:
    """The cells of the key columns.

    A CSV file is read whole or refused, for a quote that is never closed may hide what is to be taken down.
    """
    rows = csv.reader(_csv_lines(stream), strict=True)
    names = [name.strip() for name in next(rows, [])]
    columns = [names.index(name) for name in _key_columns(file, names)]
    for row in rows:
        if len(row) == len(names):
            cell = next((row[column] for column in columns if row[column].strip()), "")
            yield Found(rows.line_num, cell.encode("utf-8", "surrogateescape"))
        elif not "".join(row).strip():
            yield Found(rows.line_num, None)
        else:
            yield Found(rows.line_num, ",".join(row).encode("utf-8", "surrogateescape"), reason="invalid")


def _csv_lines(stream: IO[bytes]) -> Iterator[str]:
    for line in _lines(stream, MAX_ROW_BYTES):
        if len(line) > MAX_ROW_BYTES:
            raise csv.Error(f"a row is longer than {MAX_ROW_BYTES:,} bytes")
        # Bad bytes pass through the reader as surrogates and come out as they were.
        yield line.decode("utf-8", "surrogateescape") + "\n"


def _key_columns(file: BlockFile, names: Sequence[str]) -> list[str]:
    columns = [name for name in KEY_COLUMNS if name in names]
    if not columns:
        present = ", ".join(map(repr, names)) or "no columns"
        raise InputError(
            f"{file.path}: has neither a column 'pair_id' nor 'url', but {present}; rename one ({file.option})"
        )
    return columns


def _parquet_rows(file: BlockFile, parquet: pq.ParquetFile, score_column: str | None) -> Iterator[Found]:
    names = parquet.schema_arrow.names
    keys = _key_columns(file, names)
    if score_column is not None and score_column not in names:
        present = ", ".join(map(repr, names))
        raise InputError(f"{file.path}: has no column {score_column!r}, it has {present}; set block.score_column")
    line = 0
    for batch in batches(parquet, BATCH_ROWS, [*keys, *filter(None, [score_column])]):
        columns = [_texts(file, name, batch[name]) for name in keys]
        scores = [None] * len(batch) if score_column is None else _numbers(file, score_column, batch[score_column])
        for *cells, score in zip(*columns, scores, strict=True):
            line += 1
            yield Found(line, next((cell for cell in cells if cell), None), score)


def _texts(file: BlockFile, name: str, column: pa.Array) -> list[bytes | str | None]:
    values: list[Any] = column.to_pylist()
    if any(not isinstance(value, str | bytes | None) for value in values):
        raise InputError(f"{file.path}: column {name!r} holds {column.type}, not text; convert it ({file.option})")
    return values


def _numbers(file: BlockFile, name: str, column: pa.Array) -> list[float | None]:
    is_number = pa.types.is_floating(column.type) or pa.types.is_integer(column.type)
    if not is_number:
        raise InputError(f"{file.path}: column {name!r} holds {column.type}, not numbers; set block.score_column")
    values: list[float | None] = column.cast(pa.float64(), safe=False).to_pylist()
    return values


def _judge(name: ListName, found: Found) -> Line:
    text, is_utf8 = _decode(found.raw or "")
    normal = NORMAL[name](text)
    is_scored = name != "scores" or (found.score is not None and not math.isnan(found.score))
    reason = found.reason
    if reason is None:
        reason = "not_utf8" if not is_utf8 else "empty" if not text else None
    if reason is None and normal is not None and is_scored:
        return Line(*normal, found.score, found.line, None)
    return Line(None, text[:SHOWN_CHARS], None, found.line, reason or "invalid")


def _decode(raw: bytes | str) -> tuple[str, bool]:
    """A cell as text without the blanks round it, and whether it was UTF-8."""
    if isinstance(raw, str):
        return raw.strip(), True
    try:
        return raw.decode().strip(), True
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace").strip(), False
