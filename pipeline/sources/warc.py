"""A WARC response record read: the page itself, with srcset, lazy images and captions, which a WAT does not know."""

from __future__ import annotations

import re

from pipeline.sources.archive import Record
from pipeline.sources.archive_page import TDM_RESERVATION, ArchivePage, PageError, language_hints, page_opt_out
from pipeline.sources.lexbor_page import HostilePageError, read_lexbor_page

HTML_TYPES = ("text/html", "application/xhtml+xml")

# "<img" or "<image", which HTML reads as the same, in any case and also in UTF-16.
_IMAGE_START = re.compile(rb"<\x00?[iI]\x00?[mM]")


def read_response(record: Record, warc_file: str, token: str) -> ArchivePage | None:
    """The page of a response record, None if it is no HTML or has no images. Raises PageError if it cannot be read."""
    if record.http_status is None:
        return None
    headers: dict[str, list[str]] = {}
    for name, value in record.http_headers:
        headers.setdefault(name.lower(), []).append(value)
    if not _is_html(headers.get("content-type", [])) or not _may_hold_images(record.body):
        return None
    if not 200 <= record.http_status < 300:
        raise PageError("bad_status", f"status {record.http_status}")
    if not record.url:
        raise PageError("no_url", "the page has no address")
    try:
        read = read_lexbor_page(record.body, record.url, record.http_headers, token, with_links=False)
    except HostilePageError as error:
        raise PageError("hostile_page", str(error)) from error
    rows = tuple(row for row in read.page.rows if row.caption_raw is not None)
    reserved = headers.get(TDM_RESERVATION, []) + read.meta.get(TDM_RESERVATION, [])
    return ArchivePage(
        url=record.url,
        rows=rows,
        textless=len(read.page.rows) - len(rows),
        opt_out=page_opt_out(frozenset((read.page.opt_out or "").split(",")), reserved),
        languages=language_hints(*headers.get("content-language", []), read.html_language),
        fetch_time=record.date,
        warc_file=warc_file,
        warc_offset=record.offset,
    )


def _is_html(content_types: list[str]) -> bool:
    if not content_types:
        return True  # the reader finds out
    return content_types[0].partition(";")[0].strip().lower() in HTML_TYPES


def _may_hold_images(body: bytes) -> bool:
    return b"<img" in body or _IMAGE_START.search(body) is not None
