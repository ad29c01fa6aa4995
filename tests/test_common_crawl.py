"""Common Crawl to rows: the readers against slow obvious ones, and what damaged and hostile files cost."""

from __future__ import annotations

import functools
import gzip
import io
import itertools
import json
import logging
import random
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow.parquet as pq
import pytest
from archive_writer import (
    HTML_HEADERS,
    member,
    plain_record,
    request,
    response,
    warcinfo,
    wat,
    wat_value,
    wat_value_of_page,
)
from fastwarc.warc import WarcRecordType
from hypothesis import given, settings
from hypothesis import strategies as st
from test_page import GOLDEN, HTML, URL
from upath import UPath

from pipeline.errors import InputError
from pipeline.sources import archive, lexbor_page, page
from pipeline.sources.archive import Losses, read_records
from pipeline.sources.base_url import BaseUrl
from pipeline.sources.common_crawl import COMMON_CRAWL, PAGES_FILE, CommonCrawlPart, plan
from pipeline.sources.config import CommonCrawlConfig
from pipeline.sources.rows import ROWS_FILE, ROWS_SCHEMA
from pipeline.sources.wat import read_wat
from pipeline.stage import Counts

REAL = Path(__file__).parents[1] / "../shared/data/warc"
NEEDS_REAL = pytest.mark.skipif(not REAL.is_dir(), reason="no real WARC: ../shared/data/warc is absent")
SITE = "https://site.example/dir/page.html"
DIR = "https://site.example/dir/"

Pair = tuple[str | None, str | None, str]


def extract(path: Path, out: Path, kind: str, **changes: Any) -> tuple[list[Pair], Counts]:
    """The rows (url, caption_raw, text_key) of one file."""
    (part,) = plan(CommonCrawlConfig(kind=kind, paths=(str(path),), **changes))
    counts = COMMON_CRAWL.run([], UPath(out), part).counts
    table = pq.read_table(out / ROWS_FILE)
    assert table.schema == ROWS_SCHEMA and table["row"].to_pylist() == list(range(table.num_rows))
    assert pq.read_table(out / PAGES_FILE)["rows"].to_pylist().count(0) == 0
    return [(row["url"], row["caption_raw"], row["text_key"]) for row in table.to_pylist()], counts


def extract_members(members: list[bytes], folder: Path, kind: str, **changes: Any) -> tuple[list[Pair], Counts]:
    path = folder / f"file.warc{'.wat' if kind == 'wat' else ''}.gz"
    path.write_bytes(b"".join([warcinfo(), *members]))
    return extract(path, folder / "out", kind, **changes)


def img(url: str, **texts: str) -> dict[str, str]:
    return {"path": "IMG@/src", "url": url, **texts}


# ---- WAT


def test_wat_rows(tmp_path: Path) -> None:
    links = [
        {"path": "A@/href", "url": "x.html", "text": "alt"},
        img("a.jpg", alt="A cat", title="T"),
        img("//cdn.example/b.jpg", alt=""),
        {"path": "IMG@/longdesc", "url": "long.html", "alt": "no image"},
        img("https://o.example/c.jpg?x=1#y", title=" raw & kept\n"),
        {"path": "IMG@/src", "alt": "without url"},
        img("data:image/png;base64," + "A" * 900, alt="embedded"),
        img("javascript:x()", alt="script"),
        img("../d e.jpg", alt="🙂"),
        img("e.jpg", alt=" \n"),
    ]
    members = [
        request(SITE),
        wat(SITE, {"Envelope": {"Payload-Metadata": {"HTTP-Request-Metadata": {}}}}),
        wat(SITE, wat_value(SITE, links)),
        wat("https://b.example/", wat_value("https://b.example/", [img("i.png", alt="x")], head={"Base": "/sub/"})),
    ]
    rows, counts = extract_members(members, tmp_path, "wat")
    assert rows == [
        (DIR + "a.jpg", "A cat", "alt"),
        (DIR + "a.jpg", "T", "title"),
        ("https://o.example/c.jpg?x=1#y", " raw & kept\n", "title"),
        (None, "without url", "alt"),
        ("data:image/png;base64,".ljust(200, "A"), "embedded", "alt"),
        ("javascript:x()", "script", "alt"),
        ("https://site.example/d e.jpg", "🙂", "alt"),
        ("https://b.example/sub/i.png", "x", "alt"),
    ]
    assert counts == Counts(rows_in=10, rows_kept=8, dropped={"no_text": 2})


def test_pages_keep_where_and_when_and_in_what_language(tmp_path: Path) -> None:
    headers = (*HTML_HEADERS, ("Content-Language", "de"))
    html = b'<html lang="de-AT"><img src="a.jpg" alt="x"><img src="b.jpg" alt="y">'
    head = {"Metas": [{"name": "HTML@/lang", "content": "de-AT"}]}
    wat_file = [wat(SITE, wat_value(SITE, [img("a.jpg", alt="x"), img("b.jpg", alt="y")], headers, head, offset=77))]
    expected = {
        "page_url": SITE,
        "rows": 2,
        "opt_out": None,
        "languages": "de,de-AT",
        "fetch_time": "2024-05-18T01:58:10Z",
    }
    for kind, members, place in (
        ("wat", wat_file, {"warc_file": "CC-MAIN-0.warc.gz", "warc_offset": 77}),
        ("warc", [response(SITE, html, headers)], {"warc_file": "file.warc.gz", "warc_offset": len(warcinfo())}),
    ):
        (tmp_path / kind).mkdir()
        extract_members(members, tmp_path / kind, kind)
        assert pq.read_table(tmp_path / kind / "out" / PAGES_FILE).to_pylist() == [{**expected, **place}]
        rows = pq.read_table(tmp_path / kind / "out" / ROWS_FILE)
        assert set(rows["page_url"].to_pylist()) == {SITE}
        assert set(rows["source"].to_pylist()) == {f"common_crawl:file.warc{'.wat' if kind == 'wat' else ''}.gz"}


@pytest.mark.parametrize("kind", ["wat", "warc"])
@pytest.mark.parametrize(
    ("headers", "metas", "expected"),
    [
        ((), [], None),
        ([("X-Robots-Tag", "noai"), ("x-robots-tag", "noimageai")], [], "noai,noimageai"),
        ([("X-Robots-Tag", "NOINDEX"), ("X-Robots-Tag", "noml")], [], "noindex,noml"),
        ([("X-Robots-Tag", "otherbot: noindex")], [], None),
        ([("X-Robots-Tag", "webimagetext: noai")], [], "noai"),
        ((), [("ROBOTS", "NoAI, nofollow")], "noai"),
        ((), [("webimagetext", "noindex"), ("otherbot", "noml")], "noindex"),
        ([("tdm-reservation", "1")], [], "tdm-reservation"),
        ([("TDM-Reservation", "0")], [("robots", "noml")], "noml"),
        ((), [("tdm-reservation", "1"), ("robots", "none")], "noindex,tdm-reservation"),
    ],
)
def test_opt_outs(tmp_path: Path, kind: str, headers: Any, metas: list[tuple[str, str]], expected: str | None) -> None:
    told = [*HTML_HEADERS, *headers]
    html = "".join(f'<meta name="{name}" content="{value}">' for name, value in metas) + '<img src="a" alt="x">'
    head = {"Metas": [{"name": name, "content": value} for name, value in metas]}
    record = (
        response(SITE, html.encode(), told)
        if kind == "warc"
        else wat(SITE, wat_value(SITE, [img("a", alt="x")], told, head))
    )
    extract_members([record], tmp_path, kind)
    assert pq.read_table(tmp_path / "out" / ROWS_FILE)["page_opt_out"].to_pylist() == [expected]
    assert pq.read_table(tmp_path / "out" / PAGES_FILE)["opt_out"].to_pylist() == [expected]


def good(number: int) -> bytes:
    return wat(SITE, wat_value(SITE, [img(f"{number}.jpg", alt=f"good {number}")]))


def marked(body: bytes) -> bytes:
    """A body that passes the prefilter."""
    return body + b'"IMG@/src" "alt"'


ODD_JSON = {
    "no json": (wat(SITE, marked(b"{")), {"bad_json": 1}),
    "a list": (wat(SITE, [marked(b"").decode()]), {}),
    "nested": (wat(SITE, b'{"a":' * 9_999 + b'["IMG@/src","alt"]' + b"}" * 9_999), {"bad_json": 1}),
    "wrong types": (wat(SITE, {"Envelope": [{"path": "IMG@/src", "alt": 1}]}), {}),
    "links of wrong types": (
        wat(SITE, wat_value(SITE, [5, {"path": "IMG@/src", "url": [], "alt": {}}, {"alt": "x"}])),
        {"no_text": 1},
    ),
    "status 404": (
        wat(
            SITE,
            json.dumps(wat_value(SITE, [img("a", alt="x")])).replace('"Status": "200"', '"Status": "404"').encode(),
        ),
        {"bad_status": 1},
    ),
    "no address": (wat("", wat_value("", [img("a", alt="x")])), {"no_url": 1}),
    "too large": (wat(SITE, wat_value(SITE, [img("a", alt="x" * 60_000)])), {"too_large": 1}),
}


@pytest.mark.parametrize("name", ODD_JSON)
def test_an_odd_wat_record_costs_itself_only(tmp_path: Path, name: str) -> None:
    record, dropped = ODD_JSON[name]
    rows, counts = extract_members(
        [good(1), record, good(2)], tmp_path, "wat", max_record_bytes=50_000 if name == "too large" else 10**7
    )
    assert [row[1] for row in rows] == ["good 1", "good 2"]
    assert counts.dropped == dropped or name == "a list"


NASTY = st.lists(
    st.sampled_from(['"', '"}', "}", "{", '{"path":"IMG@/src"', '"Links":[{', "\\", ":", ",", "]", "é", "a", " "]),
    max_size=5,
).map("".join)
LINK = st.one_of(
    st.builds(lambda url, alt, title: img(url, alt=alt, title=title), NASTY, NASTY, NASTY),
    st.builds(lambda url, text: {"path": "A@/href", "url": url, "text": text}, NASTY, NASTY),
    st.builds(lambda url: img(url), NASTY),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(LINK, max_size=6), NASTY, st.booleans())
def test_leaving_out_other_links_changes_nothing(links: list[dict[str, str]], header: str, is_compact: bool) -> None:
    value = wat_value(
        SITE, links, [*HTML_HEADERS, ("X-Odd", header), ("Links", header), ("Links", "b")], {"Title": header}
    )
    body = json.dumps(value, separators=(",", ":") if is_compact else None).encode()
    (record,) = read_records(io.BytesIO(wat(SITE, body)), WarcRecordType.metadata, 10**6, Losses("file"))
    read = read_wat(record, "t")
    images = [link for link in links if link["path"] == "IMG@/src"]
    texts = [(link.get(key, ""), key) for link in images for key in ("alt", "title")]
    expected = [(text, key) for text, key in texts if text.strip()]
    assert [row[1:] for row in (read.rows if read else ())] == expected
    assert (read.textless if read else 0) == sum(
        not (link.get("alt", "") + link.get("title", "")).strip() for link in images
    )


def test_bad_bytes_and_half_surrogates_cost_a_character(tmp_path: Path) -> None:
    text = (
        json.dumps(wat_value(SITE, [img("a.jpg", alt="caf~ \ud800!")]), ensure_ascii=True)
        .encode()
        .replace(b"~", b"\xe9")
    )
    assert extract_members([wat(SITE, text)], tmp_path, "wat")[0] == [(DIR + "a.jpg", "caf\ufffd ?!", "alt")]


def test_an_escaped_slash_is_a_slash(tmp_path: Path) -> None:
    text = json.dumps(wat_value(SITE, [img("a.jpg", alt="x")])).replace("/", "\\/").encode()
    assert extract_members([wat(SITE, text)], tmp_path, "wat")[0] == [(DIR + "a.jpg", "x", "alt")]


# ---- WARC


def test_warc_rows(tmp_path: Path) -> None:
    html = (
        '<base href="/b/"><img src="s.jpg" srcset="l.jpg 900w, s.jpg 300w" alt="wide">'
        '<img src="data:," data-src="lazy.jpg" title="T">'
        '<figure><img src="f.jpg"><figcaption>A <b>cap</b></figcaption></figure>'
        '<img src="none.jpg"><IMG SRC=u.jpg ALT=upper>'
    )
    page_bytes = html.encode()
    records = [
        request(SITE),
        response(SITE, page_bytes),
        response(SITE, b"%PDF <img src=a alt=x>", (("Content-Type", "application/pdf"),)),
        response(SITE, page_bytes, status="404 Not Found"),
        response(SITE, gzip.compress(page_bytes), (*HTML_HEADERS, ("Content-Encoding", "gzip"))),
        response("", page_bytes),
        member("response", "dns:site.example", b"20240518 1.2.3.4", "text/dns"),
        response(SITE, b"no images here"),
    ]
    rows, counts = extract_members(records, tmp_path, "warc")
    expected = [
        ("https://site.example/b/l.jpg", "wide", "alt"),
        ("https://site.example/b/lazy.jpg", "T", "title"),
        ("https://site.example/b/f.jpg", "A cap", "figcaption"),
        ("https://site.example/b/u.jpg", "upper", "alt"),
    ]
    assert rows == expected * 2
    assert counts.dropped == {"bad_status": 1, "no_text": 2, "no_url": 1}


@pytest.mark.parametrize(
    ("content_type", "html"),
    [
        ("text/html; charset=iso-8859-1", '<img alt="café" src=a>'.encode("latin-1")),
        ("text/html", '<meta charset="windows-1252"><img alt="café" src=a>'.encode("cp1252")),
        ("", '<img alt="café" src=a>'.encode()),
        ("text/html", "\ufeff<img alt='café' src=a>".encode("utf-16")),
        ("text/html; charset=utf-8", b"<img alt='caf\xc3\xa9' src=a><p>\xff\xfe"),
        (
            "application/xhtml+xml",
            '<?xml version="1.0" encoding="iso-8859-1"?><img alt="café" src="a"/>'.encode("latin-1"),
        ),
    ],
)
def test_charsets(tmp_path: Path, content_type: str, html: bytes) -> None:
    headers = (("Content-Type", content_type),) if content_type else ()
    assert extract_members([response(SITE, html, headers)], tmp_path, "warc")[0] == [(DIR + "a", "café", "alt")]


def test_a_hundred_megabytes_in_one_line_are_dropped_soon(tmp_path: Path) -> None:
    line = b"<p>" * 35_000_000
    bomb = response(SITE, gzip.compress(line, 1), (*HTML_HEADERS, ("Content-Encoding", "gzip")))
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"
    plain = gzip.compress(plain_record("response", SITE, head + line, "application/http; msgtype=response"), 1)
    small = response(SITE, b"<img src=a alt=x>")
    started = time.process_time()
    rows, counts = extract_members([small, bomb, plain, small], tmp_path, "warc")
    assert len(rows) == 2 and counts.dropped == {"too_large": 2}
    assert time.process_time() - started < 10


# ---- damage


def body_record(number: int, body: bytes = b"hello", **headers: str) -> bytes:
    return member("metadata", f"http://x/{number}", body, "application/json", **headers)


G = [body_record(number) for number in range(4)]
BIG = random.Random(0).randbytes(200_000)
FLIPPED = bytearray(body_record(1, BIG))
FLIPPED[100_000] ^= 0xFF
BAD_CRC = bytearray(body_record(1, BIG))
BAD_CRC[-6] ^= 0xFF
P = [plain_record("metadata", f"http://x/{number}", b"hello", "application/json") for number in range(3)]
DAMAGED: dict[str, tuple[bytes, str, dict[str, int]]] = {
    "whole": (b"".join(G), "0123", {}),
    "garbage between": (G[0] + b"garbage \x1f\x8b\x08 garbage" * 5 + G[1] + G[2], "012", {"bad_record": 1}),
    "not a record": (
        G[0] + gzip.compress(b"this is no record\r\n\r\n", mtime=0) + G[2] + G[3],
        "023",
        {"bad_record": 1},
    ),
    "flipped bit": (G[0] + FLIPPED + G[2] + G[3], "023", {"bad_record": 1}),
    "wrong checksum": (G[0] + BAD_CRC + G[2] + G[3], "023", {"bad_record": 1}),
    "no length": (G[0] + body_record(1, Content_Length="") + G[2], "02", {"bad_record": 1}),
    "negative length": (G[0] + body_record(1, Content_Length="-5") + G[2], "02", {"bad_record": 1}),
    "length that swallows the next": (
        G[0] + body_record(1, Content_Length="90") + G[2] + G[3],
        "023",
        {"bad_record": 1},
    ),
    "length that swallows all": (G[0] + body_record(1, Content_Length="9000") + G[2] + G[3], "023", {"bad_record": 1}),
    "length too short": (G[0] + body_record(1, Content_Length="2") + G[2], "02", {"bad_record": 1}),
    "length beyond all": (G[0] + body_record(1, Content_Length="999999999999") + G[2], "02", {"too_large": 1}),
    "cut in a record": (G[0] + G[1] + body_record(2, BIG)[:-1_000], "01", {"truncated_file": 1}),
    "cut in a header": (b"".join(G)[:-70], "012", {"truncated_file": 1}),
    "cut in the checksum": (b"".join(G)[:-3], "012", {"truncated_file": 1}),
    "cut behind two bytes": (b"".join(G) + G[0][:2], "0123", {"truncated_file": 1}),
    "garbage at the end": (b"".join(G) + b"xx garbage", "0123", {"bad_record": 1}),
    "plain": (b"".join(P), "012", {}),
    "plain, garbage between": (P[0] + b"foo\r\nbar\r\n" + P[1] + P[2], "012", {"bad_record": 1}),
    "plain, a lie": (P[0] + P[1].replace(b"Content-Length: 5", b"Content-Length: 99") + P[2], "02", {"bad_record": 1}),
    "plain, a great lie": (
        P[0] + P[1].replace(b"Content-Length: 5", b"Content-Length: 9999999999") + P[2],
        "02",
        {"too_large": 1},
    ),
    "plain, cut": (b"".join(P)[:-7], "01", {"truncated_file": 1}),
    "one gzip member for all": (gzip.compress(b"".join(P), mtime=0), "012", {}),
}


def read_all(data: bytes, max_bytes: int = 10**6) -> tuple[str, dict[str, int]]:
    losses = Losses("file")
    records = read_records(io.BytesIO(data), WarcRecordType.metadata, max_bytes, losses)
    return "".join(record.url.removeprefix("http://x/") for record in records), dict(losses.counts)


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_costs_what_is_damaged(name: str) -> None:
    data, numbers, counts = DAMAGED[name]
    assert read_all(data) == (numbers, counts)


@pytest.mark.parametrize(
    "data", [b"", b"<html>no archive</html>" * 99, gzip.compress(b"no archive\n" * 99, mtime=0), G[0][:50], b"\0" * 999]
)
def test_a_file_without_a_record_is_named(data: bytes) -> None:
    with pytest.raises(InputError, match="file: holds no WARC record"):
        read_all(data)


def test_losses_are_logged_with_their_place(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read_all(G[0] + body_record(1, Content_Length="x") + G[2])
    assert f"file at byte {len(G[0])}: bad_record (no valid Content-Length)" in caplog.text


def test_a_file_of_damage_only_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_DAMAGES", 20)
    with pytest.raises(InputError, match="damaged places"):
        read_all((G[0] + b"garbage") * 30)


def test_a_file_of_false_starts_ends() -> None:
    started = time.process_time()
    assert read_all(G[0] + (archive.GZIP_MAGIC + b"\xe0") * 400_000) == ("0", {"bad_record": 1})
    assert time.process_time() - started < 20


@pytest.mark.parametrize("kept_bytes", range(1, 12))
def test_a_stub_of_a_header_costs_no_neighbour(kept_bytes: int) -> None:
    members = [body_record(number, b"%d " % number * 30) for number in range(6)]
    for hit in range(6):
        numbers, counts = read_all(b"".join([*members[:hit], members[hit][:kept_bytes], *members[hit + 1 :]]))
        assert numbers == "012345".replace(str(hit), "") and sum(counts.values()) == 1


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_what_is_far_from_the_damage_is_never_lost(data: st.DataObject) -> None:
    members = [body_record(number, b"%d " % number * 30) for number in range(6)]
    hit = data.draw(st.integers(0, 5))
    damaged = bytearray(members[hit])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    del damaged[data.draw(st.integers(1, len(damaged))) :]
    numbers, counts = read_all(b"".join([*members[:hit], bytes(damaged), *members[hit + 1 :]]))
    others = "".join(str(number) for number in range(6) if number != hit)
    assert numbers.replace(str(hit), "") == others or bytes(damaged) == members[hit]
    assert counts or str(hit) in numbers


def test_a_failure_of_the_network_is_none_of_the_file() -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() >= 60_000:
                raise ConnectionResetError("reset by peer")
            return super().read(min(size or 0, 20_000))

    data = body_record(0) + body_record(1, BIG)
    with pytest.raises(ConnectionResetError):
        list(read_records(Failing(data), WarcRecordType.metadata, 10**6, Losses("file")))


# ---- the two HTML readers


@pytest.mark.parametrize("name", GOLDEN)
def test_both_html_readers_give_the_same_page(name: str) -> None:
    html = (GOLDEN[name][0] + '<a href="b#x">1</a><a rel=nofollow href=c>2</a><meta name=robots content=noai>').encode()
    assert lexbor_page.read_lexbor_page(html, URL, HTML, "webimagetext").page == page.read_page(
        html, URL, HTML, "webimagetext"
    )


PIECES = [
    '<img src="a.jpg" alt="x">',
    "<img src=b.jpg>",
    '<img srcset="c 2x, d 1x" title="y">',
    "<figcaption>cap <b>b</b></figcaption>",
]
PIECES += [
    '<source srcset="s.webp 900w">',
    "text &amp; more",
    "<p>para</p>",
    '<a href="z">link</a>',
    '<base href="/base/">',
    "<br>",
]
CONTAINERS = [
    "<div>{}</div>",
    "<figure>{}</figure>",
    "<picture>{}</picture>",
    "<section>{}</section>",
    "<span>{}</span>",
    "<noscript>{}</noscript>",
]
WELL_FORMED = st.recursive(
    st.sampled_from(PIECES),
    lambda inner: st.tuples(st.sampled_from(CONTAINERS), st.lists(inner, max_size=4)).map(
        lambda pair: pair[0].format("".join(pair[1]))
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(WELL_FORMED, max_size=4).map("".join))
def test_both_html_readers_give_the_same_rows(body: str) -> None:
    html = f"<!DOCTYPE html><html><head><title>t</title></head><body>{body}</body></html>".encode()
    assert lexbor_page.read_lexbor_page(html, URL, HTML, "t").page.rows == page.read_page(html, URL, HTML, "t").rows


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=300),
    st.lists(st.sampled_from([b"<img src=", b"<figure>", b"<figcaption>", b"'", b">", b"<base href=", b"</"])),
)
def test_no_bytes_make_it_fail(noise: bytes, tags: list[bytes]) -> None:
    read = lexbor_page.read_lexbor_page(b"".join(tags) + noise + b"".join(reversed(tags)), URL, HTML, "t")
    assert read.page.images <= len(read.page.rows)


HOSTILE = {
    "nested figures": "<figure><figcaption>x<img src=a>" * 20_000,
    "deep": "<div>" * 100_000 + "<img src=a>" * 10_000,
    "deep and closed": "<div>" * 60_000 + "<img src=a>" + "</div>" * 60_000,
    "lists": "<ul><li>" * 100_000,
    "attributes": "<img " + " ".join(f"a{number}=1" for number in range(100_000)) + ">",
    "attributes without spaces": "<img " + "".join(f'a{number}=""' for number in range(100_000)) + ">",
    "commas": f"<img srcset='{',' * 500_000}'>",
    "candidates": f"<img srcset='{'a 1x, ' * 100_000}'>",
    "comments": "<!--" * 200_000,
    "long and dull": "<p>x</p>" * 400_000 + "<img src=a alt=b>",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pages_take_linear_time(name: str) -> None:
    started = time.process_time()
    with suppress(lexbor_page.HostilePageError):
        lexbor_page.read_lexbor_page(HOSTILE[name].encode(), URL, HTML, "t")
    assert time.process_time() - started < 10


def test_a_hostile_page_is_counted(tmp_path: Path) -> None:
    records = [response(SITE, html) for html in (HOSTILE["attributes"].encode(), b"<img src=a alt=x>")]
    rows, counts = extract_members(records, tmp_path, "warc")
    assert len(rows) == 1 and counts.dropped == {"hostile_page": 1}


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(
        [
            "http://site.example/dir/page.html",
            "https://h",
            "https://h/?q",
            "http://u@h:80/a/b/;p?x#y",
            "file:///x",
            "",
            "http://[b/",
        ]
    ),
    st.lists(
        st.sampled_from(
            [
                "http:",
                "https:",
                "HTTP:",
                "//",
                "/",
                "a",
                "b.jpg",
                ".",
                "..",
                "?",
                "x=1",
                "#",
                ";p",
                "\\",
                " ",
                "\n",
                "é",
                "[",
                ":",
                "@",
            ]
        ),
        max_size=7,
    ).map("".join),
)
def test_the_short_way_to_a_url_leads_where_the_long_one_does(base: str, url: str) -> None:
    assert BaseUrl(base).resolve(url) == page.resolve(base, url)


# ---- the real files, and the slow obvious way


def slow_wat(path: Path) -> list[Pair]:
    warcio = pytest.importorskip("warcio.archiveiterator", reason="warcio is not installed")
    pairs: list[Pair] = []
    with path.open("rb") as file:
        for record in warcio.ArchiveIterator(file):
            if record.rec_type != "metadata":
                continue
            value = json.loads(record.content_stream().read())
            html = value["Envelope"]["Payload-Metadata"].get("HTTP-Response-Metadata", {}).get("HTML-Metadata", {})
            base = page.resolve(record.rec_headers.get_header("WARC-Target-URI"), html.get("Head", {}).get("Base", ""))
            for link in html.get("Links", []):
                if link["path"] == "IMG@/src":
                    texts = [(link.get(key), key) for key in ("alt", "title")]
                    pairs += [
                        (page.resolve(base, link["url"]), text, key) for text, key in texts if text and text.strip()
                    ]
    return pairs


def slow_warc(path: Path) -> list[Pair]:
    warcio = pytest.importorskip("warcio.archiveiterator", reason="warcio is not installed")
    pairs: list[Pair] = []
    with path.open("rb") as file:
        for record in warcio.ArchiveIterator(file):
            if record.rec_type == "response":
                html, url = record.content_stream().read(), record.rec_headers.get_header("WARC-Target-URI")
                read = page.read_page(html, url, record.http_headers.headers, "t")
                pairs += [(row.url, row.caption_raw, row.text_key) for row in read.rows if row.caption_raw]
    return pairs


@NEEDS_REAL
def test_the_real_warc(tmp_path: Path) -> None:
    rows, counts = extract(REAL / "whirlwind.warc.gz", tmp_path / "out", "warc")
    assert rows == slow_warc(REAL / "whirlwind.warc.gz")
    assert counts == Counts(rows_in=13, rows_kept=7, dropped={"no_text": 6})
    upload = "https://upload.wikimedia.org/wikipedia/commons/thumb/"
    assert rows[2] == (
        upload + "0/0a/Escudo_de_Escopete_%28Guadalajara%29.svg/140px-Escudo_de_Escopete_%28Guadalajara%29.svg.png",
        "Escudo d'armas",
        "alt",
    )
    (read,) = pq.read_table(tmp_path / "out" / PAGES_FILE).to_pylist()
    assert (read["page_url"], read["languages"], read["warc_offset"]) == (
        "https://an.wikipedia.org/wiki/Escopete",
        "an",
        1_023,
    )


@NEEDS_REAL
def test_the_real_wat_holds_the_request_only(tmp_path: Path) -> None:
    rows, counts = extract(REAL / "whirlwind.warc.wat.gz", tmp_path / "out", "wat")
    assert rows == slow_wat(REAL / "whirlwind.warc.wat.gz") == []
    assert counts == Counts(rows_in=0, rows_kept=0)


@NEEDS_REAL
def test_a_wat_of_the_real_page(tmp_path: Path) -> None:
    with (REAL / "whirlwind.warc.gz").open("rb") as file:
        (record,) = read_records(file, WarcRecordType.response, 10**7, Losses("real"))
    path = tmp_path / "real.warc.wat.gz"
    path.write_bytes(wat(record.url, wat_value_of_page(record.url, record.body, record.http_headers)))
    rows, counts = extract(path, tmp_path / "out", "wat")
    assert rows == slow_wat(path) and len(rows) == 7 and counts.dropped == {"no_text": 6}
    # The same texts as the WARC gives; the addresses differ where a srcset has a larger image.
    assert [row[1:] for row in rows] == [row[1:] for row in slow_warc(REAL / "whirlwind.warc.gz")]


def test_generated_files_give_the_pairs_of_the_slow_way(tmp_path: Path) -> None:
    draw = random.Random(1)
    pages = [(f"https://h{number}.example/d/{number}.html", random_page(draw)) for number in range(60)]
    warc, wat_file = tmp_path / "a.warc.gz", tmp_path / "a.warc.wat.gz"
    warc.write_bytes(warcinfo() + b"".join(request(url) + response(url, html) for url, html in pages))
    wat_file.write_bytes(b"".join(wat(url, wat_value_of_page(url, html, HTML_HEADERS)) for url, html in pages))
    for path, kind, slow in ((warc, "warc", slow_warc), (wat_file, "wat", slow_wat)):
        rows, _ = extract(path, tmp_path / kind, kind)
        assert rows == slow(path) and len(rows) > 100


def random_page(draw: random.Random) -> bytes:
    urls = (
        "a.jpg",
        "/b.jpg",
        "//c.example/d.jpg",
        "https://e.example/f.png?x=1",
        "../g.jpg",
        "h i.jpg",
        "?q",
        "data:image/gif;base64,R0",
    )
    texts = ("", 'alt=""', 'alt="A &amp; é"', "title=T", "alt=x title=y")
    between = ("<p>text</p>", '<a href="x">link</a>', "<script>if (a<b) '<img src=no alt=no>'</script>", "")
    pieces = [
        f'<img src="{draw.choice(urls)}" {draw.choice(texts)}>{draw.choice(between)}' for _ in range(draw.randrange(12))
    ]
    return f"<!DOCTYPE html><html><head><title>t</title></head><body>{''.join(pieces)}</body></html>".encode()


# ---- files, snapshots, servers


class Ranges(BaseHTTPRequestHandler):
    """Serves a folder's files, with or without ranges."""

    folder: Path
    has_ranges = True

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        data, code = path.read_bytes(), 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if self.has_ranges else None
        size = len(data)
        self.send_response(206 if asked else code)
        if asked:
            first, last = int(asked[1]), min(int(asked[2] or size - 1), size - 1)
            data = data[first : last + 1]
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        if self.has_ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(params=[True, False], ids=["ranges", "no ranges"])
def snapshot(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server of one snapshot with five WAT files."""
    names = [f"crawl-data/CC-MAIN-2024-10/segments/1/wat/{number:05}.warc.wat.gz" for number in range(5)]
    folder = tmp_path / "served"
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(warcinfo() + good(number))
    (folder / "crawl-data/CC-MAIN-2024-10/wat.paths.gz").write_bytes(gzip.compress("\n".join(names).encode()))
    handler = type("Handler", (Ranges,), {"folder": folder, "has_ranges": request.param})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=functools.partial(server.serve_forever, 0.05), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_snapshot_over_http(tmp_path: Path, snapshot: str) -> None:
    whole = CommonCrawlConfig(snapshot="CC-MAIN-2024-10", files=0, base_url=snapshot + "/")
    parts = plan(whole)
    assert [part.path[-17:] for part in parts] == [f"{number:05}.warc.wat.gz"[-17:] for number in range(5)]
    counts = COMMON_CRAWL.run([], UPath(tmp_path / "out"), parts[3]).counts
    assert counts == Counts(rows_in=1, rows_kept=1)
    assert pq.read_table(tmp_path / "out" / ROWS_FILE)["caption_raw"].to_pylist() == ["good 3"]
    chosen = plan(whole.model_copy(update={"files": 2, "seed": 1}))
    assert chosen == [part for part in parts if part in chosen] and len(chosen) == 2
    assert chosen == plan(whole.model_copy(update={"files": 2, "seed": 1}))
    seeds = [
        tuple(part.path for part in plan(whole.model_copy(update={"files": 2, "seed": seed}))) for seed in range(6)
    ]
    assert len(set(seeds)) > 1
    # More files keep those chosen before.
    more = plan(whole.model_copy(update={"files": 3, "seed": 1}))
    assert {part.path for part in chosen} < {part.path for part in more}
    with pytest.raises(InputError, match=r"CC-MAIN-1999-01/wat\.paths\.gz: no such file"):
        plan(whole.model_copy(update={"snapshot": "CC-MAIN-1999-01"}))
    with pytest.raises(InputError, match=r"no such file"):
        COMMON_CRAWL.run([], UPath(tmp_path / "gone"), parts[0].model_copy(update={"path": f"{snapshot}/gone.gz"}))


def test_plan_asks_for_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither paths nor snapshot"):
        plan(CommonCrawlConfig())
    with pytest.raises(InputError, match=r"absent\.gz: no such file"):
        plan(CommonCrawlConfig(paths=("absent.gz",)))
    listing = tmp_path / "crawl-data/X/wat.paths.gz"
    listing.parent.mkdir(parents=True)
    for content in (b"no gzip", gzip.compress(b"\n"), gzip.compress(b"abc")[:-9]):
        listing.write_bytes(content)
        with pytest.raises(InputError, match=r"wat\.paths\.gz"):
            plan(CommonCrawlConfig(snapshot="X", base_url=str(tmp_path)))


def test_the_same_file_gives_the_same_bytes_and_a_changed_one_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.warc.wat.gz"
    path.write_bytes(b"".join(good(number) for number in range(50)))
    (part,) = plan(CommonCrawlConfig(paths=(str(tmp_path / "*.gz"),)))
    first, again, other = (COMMON_CRAWL.run([], UPath(tmp_path / name), part) for name in ("x", "x", "y"))
    assert not first.was_done and again.was_done and other.record.outputs == first.record.outputs
    path.write_bytes(good(7))
    (changed,) = plan(CommonCrawlConfig(paths=(str(path),)))
    assert not COMMON_CRAWL.run([], UPath(tmp_path / "x"), changed).was_done


def test_a_wholly_unreadable_file_fails_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "broken.warc.wat.gz"
    path.write_bytes(b"<html>Access denied</html>")
    part = CommonCrawlPart(kind="wat", path=str(path), sha256="", max_record_bytes=10**6, user_agent_token="t")
    with pytest.raises(InputError, match=r"broken\.warc\.wat\.gz: holds no WARC record"):
        COMMON_CRAWL.run([], UPath(tmp_path / "out"), part)


@pytest.mark.parametrize(("kind", "other"), [("wat", "warc"), ("warc", "wat")])
def test_a_file_of_the_other_kind_is_not_taken_for_an_empty_one(kind: str, other: str, tmp_path: Path) -> None:
    remarks = member("metadata", SITE, b"fetchTimeMs: 12\r\n", "application/warc-fields")
    page = b'<img src="/a.jpg" alt="A red boat">'
    members = {"warc": [request(SITE), response(SITE, page), remarks], "wat": [good(1)]}
    with pytest.raises(
        InputError, match=rf"none of a {kind.upper()} file; .* set source\.common_crawl\.kind to {other}"
    ):
        extract_members(members[other], tmp_path, kind)
    assert len(extract_members(members[kind], tmp_path, kind)[0]) == 1


def test_many_pages_come_in_batches_and_in_order(tmp_path: Path) -> None:
    pages = [
        wat_value(SITE, [img(f"{page}/{number}.jpg", alt=f"{page} {number}") for number in range(500)])
        for page in range(40)
    ]
    rows, _ = extract_members([wat(SITE, value) for value in pages], tmp_path, "wat")
    assert [row[1] for row in rows] == [f"{page} {number}" for page, number in itertools.product(range(40), range(500))]
