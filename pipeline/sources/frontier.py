"""Which pages of a site come next: breadth first, in waves, so that the order of arrival never matters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import urldefrag, urljoin, urlsplit

from pipeline.sources.config import CrawlConfig
from pipeline.urls import normalise_url

MAX_REDIRECTS = 5  # RFC 9309 asks for five with robots.txt; pages get the same

# A link to one of these is not a page; it is noted as not_html and not fetched.
FILE_ENDINGS = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".png",
        ".gif",
        ".webp",
        ".avif",
        ".bmp",
        ".svg",
        ".ico",
        ".tif",
        ".tiff",
        ".psd",
        ".eps",
        ".heic",
    ]
    + [".mp3", ".wav", ".ogg", ".flac", ".m4a", ".aac", ".mp4", ".m4v", ".avi", ".mov", ".mkv", ".webm", ".wmv", ".flv"]
    + [
        ".pdf",
        ".doc",
        ".docx",
        ".xls",
        ".xlsx",
        ".ppt",
        ".pptx",
        ".odt",
        ".ods",
        ".odp",
        ".epub",
        ".csv",
        ".xml",
        ".rss",
    ]
    + [
        ".zip",
        ".gz",
        ".tgz",
        ".bz2",
        ".xz",
        ".7z",
        ".rar",
        ".tar",
        ".exe",
        ".dmg",
        ".iso",
        ".bin",
        ".apk",
        ".jar",
        ".rpm",
    ]
    + [".css", ".js", ".json", ".woff", ".woff2", ".ttf", ".otf", ".ics"]
)


class Target(NamedTuple):
    """A page to be fetched."""

    url: str
    depth: int
    redirects: int


class Visit(NamedTuple):
    """What became of one page: a row of `pages.parquet`."""

    page_url: str
    status: int | None
    outcome: str
    depth: int
    images: int = 0
    redirect_to: str | None = None


class Frontier:
    """The pages of one site that a crawl came to know, each with exactly one visit at the end.

    A wave is what was found by the wave before it, in the order of its pages and of their links, so the bounds on depth
    and on the number of pages cut a static site at the same place in every run. Not so where the server's answers
    differ: a page that timed out once and not the next time, and whatever lies behind the time limit of the site.
    """

    def __init__(self, config: CrawlConfig) -> None:
        self._config = config
        self._site = site_of(config.seeds[0])
        self._seen: set[str] = set()
        self._waiting: list[Target] = []
        self._too_deep: dict[str, Target] = {}
        self._fetched = 0
        self.visits: list[Visit] = []
        self.is_finished = False  # set by whoever crawls, when no wave is left
        for seed in config.seeds:
            self._offer(seed, 0, 0)

    def origins(self) -> list[str]:
        """The origins (scheme, host and port) of the pages that wait, sorted."""
        return sorted({origin_of(target.url) for target in self._waiting})

    def next_wave(self, refusal: Callable[[str], str | None]) -> list[Target]:
        """The pages to fetch now. Those for which `refusal` gives an outcome, and those over the bound, are closed."""
        waiting, self._waiting = self._waiting, []
        wave: list[Target] = []
        for target in waiting:
            outcome = refusal(target.url)
            if outcome is None and self._fetched + len(wave) < self._config.max_pages_per_site:
                wave.append(target)
            else:
                self._close(target, outcome or "page_limit")
        self._fetched += len(wave)
        return wave

    def record(self, target: Target, visit: Visit, links: Iterable[str]) -> None:
        """Note what became of a page, and the pages it leads to. To be called in the order of the wave."""
        for link in links:
            self._offer(link, target.depth + 1, 0)
        if visit.redirect_to is not None:
            outcome = "redirect"
            if site_of(visit.redirect_to) != self._site:
                outcome = "off_site"
            elif target.redirects == MAX_REDIRECTS:
                outcome = "redirect_limit"
            else:
                self._offer(visit.redirect_to, target.depth, target.redirects + 1)
            visit = visit._replace(outcome=outcome)
        self.visits.append(visit)

    def close(self, outcome: str) -> None:
        """Give every page that still waits this outcome."""
        for target in self._waiting:
            self._close(target, outcome)
        self._waiting = []

    def all_visits(self) -> list[Visit]:
        """What became of every page, sorted by page."""
        too_deep = [target for key, target in self._too_deep.items() if key not in self._seen]
        visits = self.visits + [Visit(target.url, None, "depth_limit", target.depth) for target in too_deep]
        return sorted(visits, key=lambda visit: visit.page_url)

    def _offer(self, url: str, depth: int, redirects: int) -> None:
        key = normalise_url(url)
        if key is None or key in self._seen or site_of(key) != self._site:
            return
        target = Target(urldefrag(url).url, depth, redirects)
        if target.depth > self._config.max_depth:
            self._too_deep.setdefault(key, target)
            return
        self._seen.add(key)
        if PurePosixPath(urlsplit(key).path).suffix.lower() in FILE_ENDINGS:
            self._close(target, "not_html")
        else:
            self._waiting.append(target)

    def _close(self, target: Target, outcome: str) -> None:
        self.visits.append(Visit(target.url, None, outcome, target.depth))


def site_of(url: str) -> str:
    """The site of an http(s) URL: its host, with the port unless that is a default one; "" if it has none.

    http and https of one host are one site, for the first usually leads to the second.
    """
    normal = normalise_url(url)
    return urlsplit(normal).netloc.rpartition("@")[2] if normal else ""


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL: what one robots.txt speaks for."""
    return urljoin(normalise_url(url) or url, "/")
