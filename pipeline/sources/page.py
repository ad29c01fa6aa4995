"""One HTML page read: its images with the texts beside them, its links, and what it says to robots."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from urllib.parse import urldefrag, urljoin, urlsplit

from lxml import etree
from parsel import Selector
from w3lib.encoding import html_to_unicode

from pipeline.sources.robots import directives, opt_out
from pipeline.sources.rows import DATA_URL_CHARS
from pipeline.urls import tidy

LAZY_SOURCES = ("data-src", "data-lazy-src", "data-original")
SRCSETS = ("srcset", "data-srcset", "data-lazy-srcset")
READ_TAGS = ("a", "area", "figure", "figcaption", "picture", "source", "img")
# Elements whose content stands apart from the text around them: "<p>a</p><p>b</p>" reads "a b", "<b>a</b>b" reads "ab".
BLOCK_TAGS = frozenset("p div br li ul ol dl dt dd tr td th h1 h2 h3 h4 h5 h6".split())  # noqa: SIM905
UNREAD_TAGS = frozenset(("script", "style", "noscript", "template", "figure"))


class ImageText(NamedTuple):
    """An image of the page with one of its texts; one without text comes once, with `caption_raw` None and "alt"."""

    url: str | None
    caption_raw: str | None
    text_key: str


class Page(NamedTuple):
    """What a page holds, in the order of the page."""

    rows: tuple[ImageText, ...]
    images: int
    links: tuple[str, ...]  # absolute http(s) URLs without fragment, each once; none if the page says nofollow
    opt_out: str | None  # comma-joined tokens


class _Figure:
    """An open <figure>: its caption may come after its images."""

    def __init__(self) -> None:
        self.caption: str | None = None


class _Image(NamedTuple):
    element: etree._Element
    figure: _Figure | None
    picture_sources: tuple[str, ...]  # srcset values of the <picture> around it


def read_page(html: bytes, page_url: str, headers: Sequence[tuple[str, str]], token: str) -> Page:
    """Read one page.

    `headers` are those of the response, names in any case; `token` is the crawler's name in lower case, to know which
    robots directives are meant for it. Broken HTML is read as far as libxml2 can mend it. Time is linear in the page.
    """
    names = [(name.lower(), value) for name, value in headers]
    content_type = next((value for name, value in names if name == "content-type"), None)
    _, text = html_to_unicode(content_type, html)
    root = Selector(text=text, type="html").root
    if not isinstance(root, etree._Element):
        return Page((), 0, (), None)
    robots = directives([value for name, value in names if name == "x-robots-tag"], token) | _meta_directives(
        root, token
    )
    base = _base_url(root, page_url)
    images, hrefs = _walk(root)
    rows = tuple(row for image in images for row in _rows(image, base))
    links = () if "nofollow" in robots else tuple(dict.fromkeys(_links(hrefs, base)))
    return Page(rows, len(images), links, opt_out(robots))


def resolve(base: str, url: str) -> str:
    """`url` made absolute as a browser would, or as found if that is not possible."""
    url = tidy(url)
    if url[:5].lower() == "data:":
        return url[:DATA_URL_CHARS]
    try:
        return urljoin(base, url)
    except ValueError:  # "http://[" and the like
        return url


def largest_candidate(srcset: str) -> tuple[float, float, str] | None:
    """The candidate of a `srcset` with the most pixels: (width w or 0, density x, URL); None if it names none.

    Split as the HTML standard says: a URL ends at white space, so that commas within it are its own.
    """
    best: tuple[float, float, str] | None = None
    for url, descriptors in _candidates(srcset):
        width = density = 0.0
        for descriptor in descriptors:
            number = _number(descriptor[:-1])
            if descriptor.endswith("w"):
                width = number
            elif descriptor.endswith("x"):
                density = number
        size = (width, density if descriptors else 1.0)
        if best is None or size > best[:2]:
            best = (*size, url)
    return best


def _candidates(srcset: str) -> Iterator[tuple[str, list[str]]]:
    url: str | None = None
    descriptors: list[str] = []
    for word in srcset.split():
        if url is not None:
            # Behind a URL stand descriptors up to a comma; the next URL may follow it without a space.
            descriptor, comma, word = word.partition(",")
            descriptors += [descriptor] if descriptor else []
            if not comma:
                continue
            yield url, descriptors
            url, descriptors = None, []
        word = word.lstrip(",")
        if word.endswith(","):
            yield word.rstrip(","), []
        elif word:
            url = word
    if url is not None:
        yield url, descriptors


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _meta_directives(root: etree._Element, token: str) -> frozenset[str]:
    metas = [meta for meta in root.iter("meta") if (meta.get("name") or "").strip().lower() in ("robots", token)]
    return directives((meta.get("content") or "" for meta in metas), token)


def _base_url(root: etree._Element, page_url: str) -> str:
    for element in root.iter("base"):
        href = element.get("href")
        if href is not None:  # only the first one counts
            base = resolve(page_url, href)
            return base if urlsplit(base).scheme in ("http", "https") else page_url
    return page_url


def _walk(root: etree._Element) -> tuple[list[_Image], list[str]]:
    """The images with their surroundings and the followed links, in one pass over the page."""
    images: list[_Image] = []
    hrefs: list[str] = []
    figures: list[_Figure] = []
    sources: list[list[str]] = []
    for event, element in etree.iterwalk(root, events=("start", "end"), tag=READ_TAGS):
        tag, is_start = element.tag, event == "start"
        if tag == "figure":
            figures.append(_Figure()) if is_start else figures.pop()
        elif tag == "picture":
            sources.append([]) if is_start else sources.pop()
        elif not is_start:
            continue
        elif tag == "figcaption" and figures and figures[-1].caption is None:
            figures[-1].caption = _text(element)
        elif tag == "source" and sources:
            sources[-1] += _source_srcsets(element)
        elif tag == "img":
            images.append(_Image(element, figures[-1] if figures else None, tuple(sources[-1] if sources else ())))
        elif tag in ("a", "area") and "nofollow" not in (element.get("rel") or "").lower().split():
            hrefs.append(element.get("href") or "")
    return images, hrefs


def _source_srcsets(source: etree._Element) -> list[str]:
    if (source.get("type") or "").startswith("image/svg"):
        return []
    return [source.get(name) for name in SRCSETS if source.get(name)]


def _text(element: etree._Element) -> str:
    """The text inside an element, without that of scripts and of figures nested in it."""
    pieces: list[str] = []
    walker = etree.iterwalk(element, events=("start", "end", "comment", "pi"))
    for event, node in walker:
        edge = " " if node.tag in BLOCK_TAGS else ""
        if event == "start" and node is not element and node.tag in UNREAD_TAGS:
            walker.skip_subtree()
        elif event == "start":
            pieces += [edge, node.text or ""]
        elif node is not element:
            pieces += [edge, node.tail or ""]
    return "".join(pieces)


def _rows(image: _Image, base: str) -> Iterator[ImageText]:
    found = _image_url(image)
    url = resolve(base, found) if found is not None else None
    figure_caption = image.figure.caption if image.figure else None
    texts = (("alt", image.element.get("alt")), ("title", image.element.get("title")), ("figcaption", figure_caption))
    present = [(key, text) for key, text in texts if text and not text.isspace()]
    for key, text in present or [("alt", None)]:
        yield ImageText(url, text, key)


def _image_url(image: _Image) -> str | None:
    """The URL of the image's largest version, as found.

    That is the largest srcset candidate of the image or of its picture. Where these name no size, `src` is the image
    itself, unless it is absent or an embedded placeholder: then comes a candidate without size, then one of lazy
    loading.
    """
    element = image.element
    srcsets = [element.get(name) for name in SRCSETS if element.get(name)] + list(image.picture_sources)
    candidates = [best for srcset in srcsets if (best := largest_candidate(srcset))]
    largest = max(candidates, key=lambda candidate: candidate[:2], default=None)
    if largest and (largest[0] > 0 or largest[1] > 1):
        return largest[2]
    src: str | None = element.get("src")
    if src and src.strip() and not _is_placeholder(src):
        return src
    others = [largest[2] if largest else None, *(element.get(name) for name in LAZY_SOURCES), src]
    return next((url for url in others if url and url.strip()), None)


def _is_placeholder(src: str) -> bool:
    return src.lstrip()[:5].lower() == "data:"


def _links(hrefs: Iterable[str], base: str) -> Iterator[str]:
    for href in hrefs:
        if not href.strip():
            continue
        url = urldefrag(resolve(base, href)).url if "#" in href else resolve(base, href)
        if url[:7].lower() == "http://" or url[:8].lower() == "https://":
            yield url
