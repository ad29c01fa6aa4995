"""A WAT record read: the JSON that Common Crawl made of a page, with every `<img src>` of it and its alt and title.

A WAT file is a tenth of its WARC and needs no HTML parser, but knows neither srcset, nor lazy images, nor captions. Its
form is that of commoncrawl/ia-web-commons (ExtractingParseObserver, HTMLMetaData): a repeated HTTP header is a list,
`Head.Base` the base, `Head.Metas` the metas, and `Links` the links, an image being
`{"path": "IMG@/src", "url": ..., "alt": ..., "title": ...}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import orjson

from pipeline.sources.archive import Record
from pipeline.sources.archive_page import TDM_RESERVATION, ArchivePage, PageError, language_hints, page_opt_out
from pipeline.sources.base_url import BaseUrl
from pipeline.sources.page import ImageText
from pipeline.sources.robots import directives

IMAGE_PATH = "IMG@/src"
TEXT_KEYS = ("alt", "title")
IMAGE_MARK = b'"IMG@/src"'
IMAGE_START = b'{"path":"IMG@/src"'
LINKS_START = b'"Links":[{'
DOUBTFUL = b"\\:,"  # before `"}`: the quotation mark may be an escaped one, or the first of a string
ESCAPED_IMAGE_MARK = b'"IMG@\\/src"'  # some JSON writers escape the slash
LANGUAGE_METAS = ("html@/lang", "html@/xml:lang")  # in lower case

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_IMAGE = re.compile(rb'\{"path":"IMG@/src"(?:,%(s)s:%(s)s)*+\}' % {b"s": _STRING}, re.DOTALL)


def read_wat(record: Record, token: str) -> ArchivePage | None:
    """The page of a WAT metadata record, None if it is none or has no images. Raises PageError if it cannot be read."""
    body = record.body
    if IMAGE_MARK not in body and ESCAPED_IMAGE_MARK not in body:
        return None
    value = _parse(_without_other_links(body))
    payload = _at(value, "Envelope", "Payload-Metadata", "HTTP-Response-Metadata")
    if not payload:
        return None
    _check_status(payload)
    url = _address(record, value)
    base = BaseUrl(url, _text(_at(payload, "HTML-Metadata", "Head").get("Base")))
    links = _at(payload, "HTML-Metadata").get("Links")
    rows: list[ImageText] = []
    textless = 0
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("path") == IMAGE_PATH:
            found = _rows(link, base) if link.get("alt") or link.get("title") else ()
            textless += not found
            rows += found
    return _page(record, value, tuple(rows), textless, token)


def _without_other_links(body: bytes) -> bytes:
    """The JSON less the links before its last image that are no images, most of it, so that it parses in less time.

    A quotation mark within a JSON string is always escaped, so `{"path":"IMG@/src"` can stand there only as what it
    looks like, the start of an image's link, and the last `"Links":[{` before the first one as that of their list. Where
    a record is not written as Common Crawl writes them (white space between tokens, `path` not first) it stays whole.
    """
    at = body.find(IMAGE_START)
    start = body.rfind(LINKS_START, 0, max(at, 0) + 1)
    if start < 0:
        return body
    links: list[bytes] = []
    end = 0
    while at >= 0:
        end = _end_of_link(body, at)
        if end < 0:
            return body
        links.append(body[at:end])
        at = body.find(IMAGE_START, end)
    return b"".join((body[: start + len(LINKS_START) - 1], b",".join(links), body[end:]))


def _end_of_link(body: bytes, at: int) -> int:
    """Where the image's link that starts at `at` ends, or -1."""
    end = body.find(b'"}', at)
    if end >= 0 and body[end - 1] not in DOUBTFUL:
        return end + 2
    found = _IMAGE.match(body, at)
    return found.end() if found else -1


def _parse(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        value = _parse_mended(body, error)
    if not isinstance(value, dict):
        raise PageError("bad_json", "no object")
    return value


def _parse_mended(body: bytes, error: ValueError) -> object:
    """Bytes that are no UTF-8 and halves of surrogate pairs, which orjson refuses, cost a character, not the page."""
    try:
        value = json.loads(body.decode("utf-8", "replace"))
        return orjson.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        raise PageError("bad_json", str(error)) from error


def _at(value: object, *path: str) -> dict[str, Any]:
    """The object at a path, empty where there is none."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _check_status(payload: dict[str, Any]) -> None:
    status = str(_at(payload, "Response-Message").get("Status") or "")
    if status and not status.startswith("2"):
        raise PageError("bad_status", f"status {status[:20]}")


def _address(record: Record, value: dict[str, Any]) -> str:
    url = record.url or _text(_at(value, "Envelope", "WARC-Header-Metadata").get("WARC-Target-URI"))
    if not url:
        raise PageError("no_url", "the page has no address")
    return url


def _rows(link: dict[str, Any], base: BaseUrl) -> list[ImageText]:
    image = _text(link.get("url"))
    url = base.resolve(image) if image and not image.isspace() else None
    texts = ((key, link.get(key)) for key in TEXT_KEYS)
    return [ImageText(url, text, key) for key, text in texts if isinstance(text, str) and text and not text.isspace()]


def _page(record: Record, value: dict[str, Any], rows: tuple[ImageText, ...], textless: int, token: str) -> ArchivePage:
    if not rows:
        return ArchivePage(record.url, (), textless, None, None, "", "", None)
    payload = _at(value, "Envelope", "Payload-Metadata", "HTTP-Response-Metadata")
    headers = _by_name(_at(payload, "Headers"), ("x-robots-tag", TDM_RESERVATION, "content-language"))
    metas = _metas(
        _at(payload, "HTML-Metadata", "Head").get("Metas"), ("robots", token, TDM_RESERVATION, *LANGUAGE_METAS)
    )
    robots = directives(headers["x-robots-tag"], token) | directives([*metas["robots"], *metas[token]], token)
    reserved = headers[TDM_RESERVATION] + metas[TDM_RESERVATION]
    languages = [*headers["content-language"], *(value for name in LANGUAGE_METAS for value in metas[name])]
    container, warc_header = _at(value, "Container"), _at(value, "Envelope", "WARC-Header-Metadata")
    offset = str(container.get("Offset"))
    return ArchivePage(
        url=_address(record, value),
        rows=rows,
        textless=textless,
        opt_out=page_opt_out(robots, reserved),
        languages=language_hints(*languages),
        fetch_time=_text(warc_header.get("WARC-Date")) or record.date,
        warc_file=_text(container.get("Filename")) or "",
        warc_offset=int(offset) if offset.isdigit() and len(offset) < 19 else None,
    )


def _by_name(headers: dict[str, Any], wanted: Sequence[str]) -> dict[str, list[str]]:
    """The values of the wanted headers, by lower-case name."""
    found: dict[str, list[str]] = {name: [] for name in wanted}
    for name, value in headers.items():
        if name.lower() in found:
            values = value if isinstance(value, list) else [value]
            found[name.lower()] += [item for item in values if isinstance(item, str)]
    return found


def _metas(metas: object, wanted: Sequence[str]) -> dict[str, list[str]]:
    """The `content`s of the page's wanted metas, by lower-case name."""
    found: dict[str, list[str]] = {name: [] for name in wanted}
    for meta in metas if isinstance(metas, list) else ():
        name = meta.get("name") if isinstance(meta, dict) else None
        if isinstance(name, str) and (name := name.strip().lower()) in found:
            content = meta.get("content")
            found[name] += [content] if isinstance(content, str) else []
    return found
