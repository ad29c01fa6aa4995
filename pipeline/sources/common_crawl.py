"""The source `common_crawl`: files of a Common Crawl snapshot, WAT or WARC, to candidate rows. One file is one part."""

from __future__ import annotations

import gzip
import hashlib
import logging
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
from fastwarc.warc import WarcRecordType
from pydantic import Field
from upath import UPath

from pipeline.errors import InputError
from pipeline.settings import Settings
from pipeline.sources.archive import Losses, read_records
from pipeline.sources.archive_page import ArchivePage, PageError
from pipeline.sources.config import ArchiveKind, CommonCrawlConfig
from pipeline.sources.files import expand, is_remote, open_seekable, sha256_file
from pipeline.sources.rows import RowsWriter, TableWriter
from pipeline.sources.warc import read_response
from pipeline.sources.wat import read_wat
from pipeline.stage import Counts, Stage

PAGES_FILE = "pages.parquet"
PAGES_SCHEMA = pa.schema(
    [
        ("page_url", pa.string()),
        ("rows", pa.int64()),  # of rows.parquet; they stand there in the order of the pages here
        ("opt_out", pa.string()),
        ("languages", pa.string()),  # hints: Content-Language and <html lang>, comma-joined
        ("fetch_time", pa.string()),
        ("warc_file", pa.string()),
        ("warc_offset", pa.int64()),
    ]
)
BATCH_ROWS = 8_192
FIELD = "source.common_crawl.paths"
MAX_LISTING_BYTES = 100 << 20  # a listing holds about 100,000 names

log = logging.getLogger(__name__)


class CommonCrawlPart(Settings):
    """One file, which one task reads."""

    kind: ArchiveKind
    path: str
    sha256: str | None = Field(
        description="Of a local file; a published one never changes, so its address is its identity"
    )
    max_record_bytes: int
    user_agent_token: str


def plan(config: CommonCrawlConfig) -> list[CommonCrawlPart]:
    """The parts, one per file: those of `paths` in their order, else those chosen of the snapshot, as it lists them.

    Raises InputError if a file or the listing is not there, or neither is named.
    """
    if config.paths:
        paths = [path for pattern in config.paths for path in expand(pattern, FIELD)]
    elif config.snapshot:
        paths = _choose(config)
    else:
        raise InputError(
            "source.common_crawl: neither paths nor snapshot is set; name files, or a snapshot of commoncrawl.org"
        )
    return [
        CommonCrawlPart(
            kind=config.kind,
            path=path,
            sha256=None if is_remote(path) else sha256_file(path, FIELD),
            max_record_bytes=config.max_record_bytes,
            user_agent_token=config.user_agent_token,
        )
        for path in paths
    ]


def read_common_crawl(sources: Sequence[UPath], out: Path, part: CommonCrawlPart) -> Counts:
    """Write `rows.parquet` and `pages.parquet` of one part (`sources` is empty: the part names its file).

    Images without a text are most of the web's and no pairs: they are counted as `no_text`, not written. What cannot be
    read is counted by reason and logged with its place; a file in which nothing can be read raises InputError.
    """
    name = UPath(part.path).name
    losses = Losses(part.path)
    textless = 0
    with (
        RowsWriter(out, f"common_crawl:{name}") as rows,
        TableWriter(out / PAGES_FILE, PAGES_SCHEMA) as page_table,
        open_seekable(part.path, FIELD) as file,
    ):
        for pages in _batches(_pages(file, name, part, losses)):
            textless += sum(page.textless for page in pages)
            with_rows = [page for page in pages if page.rows]
            if with_rows:
                rows.append(_columns(with_rows))
                page_table.write(_page_rows(with_rows))
    dropped = {**losses.counts, **({"no_text": textless} if textless else {})}
    if losses.counts:
        told = ", ".join(f"{count} {reason}" for reason, count in sorted(losses.counts.items()))
        log.warning("%s: %d rows; lost: %s", part.path, rows.rows, told)
    return Counts(rows_in=rows.rows + sum(dropped.values()), rows_kept=rows.rows, dropped=dict(sorted(dropped.items())))


COMMON_CRAWL = Stage("common_crawl", read_common_crawl)


def _pages(file: IO[bytes], name: str, part: CommonCrawlPart, losses: Losses) -> Iterator[ArchivePage]:
    kind = WarcRecordType.metadata if part.kind == "wat" else WarcRecordType.response
    token = part.user_agent_token.lower()
    is_of_kind = False
    for record in read_records(file, kind, part.max_record_bytes, losses):
        # A WARC has records of metadata as well, which are no JSON.
        is_of_kind = is_of_kind or part.kind == "warc" or record.body.startswith(b"{")
        try:
            page = read_wat(record, token) if part.kind == "wat" else read_response(record, name, token)
        except PageError as error:
            losses.add(error.reason, record.offset, str(error))
            continue
        if page is not None:
            yield page
    if not is_of_kind and not losses.counts:
        other = "wat" if part.kind == "warc" else "warc"
        raise InputError(
            f"{part.path}: holds records, but none of a {part.kind.upper()} file; if it is a {other.upper()} file, set "
            f"source.common_crawl.kind to {other}"
        )


def _batches(pages: Iterator[ArchivePage]) -> Iterator[list[ArchivePage]]:
    """Whole pages, until they hold a batch of rows."""
    batch: list[ArchivePage] = []
    size = 0
    for page in pages:
        batch.append(page)
        size += len(page.rows) + 1
        if size >= BATCH_ROWS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _columns(pages: list[ArchivePage]) -> dict[str, pa.Array]:
    columns: dict[str, list[str | None]] = {
        "url": [row.url for page in pages for row in page.rows],
        "caption_raw": [row.caption_raw for page in pages for row in page.rows],
        "text_key": [row.text_key for page in pages for row in page.rows],
        "page_url": [page.url for page in pages for _ in page.rows],
        "page_opt_out": [page.opt_out for page in pages for _ in page.rows],
    }
    return {name: pa.array(values, pa.string()) for name, values in columns.items()}


def _page_rows(pages: list[ArchivePage]) -> pa.Table:
    columns: list[list[Any]] = [
        [page.url for page in pages],
        [len(page.rows) for page in pages],
        [page.opt_out for page in pages],
        [page.languages for page in pages],
        [page.fetch_time for page in pages],
        [page.warc_file for page in pages],
        [page.warc_offset for page in pages],
    ]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, PAGES_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=PAGES_SCHEMA)


def _choose(config: CommonCrawlConfig) -> list[str]:
    """The files of the snapshot whose hash of (seed, name) is smallest, in the order of the listing."""
    listing = f"{config.base_url.rstrip('/')}/crawl-data/{config.snapshot}/{config.kind}.paths.gz"
    names = _read_listing(listing)
    if config.files:
        ranked = sorted(names, key=lambda name: hashlib.sha256(f"{config.seed}\n{name}".encode()).digest())
        chosen = set(ranked[: config.files])
        names = [name for name in names if name in chosen]
    return [f"{config.base_url.rstrip('/')}/{name}" for name in names]


def _read_listing(path: str) -> list[str]:
    with open_seekable(path, FIELD) as file:
        try:
            text = gzip.GzipFile(fileobj=file).read(MAX_LISTING_BYTES).decode()
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise InputError(
                f"{path}: is no listing of Common Crawl ({error}); check source.common_crawl.base_url"
            ) from error
    names = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if not names:
        raise InputError(f"{path}: names no file; check source.common_crawl.snapshot")
    return names
