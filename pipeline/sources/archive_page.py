"""What one page of a web archive gives, whichever file of Common Crawl it was read from."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.sources.page import ImageText
from pipeline.sources.robots import opt_out

TDM_RESERVATION = "tdm-reservation"


class ArchivePage(NamedTuple):
    """A page with the texts of its images, and where and when it was fetched."""

    url: str
    rows: tuple[ImageText, ...]  # in the order of the page; only those with a text
    textless: int  # images without any
    opt_out: str | None  # comma-joined tokens
    languages: str | None  # hints: Content-Language and the `lang` of <html>, comma-joined
    fetch_time: str  # ISO 8601, as the archive has it
    warc_file: str  # that holds the page itself
    warc_offset: int | None  # in bytes


class PageError(ValueError):
    """A page cannot be read; `reason` is what it is counted as."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def page_opt_out(robots: frozenset[str], tdm_reservations: list[str]) -> str | None:
    """The opt-out tokens of a page: those of robots directives, and `tdm-reservation` where one is 1 (W3C TDMRep)."""
    tokens = opt_out(robots)
    if not any(value.strip() == "1" for value in tdm_reservations):
        return tokens
    return f"{tokens},{TDM_RESERVATION}" if tokens else TDM_RESERVATION


def language_hints(*hints: str | None) -> str | None:
    """The hints that say something, each once."""
    found = dict.fromkeys(hint.strip()[:100] for hint in hints if hint and hint.strip())
    return ",".join(found) or None
