"""Text of an encyclopaedia as lines: a `pages-articles` dump or plain text files, one file a part, streamed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, XMLPullParser

import pyarrow as pa
from upath import UPath

from pipeline.errors import InputError
from pipeline.queries.candidates import READ_BYTES, BatchWriter, LineReader, open_unpacked
from pipeline.queries.config import WikipediaConfig
from pipeline.queries.wikitext import strip_wikitext
from pipeline.stage import Counts, Stage

LINES_FILE = "lines.parquet"
LINES_SCHEMA = pa.schema([("line", pa.string())])
ARTICLES = "0"  # MediaWiki's number of the main namespace
UNREADABLE_REST = "unreadable_rest"


DUMP_NAME = re.compile(r"\.xml(-p\d+p\d+)?(\.bz2|\.gz)?$")


@dataclass(frozen=True)
class Page:
    """One page of a dump; `wikitext` is None if it is no article, and `reason` says why."""

    title: str
    wikitext: str | None
    reason: str = ""


def _wikipedia_text(sources: Sequence[UPath], out: Path, config: WikipediaConfig) -> Counts:
    """`sources` is one file, packed or not: a dump (`*.xml`, or a piece of one, `*.xml-p1p41242`), else plain text.

    Rows are pages, or lines.
    """
    (path,) = sources
    with BatchWriter(out / LINES_FILE, LINES_SCHEMA) as writer:
        if DUMP_NAME.search(path.name):
            return _write_pages(path, writer, config)
        return _write_lines(path, writer, config)


def _write_lines(path: UPath, writer: BatchWriter, config: WikipediaConfig) -> Counts:
    rows, dropped = 0, Counter[str]()
    lines = LineReader(path, config.max_page_chars)
    for line, problem in lines:
        rows += 1
        text = (line or "").strip()
        if reason := problem or ("" if text else "empty"):
            dropped[reason] += 1
        else:
            writer.append(text)
    rows += lines.is_cut
    dropped[UNREADABLE_REST] += lines.is_cut
    return _counts(rows, dropped)


def _write_pages(path: UPath, writer: BatchWriter, config: WikipediaConfig) -> Counts:
    rows, dropped = 0, Counter[str]()
    for page in read_pages(path):
        rows += 1
        if page.wikitext is None:
            dropped[page.reason] += 1
        elif len(page.wikitext) > config.max_page_chars:
            dropped["long_page"] += 1
        elif lines := strip_wikitext(page.wikitext):
            for line in lines:
                writer.append(line)
        else:
            dropped["no_text"] += 1
    return _counts(rows, dropped)


def _counts(rows: int, dropped: Counter[str]) -> Counts:
    dropped = +dropped
    return Counts(rows_in=rows, rows_kept=rows - dropped.total(), dropped=dict(sorted(dropped.items())))


def read_pages(path: UPath) -> Iterator[Page]:
    """The pages of a dump (mediawiki.org/xml/export-0.x), one in memory at a time.

    A file that breaks off ends with a page of reason `unreadable_rest`. Raises InputError if not one page can be read.
    """
    parser: XMLPullParser[Element] = XMLPullParser(events=("start", "end"))
    pages = 0
    root: Element | None = None
    with open_unpacked(path) as file:
        try:
            for chunk in iter(lambda: file.read(READ_BYTES), b""):
                parser.feed(chunk)
                for event in parser.read_events():
                    element = event[-1]
                    if not isinstance(element, Element):
                        continue
                    if root is None:
                        root = element
                    if event[0] == "end" and _name(element) == "page":
                        pages += 1
                        yield _page(element)
                        root.clear()  # else the tree of the whole dump would stay
            parser.close()
        except (EOFError, OSError, ParseError) as error:
            if not pages:
                raise InputError(
                    f"{path}: no page of a Wikipedia dump can be read: {error}; fetch the file again"
                ) from error
            yield Page("", None, UNREADABLE_REST)


def _page(element: Element) -> Page:
    title, namespace, is_redirect, wikitext = "", ARTICLES, False, ""
    for child in element.iter():
        match _name(child):
            case "title":
                title = child.text or ""
            case "ns":
                namespace = child.text or ""
            case "redirect":
                is_redirect = True
            case "text":
                wikitext = child.text or ""
    if namespace != ARTICLES:
        return Page(title, None, "not_an_article")
    if is_redirect:
        return Page(title, None, "redirect")
    return Page(title, wikitext)


def _name(element: Element) -> str:
    return element.tag.rpartition("}")[2]


WIKIPEDIA_TEXT = Stage("wikipedia_text", _wikipedia_text)
