"""Writes small WARC and WAT files, for the tests and the benchmark of Common Crawl."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from typing import Any

from lxml import etree
from lxml import html as lxml_html

DATE = "2024-05-18T01:58:10Z"
HTML_HEADERS = (("Content-Type", "text/html; charset=utf-8"),)


def member(
    kind: str, url: str, body: bytes, content_type: str = "application/http; msgtype=response", **headers: str
) -> bytes:
    """One record, as a gzip member."""
    return gzip.compress(plain_record(kind, url, body, content_type, **headers), 6, mtime=0)


def plain_record(kind: str, url: str, body: bytes, content_type: str, **headers: str) -> bytes:
    fields = {
        "WARC-Type": kind,
        "WARC-Target-URI": url,
        "WARC-Date": DATE,
        "WARC-Record-ID": "<urn:uuid:00000000-0000-0000-0000-000000000000>",
        "Content-Type": content_type,
        "Content-Length": str(len(body)),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    return b"WARC/1.0\r\n" + head.encode() + b"\r\n" + body + b"\r\n\r\n"


def warcinfo() -> bytes:
    return member("warcinfo", "", b"software: test\r\n", "application/warc-fields")


def response(url: str, page: bytes, headers: Sequence[tuple[str, str]] = HTML_HEADERS, status: str = "200 OK") -> bytes:
    """A response record, as a gzip member."""
    head = f"HTTP/1.1 {status}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers) + "\r\n"
    return member("response", url, head.encode() + page)


def request(url: str) -> bytes:
    body = b"GET / HTTP/1.1\r\nUser-Agent: test\r\n\r\n"
    return member("request", url, body, "application/http; msgtype=request")


def wat(url: str, value: object) -> bytes:
    """A metadata record that holds a JSON value (or, given bytes, these), as a gzip member."""
    body = value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return member("metadata", url, body, "application/json")


def wat_value(
    url: str,
    links: Iterable[object],
    headers: Sequence[tuple[str, str]] = HTML_HEADERS,
    head: dict[str, Any] | None = None,
    offset: int = 1_023,
) -> dict[str, Any]:
    """The JSON of a response as ia-web-commons writes it: a repeated header is a list."""
    joined: dict[str, Any] = {}
    for name, value in headers:
        if name in joined:
            first = joined[name]
            joined[name] = [*(first if isinstance(first, list) else [first]), value]
        else:
            joined[name] = value
    html_metadata: dict[str, Any] = {"Links": list(links)}
    if head:
        html_metadata = {"Head": head, **html_metadata}
    return {
        "Container": {"Filename": "CC-MAIN-0.warc.gz", "Compressed": True, "Offset": str(offset)},
        "Envelope": {
            "Payload-Metadata": {
                "Actual-Content-Type": "application/http; msgtype=response",
                "HTTP-Response-Metadata": {
                    "Response-Message": {"Status": "200", "Version": "HTTP/1.1", "Reason": "OK"},
                    "Headers-Length": "500",
                    "Headers": joined,
                    "HTML-Metadata": html_metadata,
                },
            },
            "Format": "WARC/1.0",
            "WARC-Header-Metadata": {"WARC-Type": "response", "WARC-Date": DATE, "WARC-Target-URI": url},
        },
    }


LINKS = {
    "a": ("href", "title", "rel", "hreflang"),
    "img": ("src", "alt", "title"),
    "form": ("action", "method"),
    "iframe": ("src",),
    "input": ("src",),
    "source": ("src",),
    "video": ("src",),
}
HEAD_LINKS = {"link": ("Link", "href", "rel", "type"), "script": ("Scripts", "src", "type")}


def wat_value_of_page(url: str, page: bytes, headers: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What ia-web-commons would write of a (well-formed, UTF-8) page: every link of it, in the order of the page."""
    root = lxml_html.document_fromstring(page, parser=etree.HTMLParser(encoding="utf-8"))
    head: dict[str, Any] = {}
    links: list[dict[str, str]] = []
    for element in root.iter(etree.Element):
        if element.tag in LINKS:
            links += _link(element, *LINKS[element.tag])
        elif element.tag in HEAD_LINKS:
            name, *attributes = HEAD_LINKS[element.tag]
            head.setdefault(name, []).extend(_link(element, *attributes))
        elif element.tag == "base" and element.get("href") is not None:
            head["Base"] = element.get("href")
        elif element.tag == "title":
            head.setdefault("Title", element.text or "")
        elif element.tag == "meta" and len(element.attrib) > 1:
            head.setdefault("Metas", []).append(dict(element.attrib))
    return wat_value(url, links, headers, head)


def _link(element: Any, url_attribute: str, *others: str) -> list[dict[str, str]]:
    url = element.get(url_attribute)
    if url is None:
        return []
    link = {"path": f"{element.tag.upper()}@/{url_attribute}", "url": url}
    link |= {name: element.get(name) for name in others if element.get(name) is not None}
    if element.tag == "a" and (text := "".join(element.itertext()).strip()):
        link["text"] = text[:128]
    return [link]
