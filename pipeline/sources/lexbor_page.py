"""One HTML page read with Lexbor: the rows of `pipeline.sources.page`, several times faster.

Lexbor builds the tree of the HTML standard, libxml2 one of its own: on markup that is broken they may differ in where
an element stands. On everything else both readers give the same rows, to which tests/test_common_crawl.py holds them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import urldefrag

from selectolax.lexbor import LexborDocumentOptions, LexborHTMLParser, LexborNode
from w3lib.encoding import html_to_unicode

from pipeline.sources import page as libxml_page
from pipeline.sources.base_url import BaseUrl
from pipeline.sources.page import BLOCK_TAGS, LAZY_SOURCES, SRCSETS, UNREAD_TAGS, ImageText, Page, largest_candidate
from pipeline.sources.robots import directives, opt_out

READ_TAGS = "base,meta,figure,figcaption,picture,source,img"
OPTIONS = LexborDocumentOptions.WO_EVENTS.value  # we read the page and never change it
# Lexbor's time grows with the square of how deep elements nest and of how many attributes one has (libxml2's with that
# of attributes only): a page of 20 MB could take hours. A short page takes seconds at worst; a longer one is looked at.
SHORT_CHARS = 128 << 10
LONG_CHARS = 2 << 20
STRETCH_CHARS = 32 << 10
MAX_OPEN_TAGS = 20_000
MAX_ATTRIBUTES = 4_096

_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
_TAG_START = re.compile(r"<[A-Za-z]")

Attributes = dict[str, str | None]


class HostilePageError(ValueError):
    """The page cannot be read in reasonable time."""


class LexborPage(NamedTuple):
    """What one reading of a page gives, beyond the rows: `meta` are the `content`s by lower-case `name`."""

    page: Page
    meta: dict[str, list[str]]
    html_language: str | None


class _Image(NamedTuple):
    attributes: Attributes
    figure: int | None  # of the <figure> around it, by mem_id
    picture_sources: tuple[str, ...]


def read_lexbor_page(
    html: bytes, page_url: str, headers: Sequence[tuple[str, str]], token: str, with_links: bool = True
) -> LexborPage:
    """Read one page, without its links where they are not wanted. Raises HostilePageError.

    The contract is that of `pipeline.sources.page.read_page`, which reads what nests too deeply for this one.
    """
    names = [(name.lower(), value) for name, value in headers]
    content_type = next((value for name, value in names if name == "content-type"), None)
    _, text = html_to_unicode(content_type, html)
    if len(text) > SHORT_CHARS:
        if _has_endless_tag(text):
            raise HostilePageError(f"a tag with more than {MAX_ATTRIBUTES} attributes")
        if len(text) > LONG_CHARS or _nests_deeply(text):
            meta = _Walk(LexborHTMLParser(text[:STRETCH_CHARS], options=OPTIONS).css("meta")).meta
            return LexborPage(libxml_page.read_page(html, page_url, headers, token), meta, None)
    tree = LexborHTMLParser(text, options=OPTIONS)
    walk = _Walk(tree.css(READ_TAGS))
    robots = directives([value for name, value in names if name == "x-robots-tag"], token)
    robots |= directives((value for name in ("robots", token) for value in walk.meta.get(name, ())), token)
    base = BaseUrl(page_url, walk.base)
    rows = tuple(row for image in walk.images for row in _rows(image, walk.captions, base))
    links: tuple[str, ...] = ()
    if with_links and "nofollow" not in robots:
        links = tuple(dict.fromkeys(_links(tree, base)))
    root = tree.root
    language = root.attributes.get("lang") if root is not None else None
    return LexborPage(Page(rows, len(walk.images), links, opt_out(robots)), walk.meta, language)


class _Walk:
    """The elements that matter, gathered in the order of the page."""

    def __init__(self, elements: Sequence[LexborNode]) -> None:
        self.base: str | None = None
        self.meta: dict[str, list[str]] = {}
        self.images: list[_Image] = []
        self.captions: dict[int | None, str] = {}  # of figures; the first one counts
        self._sources: dict[int | None, list[str]] = {}  # of pictures, as found so far
        self._figure_of = _Ancestors("figure")
        self._picture_of = _Ancestors("picture")
        for element in elements:
            tag = element.tag
            if tag == "img":
                self._add_image(element)
            elif tag == "meta":
                self._add_meta(element.attributes)
            elif tag == "base" and self.base is None and "href" in element.attributes:
                self.base = element.attributes["href"] or ""
            elif tag == "figure":
                self._figure_of.is_needed = True
            elif tag == "picture":
                self._picture_of.is_needed = True
            elif tag == "figcaption":
                self._add_caption(element)
            elif tag == "source":
                self._add_source(element)

    def _add_image(self, element: LexborNode) -> None:
        picture = self._picture_of(element)
        sources = tuple(self._sources.get(picture, ())) if picture is not None else ()
        self.images.append(_Image(element.attributes, self._figure_of(element), sources))

    def _add_meta(self, attributes: Attributes) -> None:
        name = (attributes.get("name") or "").strip().lower()
        if name:
            self.meta.setdefault(name, []).append(attributes.get("content") or "")

    def _add_caption(self, element: LexborNode) -> None:
        figure = self._figure_of(element)
        if figure is not None and figure not in self.captions:
            self.captions[figure] = _text(element)

    def _add_source(self, element: LexborNode) -> None:
        picture = self._picture_of(element)
        if picture is None:
            return
        attributes = element.attributes
        if not (attributes.get("type") or "").startswith("image/svg"):
            found = [value for name in SRCSETS if (value := attributes.get(name))]
            self._sources.setdefault(picture, []).extend(found)


class _Ancestors:
    """The nearest ancestor of a tag, by mem_id. Climbs are remembered, so all of them together are linear."""

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self._known: dict[int, int | None] = {}
        self.is_needed = False  # set once the page has such an element

    def __call__(self, element: LexborNode) -> int | None:
        if not self.is_needed:
            return None
        climbed: list[int] = []
        found: int | None = None
        node = element.parent
        while node is not None:
            identity = node.mem_id
            if identity in self._known:
                found = self._known[identity]
                break
            climbed.append(identity)
            if node.tag == self._tag:
                found = identity
                break
            node = node.parent
        for identity in climbed:
            self._known[identity] = found
        return found


def _text(element: LexborNode) -> str:
    """The text inside an element, without that of scripts and of figures nested in it."""
    pieces: list[str] = []
    node, is_down = element.child, True
    depth = 1
    while node is not None and depth:
        if is_down:
            if node.is_text_node:
                pieces.append(node.text_content or "")
            elif node.is_element_node and node.tag not in UNREAD_TAGS:
                pieces.append(" " if node.tag in BLOCK_TAGS else "")
                if node.child is not None:
                    node, depth = node.child, depth + 1
                    continue
        if node.is_element_node and node.tag in BLOCK_TAGS:
            pieces.append(" ")
        if node.next is not None:
            node, is_down = node.next, True
        else:
            node, is_down, depth = node.parent, False, depth - 1
    return "".join(pieces)


def _has_endless_tag(text: str) -> bool:
    for piece in text.split(">"):
        if len(piece) > MAX_ATTRIBUTES and (start := _TAG_START.search(piece)):
            names = _QUOTED.sub(" ", piece[start.start() :]).replace("/", " ")  # what is quoted are values
            if len(names.split()) > MAX_ATTRIBUTES:
                return True
    return False


def _nests_deeply(text: str) -> bool:
    """Whether many elements may be open at once, counted over stretches of the page."""
    is_open = 0  # <br> and the like count too
    for start in range(0, len(text), STRETCH_CHARS):
        end = start + STRETCH_CHARS
        is_open = max(is_open + text.count("<", start, end) - 2 * text.count("</", start, end), 0)
        if is_open > MAX_OPEN_TAGS:
            return True
    return False


def _links(tree: LexborHTMLParser, base: BaseUrl) -> Iterator[str]:
    for element in tree.css("a,area"):
        attributes = element.attributes
        href = attributes.get("href") or ""
        if not href.strip() or "nofollow" in (attributes.get("rel") or "").lower().split():
            continue
        url = urldefrag(base.resolve(href)).url if "#" in href else base.resolve(href)
        if url[:7].lower() == "http://" or url[:8].lower() == "https://":
            yield url


def _rows(image: _Image, captions: dict[int | None, str], base: BaseUrl) -> Iterator[ImageText]:
    attributes = image.attributes
    found = _image_url(attributes, image.picture_sources)
    url = base.resolve(found) if found is not None else None
    caption = captions.get(image.figure) if image.figure is not None else None
    texts = (("alt", attributes.get("alt")), ("title", attributes.get("title")), ("figcaption", caption))
    has_text = False
    for key, text in texts:
        if text and not text.isspace():
            has_text = True
            yield ImageText(url, text, key)
    if not has_text:
        yield ImageText(url, None, "alt")


def _image_url(attributes: Attributes, picture_sources: tuple[str, ...]) -> str | None:
    """The URL of the image's largest version, as found; the rule is that of `pipeline.sources.page`."""
    srcsets = [value for name in SRCSETS if (value := attributes.get(name))] + list(picture_sources)
    src = attributes.get("src")
    if not srcsets and src and not _is_placeholder(src) and src.strip():
        return src
    candidates = [best for srcset in srcsets if (best := largest_candidate(srcset))]
    largest = max(candidates, key=lambda candidate: candidate[:2], default=None)
    if largest and (largest[0] > 0 or largest[1] > 1):
        return largest[2]
    if src and src.strip() and not _is_placeholder(src):
        return src
    others = [largest[2] if largest else None, *(attributes.get(name) for name in LAZY_SOURCES), src]
    return next((url for url in others if url and url.strip()), None)


def _is_placeholder(src: str) -> bool:
    return src.lstrip()[:5].lower() == "data:"
