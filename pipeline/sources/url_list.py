"""The source `url_list`: files of image URLs with captions, Parquet, CSV, TSV or JSON lines, to candidate rows."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from upath import UPath

from pipeline.errors import InputError
from pipeline.sources.config import UrlListConfig
from pipeline.sources.files import expand, sha256_file
from pipeline.sources.list_part import (
    FIELD,
    Format,
    UrlListPart,
    check_columns,
    check_text_file,
    format_of,
    open_parquet_list,
    read_batches,
)
from pipeline.sources.rows import DATA_URL_CHARS, RowsWriter
from pipeline.stage import Counts, Stage

TEXT_KEY = "list"

log = logging.getLogger(__name__)


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
    with RowsWriter(out, f"url_list:{part.source}", part.first_row) as writer:
        for batch in read_batches(part, tally):
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
    file_format = format_of(path) if config.format == "auto" else config.format
    part = _part(path, source, sha256_file(path, FIELD), file_format, config)
    if file_format != "parquet":
        check_text_file(part)
        return [part]
    with open_parquet_list(path) as file:
        check_columns(part, file.schema_arrow.names)
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
