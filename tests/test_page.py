from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sources.page import ImageText, Page, largest_candidate, read_page, resolve
from pipeline.sources.robots import RobotsRules, directives, opt_out, product_token

URL = "http://site.example/dir/page.html"
HTML = (("Content-Type", "text/html; charset=utf-8"),)


def read(html: str, headers: tuple[tuple[str, str], ...] = HTML, url: str = URL) -> Page:
    return read_page(html.encode(), url, headers, "webimagetext")


def rows(html: str) -> list[tuple[str | None, str | None, str]]:
    return [(row.url, row.caption_raw, row.text_key) for row in read(html).rows]


DIR = "http://site.example/dir/"
GOLDEN = {
    "alt": ('<img src="a.jpg" alt="A cat">', [(DIR + "a.jpg", "A cat", "alt")]),
    "no text": ('<img src="a.jpg">', [(DIR + "a.jpg", None, "alt")]),
    "blank alt": ('<img src="a.jpg" alt=" ">', [(DIR + "a.jpg", None, "alt")]),
    "raw text is kept raw": (
        '<img src="a.jpg" alt=" A &amp;amp;\n cat ">',
        [(DIR + "a.jpg", " A &amp;\n cat ", "alt")],
    ),
    "alt and title": (
        '<img src="a.jpg" title="T" alt="A">',
        [(DIR + "a.jpg", "A", "alt"), (DIR + "a.jpg", "T", "title")],
    ),
    "figcaption": (
        '<figure><img src="a.jpg" alt="A"><figcaption>A <b>b</b>ig<!-- x --> cat<p>sat</p></figcaption></figure>',
        [(DIR + "a.jpg", "A", "alt"), (DIR + "a.jpg", "A big cat sat ", "figcaption")],
    ),
    "figcaption before, equal to alt, two images": (
        '<figure><figcaption>A</figcaption><img src="a.jpg" alt="A"><img src="b.jpg"></figure><img src="c.jpg">',
        [
            (DIR + "a.jpg", "A", "alt"),
            (DIR + "a.jpg", "A", "figcaption"),
            (DIR + "b.jpg", "A", "figcaption"),
            (DIR + "c.jpg", None, "alt"),
        ],
    ),
    "figure in figure": (
        "<figure><figure><img src=a.jpg><figcaption>in</figcaption></figure><img src=b.jpg>"
        "<figcaption>out</figcaption></figure>",
        [(DIR + "a.jpg", "in", "figcaption"), (DIR + "b.jpg", "out", "figcaption")],
    ),
    "base": ('<base href="/x/"><base href="/y/"><img src="a.jpg">', [("http://site.example/x/a.jpg", None, "alt")]),
    "useless base": ('<base href="javascript:0"><img src="a.jpg">', [(DIR + "a.jpg", None, "alt")]),
    "srcset by width": (
        '<img src="s.jpg" srcset="m.jpg 640w, l.jpg 1280w, s.jpg 320w">',
        [(DIR + "l.jpg", None, "alt")],
    ),
    "srcset by density": ('<img src="s.jpg" srcset="m.jpg 1.5x, l.jpg 3x">', [(DIR + "l.jpg", None, "alt")]),
    "srcset with one plain candidate": ('<img src="s.jpg" srcset="t.jpg">', [(DIR + "s.jpg", None, "alt")]),
    "srcset without src": ('<img srcset="t.jpg">', [(DIR + "t.jpg", None, "alt")]),
    "picture": (
        '<picture><source srcset="l.webp 2000w"><source type="image/svg+xml" srcset="v.svg 9000w">'
        '<img src="s.jpg" srcset="m.jpg 500w" alt="A"></picture><img src="b.jpg">',
        [(DIR + "l.webp", "A", "alt"), (DIR + "b.jpg", None, "alt")],
    ),
    "lazy": (
        '<img src="data:image/gif;base64,R0lGOD" data-src="a.jpg"><img data-srcset="b.jpg 2x" src="data:,">'
        '<img data-src="c.jpg">',
        [(DIR + "a.jpg", None, "alt"), (DIR + "b.jpg", None, "alt"), (DIR + "c.jpg", None, "alt")],
    ),
    "data-src beside a real src": ('<img src="a.jpg" data-src="b.jpg">', [(DIR + "a.jpg", None, "alt")]),
    "no url at all": ('<img alt="A"><img src="" alt="B">', [(None, "A", "alt"), (None, "B", "alt")]),
    "data url": (
        f'<img src="data:image/png;base64,{"A" * 900}">',
        [("data:image/png;base64,".ljust(200, "A"), None, "alt")],
    ),
    "other schemes": (
        '<img src="javascript:x()"><img src="http://[">',
        [("javascript:x()", None, "alt"), ("http://[", None, "alt")],
    ),
    "as a browser reads it": ('<img src=" \\up\\a.jp\ng ">', [("http://site.example/up/a.jpg", None, "alt")]),
    "protocol relative": ('<img src="//cdn.example/a b.jpg#x">', [("http://cdn.example/a b.jpg#x", None, "alt")]),
    "never closed": (
        "<div><p><b><figure><img src=a.jpg alt=A><figcaption>cap",
        [(DIR + "a.jpg", "A", "alt"), (DIR + "a.jpg", "cap", "figcaption")],
    ),
    "nothing": ("", []),
    "not html": ("\x00\x01 just text < & > ", []),
    "a lone surrogate": ('<img src="a.jpg" alt="x&#xD800;y">', [(DIR + "a.jpg", "x\ufffdy", "alt")]),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_rows(name: str) -> None:
    html, expected = GOLDEN[name]
    assert rows(html) == expected


def test_broken_html_is_read_as_far_as_it_can_be() -> None:
    assert {
        row[0] for row in rows("<table><td><img src=a.jpg alt=x></tr></p></b><img src=b.jpg <p><img src=c.jpg")
    } >= {
        DIR + "a.jpg",
        DIR + "b.jpg",
    }


@pytest.mark.parametrize(
    ("srcset", "url"),
    [
        ("a.jpg, b.jpg 2x", "b.jpg"),
        ("a.jpg 1x,b.jpg 2x", "b.jpg"),
        ("a.jpg 1x,b.jpg, c.jpg 3x", "c.jpg"),
        ("img/w_100,h_50/a.jpg 100w, img/w_900,h_50/a.jpg 900w", "img/w_900,h_50/a.jpg"),
        ("data:image/png;base64,AA 1x, b.jpg 2x", "b.jpg"),
        (" , ,a.jpg", "a.jpg"),
        ("a.jpg 100w 50h, b.jpg 90w", "a.jpg"),
        ("a.jpg foo, b.jpg -1x, c.jpg nanw", "a.jpg"),
    ],
)
def test_largest_candidate(srcset: str, url: str) -> None:
    largest = largest_candidate(srcset)
    assert largest is not None and largest[2] == url


def test_empty_srcsets_name_nothing() -> None:
    assert largest_candidate("") is None
    assert largest_candidate(" ,, , ") is None


def test_links_are_absolute_once_and_those_to_be_followed() -> None:
    page = read(
        '<a href="b.html#x">1</a><a href="b.html">2</a><a rel="nofollow ugc" href="c.html">3</a>'
        '<a href="mailto:x@y.z">4</a>'
        '<area href="/d"><a>5</a><a href=" ">6</a><a href="HTTPS://o.example/">7</a><a href="#top">8</a>'
        '<a href="http://[">9</a>'
    )
    assert page.links == (DIR + "b.html", "http://site.example/d", "HTTPS://o.example/", URL, "http://[")


@pytest.mark.parametrize(
    ("headers", "html", "expected"),
    [
        ((), "", None),
        ((("X-Robots-Tag", "noai, noimageai"),), "", "noai,noimageai"),
        ((("x-robots-tag", "NOINDEX"), ("X-Robots-Tag", "noml")), "", "noindex,noml"),
        ((("X-Robots-Tag", "otherbot: noindex"),), "", None),
        ((("X-Robots-Tag", "otherbot: noindex, webimagetext: noai"),), "", "noai"),
        ((("X-Robots-Tag", "unavailable_after: 25 Jun 2030 15:00:00 PST, noimageindex"),), "", "noimageindex"),
        ((("X-Robots-Tag", "none"),), "", "noindex"),
        ((), '<meta name="ROBOTS" content="NoAI, nofollow">', "noai"),
        ((), '<meta name="webimagetext" content="noindex"><meta name="otherbot" content="noai">', "noindex"),
        ((("X-Robots-Tag", "noml"),), '<meta name="robots" content="noai,all">', "noai,noml"),
    ],
)
def test_opt_outs(headers: tuple[tuple[str, str], ...], html: str, expected: str | None) -> None:
    assert read(html, HTML + headers).opt_out == expected


def test_a_page_that_says_nofollow_leads_nowhere() -> None:
    assert read('<meta name="robots" content="nofollow"><a href="/a">x</a>').links == ()
    assert read('<meta name="otherbot" content="nofollow"><a href="/a">x</a>').links == ("http://site.example/a",)


@pytest.mark.parametrize(
    ("content_type", "html"),
    [
        ("text/html; charset=iso-8859-1", '<img alt="caf\u00e9" src=a>'.encode("latin-1")),
        ("text/html", '<meta charset="windows-1252"><img alt="caf\u00e9" src=a>'.encode("cp1252")),
        ("text/html", '<img alt="caf\u00e9" src=a>'.encode()),
        ("text/html", "\ufeff<img alt='caf\u00e9' src=a>".encode("utf-16")),
    ],
)
def test_encodings(content_type: str, html: bytes) -> None:
    assert read_page(html, URL, [("content-type", content_type)], "t").rows == (
        ImageText(DIR + "a", "caf\u00e9", "alt"),
    )


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=300),
    st.lists(st.sampled_from([b"<img src=", b"<figure>", b"<figcaption>", b"'", b">", b"<base href=", b"</"])),
)
def test_no_bytes_can_make_it_fail(noise: bytes, tags: list[bytes]) -> None:
    page = read_page(b"".join(tags) + noise + b"".join(reversed(tags)), URL, HTML, "t")
    assert page.images <= len(page.rows)


@pytest.mark.parametrize(
    "html",
    [
        "<figure><figcaption>x<img src=a>" * 20_000,
        "<div>" * 100_000 + "<img src=a>" * 10_000,
        f"<img srcset='{',' * 500_000}'>",
        f"<img srcset='{'a 1x, ' * 100_000}'>",
        "<img src='" + "../" * 100_000 + "a'>",
    ],
    ids=["nested figures", "deep", "commas", "many candidates", "dots"],
)
def test_hostile_pages_take_linear_time(html: str) -> None:
    started = time.process_time()
    read(html)
    assert time.process_time() - started < 10


def test_resolve_keeps_what_it_cannot_resolve() -> None:
    assert resolve(URL, "http://[x") == "http://[x"


def test_product_token() -> None:
    assert product_token("webimagetext/0.1 (research crawler)") == "webimagetext"
    assert product_token("Mozilla/5.0 (compatible; My-Bot/1.0; +http://x)") == "my-bot"


def test_robots_rules_by_status() -> None:
    rules = b"User-agent: *\nDisallow: /\n\nUser-agent: webimagetext\nDisallow: /private\nCrawl-delay: 2\n"
    known = RobotsRules(200, rules, "webimagetext")
    assert known.allows("http://h/a") and not known.allows("http://h/private/x") and known.crawl_delay_s == 2
    assert not RobotsRules(200, rules, "otherbot").allows("http://h/a")
    assert RobotsRules(404, rules, "otherbot").allows("http://h/a")
    for status in (500, 503, None):
        assert not RobotsRules(status, b"", "webimagetext").allows("http://h/a")


def test_opt_out_has_one_order() -> None:
    assert opt_out(directives(["noml,noai"], "t")) == opt_out(directives(["noai", "noml"], "t")) == "noai,noml"
