"""The crawl of one site, run as a process of its own: `python -m pipeline.sources.spider spec.json`.

It ends with the outcome of every page it came to know, as JSON lines, and with the pages themselves in the cache. It
lives no longer than the process that started it: when its standard input closes, it stops.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

import scrapy
from OpenSSL.SSL import Error as TlsError
from pydantic import BaseModel, ConfigDict
from scrapy import signals
from scrapy.crawler import AsyncCrawlerProcess
from scrapy.exceptions import (
    CannotResolveHostError,
    DownloadCancelledError,
    DownloadConnectionRefusedError,
    DownloadFailedError,
    DownloadTimeoutError,
    IgnoreRequest,
    ResponseDataLossError,
    StopDownload,
    UnsupportedURLSchemeError,
)
from twisted.internet.error import ConnectError, ConnectionClosed

from pipeline.addresses import is_public
from pipeline.sources.config import CrawlConfig
from pipeline.sources.frontier import MAX_REDIRECTS, Frontier, Target, Visit, origin_of
from pipeline.sources.lexbor_page import HostilePageError, read_lexbor_page
from pipeline.sources.page_cache import CachedPage, PageCache, open_cache
from pipeline.sources.resolver import PublicResolver
from pipeline.sources.robots import RobotsRules, product_token, retry_after_s

TRIES = 2
MAX_RETRY_AFTER_S = 60.0
MAX_ROBOTS_BYTES = 1 << 20  # RFC 9309, 2.5, asks for at least 500 KiB
# Statuses of a moment, not of the page: they are tried again, and never kept in the cache.
PASSING_STATUSES = frozenset((408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524))
REDIRECT_STATUSES = frozenset((301, 302, 303, 307, 308))
HTML_TYPES = ("text/html", "application/xhtml+xml")

OUTCOMES_OF_ERRORS = {
    DownloadTimeoutError: "timeout",
    DownloadCancelledError: "too_large",  # Scrapy cancels for no other reason
    IgnoreRequest: "too_large",  # so does its decompression
    DownloadConnectionRefusedError: "connection_refused",
    CannotResolveHostError: "dns_error",
}
OTHER_ERRORS = (
    *(DownloadFailedError, ResponseDataLossError, UnsupportedURLSchemeError),
    *(ConnectError, ConnectionClosed, TlsError, OSError, ValueError),
)
FINAL_ERRORS = ("too_large", "private_address", "deadline")  # a second try would end the same
NO_SITE_ERRORS = ("connection_refused", "dns_error", "private_address", "deadline")


class CrawlSpec(BaseModel):
    """What the process is told: the site's configuration, its cache, and the file for the outcomes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: CrawlConfig
    cache: Path
    visits: Path


class Fetched(NamedTuple):
    """A response, or the reason why there is none."""

    page: CachedPage | None
    failure: str = ""


class SiteSpider(scrapy.Spider):  # type: ignore[misc]  # Scrapy is read untyped
    """Fetches the pages of one site, wave by wave, each through the cache."""

    name = "site"

    def __init__(self, spec: CrawlSpec, cache: PageCache, frontier: Frontier) -> None:
        super().__init__()
        self._config = spec.config
        self._cache = cache
        self._frontier = frontier
        self._token = product_token(spec.config.user_agent)
        self._rules: dict[str, RobotsRules | str] = {}
        self._delay_s = spec.config.delay_s
        self._turn = asyncio.Lock()
        self._next_turn_s = 0.0
        self._deadline_s = 0.0

    @classmethod
    def from_crawler(cls, crawler: Any, *args: Any, **kwargs: Any) -> SiteSpider:
        """Made by Scrapy."""
        spider: SiteSpider = super().from_crawler(crawler, *args, **kwargs)
        crawler.signals.connect(_stop_at_other_types, signal=signals.headers_received)
        return spider

    async def start(self) -> AsyncIterator[Any]:
        """The whole crawl. It yields no requests: each wave is awaited before the next is known."""
        no_requests: tuple[scrapy.Request, ...] = ()
        loop = asyncio.get_running_loop()
        self._deadline_s = loop.time() + self._config.site_deadline_s
        while wave := await self._next_wave():
            await self._visit_all(wave)
            if loop.time() >= self._deadline_s:
                self._frontier.close("deadline")
        self._frontier.is_finished = True
        for request in no_requests:
            yield request

    async def _next_wave(self) -> list[Target]:
        if self._config.obey_robots:
            for origin in self._frontier.origins():
                if origin not in self._rules:
                    self._rules[origin] = await self._fetch_robots(origin)
        return self._frontier.next_wave(self._refusal)

    def _refusal(self, url: str) -> str | None:
        rules = self._rules.get(origin_of(url))
        if rules is None:
            return None
        if isinstance(rules, str):
            return rules
        if not rules.is_known:
            return "robots_unreachable"
        return None if rules.allows(url) else "robots"

    async def _fetch_robots(self, origin: str) -> RobotsRules | str:
        """The rules of an origin, or the outcome of all its pages. Never from the cache: a site may change its mind."""
        url = origin + "robots.txt"
        for _ in range(MAX_REDIRECTS + 1):
            page, failure = await self._fetch(url, is_robots=True)
            if page is None:
                return failure if failure in NO_SITE_ERRORS else RobotsRules(None, b"", self._token)
            location = _location(page)
            if location is None:
                rules = RobotsRules(page.status, page.body, self._token)
                self._delay_s = max(self._delay_s, rules.crawl_delay_s)
                return rules
            url = location
        return RobotsRules(404, b"", self._token)  # a chain that long counts as absent (RFC 9309, 2.3.1.2)

    async def _visit_all(self, wave: list[Target]) -> None:
        """Fetch a wave with as many requests open as the configuration allows, and record it in its own order."""
        results: dict[int, tuple[Visit, tuple[str, ...]]] = {}
        numbers = iter(range(len(wave)))

        async def work() -> None:
            for number in numbers:
                results[number] = await self._visit(wave[number])

        await asyncio.gather(*(work() for _ in range(self._config.concurrent_requests_per_site)))
        for number, target in enumerate(wave):
            self._frontier.record(target, *results[number])

    async def _visit(self, target: Target) -> tuple[Visit, tuple[str, ...]]:
        """What became of a page, and its links."""
        page, failure = self._cache.find(target.url), ""
        if page is None:
            page, failure = await self._fetch(target.url)
            if page is not None and page.status not in PASSING_STATUSES and page.status < 500:
                self._cache.store(page)
        if page is None:
            return Visit(target.url, None, failure, target.depth), ()
        visit = Visit(target.url, page.status, f"http_{page.status}", target.depth, redirect_to=_location(page))
        if not 200 <= page.status < 300:
            return visit, ()
        if not _is_html(page):
            return visit._replace(outcome="not_html"), ()
        try:
            read = read_lexbor_page(page.body, page.url, page.headers, self._token).page
        except HostilePageError:
            return visit._replace(outcome="hostile_page"), ()
        return visit._replace(outcome="ok", images=read.images), read.links

    async def _fetch(self, url: str, is_robots: bool = False) -> Fetched:
        """One response from the network, politely and within all limits."""
        fetched = Fetched(None, "deadline")
        for number in range(TRIES):
            if not await self._wait_for_turn():
                return fetched
            fetched = await self._try(url, is_robots)
            if fetched.failure in FINAL_ERRORS or (fetched.page and fetched.page.status not in PASSING_STATUSES):
                return fetched
            if number + 1 < TRIES and fetched.page:
                self._next_turn_s += _retry_after_s(fetched.page)
        return fetched

    async def _wait_for_turn(self) -> bool:
        """Wait until the site may be asked again; False if that would be after its deadline."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            at_s = max(self._next_turn_s, loop.time())
            if at_s >= self._deadline_s:
                return False
            await asyncio.sleep(at_s - loop.time())
            self._next_turn_s = loop.time() + self._delay_s
        return True

    async def _try(self, url: str, is_robots: bool) -> Fetched:
        host = urlsplit(url).hostname or ""
        if not self._config.allow_private_addresses and _is_literal(host) and not is_public(host):
            return Fetched(None, "private_address")
        meta: dict[str, Any] = {"is_robots": is_robots}
        if is_robots:
            meta["download_maxsize"] = MAX_ROBOTS_BYTES
        try:
            response = await self.crawler.engine.download_async(scrapy.Request(url, meta=meta))
        except (*OUTCOMES_OF_ERRORS, *OTHER_ERRORS) as error:
            outcome = OUTCOMES_OF_ERRORS.get(type(error), f"error:{type(error).__name__}")
            return Fetched(None, "private_address" if host in PublicResolver.refused else outcome)
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in _pairs(response.headers))
        return Fetched(CachedPage(url, response.status, headers, response.body))


def _pairs(headers: Any) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name in sorted(headers) for value in headers.getlist(name)]


def _stop_at_other_types(headers: Any, body_length: int, request: Any, spider: Any) -> None:
    """Read no further than the headers of a response that is not HTML."""
    content_type = (headers.get(b"Content-Type") or b"").decode("latin-1").lower()
    if content_type and not content_type.startswith(HTML_TYPES) and not request.meta.get("is_robots"):
        raise StopDownload(fail=False)


def _header(page: CachedPage, name: str) -> str | None:
    return next((value for key, value in page.headers if key.lower() == name), None)


def _location(page: CachedPage) -> str | None:
    """Where a redirect leads, absolute; None if the response is no redirect."""
    location = _header(page, "location")
    if page.status not in REDIRECT_STATUSES or not location:
        return None
    try:
        return urljoin(page.url, location.strip())
    except ValueError:
        return location


def _is_html(page: CachedPage) -> bool:
    content_type = _header(page, "content-type")
    return content_type.lower().startswith(HTML_TYPES) if content_type else b"<" in page.body[:512]


def _retry_after_s(page: CachedPage) -> float:
    """How long the server asks to wait, in seconds, bounded."""
    return min(retry_after_s(_header(page, "retry-after") or ""), MAX_RETRY_AFTER_S)


def _is_literal(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def scrapy_settings(config: CrawlConfig) -> dict[str, Any]:
    """Scrapy as a bounded downloader and nothing else: redirects, tries, robots.txt and pauses are the spider's own."""
    settings: dict[str, Any] = {
        "USER_AGENT": config.user_agent,
        "CONCURRENT_REQUESTS_PER_DOMAIN": config.concurrent_requests_per_site,
        "DOWNLOAD_DELAY": 0,
        "DOWNLOAD_TIMEOUT": config.timeout_s,
        "DOWNLOAD_MAXSIZE": config.max_page_bytes,
        "DOWNLOAD_WARNSIZE": 0,
        "ROBOTSTXT_OBEY": False,
        "REDIRECT_ENABLED": False,
        "METAREFRESH_ENABLED": False,
        "RETRY_ENABLED": False,
        "COOKIES_ENABLED": False,
        "HTTPPROXY_ENABLED": False,  # behind a proxy nobody could say which address is reached
        "TELNETCONSOLE_ENABLED": False,
        "EXTENSIONS_BASE": {},
        "LOG_LEVEL": "WARNING",
    }
    if not config.allow_private_addresses:
        settings["DNS_RESOLVER"] = PublicResolver
    return settings


def crawl(spec: CrawlSpec) -> None:
    """Crawl one site to its end, in this process."""
    frontier = Frontier(spec.config)
    with open_cache(spec.cache) as cache:
        process = AsyncCrawlerProcess(scrapy_settings(spec.config))
        done = process.crawl(SiteSpider, spec=spec, cache=cache, frontier=frontier)
        process.start()
        done.result()
    if not frontier.is_finished:
        raise RuntimeError("the crawl broke off; the reason stands in the log above")
    with spec.visits.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(visit) + "\n" for visit in frontier.all_visits())


def _stop_with_parent() -> None:
    """Leave as soon as standard input closes: whoever started the crawl is gone, and another may start it anew."""

    def watch() -> None:
        os.read(0, 1)  # not through sys.stdin, whose lock the interpreter wants at its end
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    _stop_with_parent()
    crawl(CrawlSpec.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8")))
