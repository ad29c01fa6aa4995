"""Asks hosts for images as a guest should: within a deadline and all bounds, by robots.txt, one turn after the other.

The bounds and the words of its errors are those of the opener that img2dataset gets (pipeline/bounded_opener.py). Proxies of
the environment are not used: behind one, the address that is reached cannot be checked.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urljoin, urlsplit

import aiohttp
from w3lib.url import safe_url_string
from yarl import URL

from pipeline.addresses import is_public
from pipeline.config import DownloadConfig
from pipeline.fetch_error import TDM_HEADER_SAYS_SO, FetchError, refusal
from pipeline.http_constants import CACHED_HOSTS, CHUNK_BYTES, DEFAULT_PORTS, REDIRECTS
from pipeline.jpeg import is_cut_off
from pipeline.polite_hosts import PoliteHosts
from pipeline.sources.robots import RobotsRules, directives, opt_out, product_token
from pipeline.tdm_rules import MAX_TDM_BYTES, NO_TDM_RULES, TDM_FILE, TDM_HEADER, TDM_RESERVED, TdmRules

MAX_ROBOTS_BYTES = 1 << 20  # RFC 9309, 2.5, asks for at least 500 KiB
MAX_ROBOTS_REDIRECTS = 5  # RFC 9309, 2.3.1.2
DNS_CACHE_S = 600
KEEP_ALIVE_S = 5

T = TypeVar("T")
Reader = Callable[[aiohttp.ClientResponse], Awaitable[T]]


class PrivateAddressError(OSError):
    """An address that must not be connected to."""


@dataclass
class TimeLeft:
    """What is left of the time of one image, redirects included; waiting for a turn costs none of it."""

    seconds: float

    @contextmanager
    def running(self) -> Iterator[float]:
        """The seconds left, less those that the block takes."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            yield self.seconds
        finally:
            self.seconds -= loop.time() - started


class PoliteFetcher:
    """Fetches from inside one event loop; `decoders` runs what is done with each body."""

    def __init__(self, config: DownloadConfig, decoders: Executor) -> None:
        self._config = config
        self._decoders = decoders
        self._hosts = PoliteHosts(config.threads, config.connections_per_host, config.host_delay_s)
        self._token = product_token(config.user_agent)
        self._rules: dict[str, asyncio.Task[RobotsRules | FetchError]] = {}
        self._reservations: dict[str, asyncio.Task[TdmRules | FetchError]] = {}

    async def __aenter__(self) -> Self:
        # Names are looked up in the loop's own pool of threads; a look-up cannot be interrupted.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(self._config.threads))
        connector = aiohttp.TCPConnector(
            ssl=ssl.create_default_context(),  # 26 ms of work: once, not once for each image
            limit=0,  # PoliteHosts counts
            ttl_dns_cache=DNS_CACHE_S,
            dns_cache_max_size=CACHED_HOSTS,
            keepalive_timeout=KEEP_ALIVE_S,
            happy_eyeballs_delay=None,
            socket_factory=self._socket,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={"User-Agent": self._config.user_agent, "Accept": "*/*", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._config.timeout_s, sock_read=self._config.timeout_s
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in (*self._rules.values(), *self._reservations.values()):
            task.cancel()
        await self._session.close()

    async def fetch(self, url: str, store: Callable[[bytes], T]) -> T:
        """What `store` makes of the body of an image, in a thread, while its host waits. Raises FetchError."""

        async def read(response: aiohttp.ClientResponse) -> bytes:
            return await self._read_image(response)

        async def finish(body: bytes) -> T:
            return await asyncio.get_running_loop().run_in_executor(self._decoders, store, body)

        for tries_left in reversed(range(1 + self._config.retries)):
            try:
                return await self._follow(url, read, finish, self._config.max_redirects, is_image=True)
            except FetchError as error:
                if error.is_settled or not tries_left:
                    raise
        raise AssertionError("the last try returns or raises")

    async def _follow(
        self, url: str, read: Reader[Any], finish: Callable[[Any], Awaitable[T]], max_redirects: int, is_image: bool
    ) -> T:
        """What `finish` makes of what `read` takes from the answer at the end of the redirects."""
        left = TimeLeft(self._config.image_deadline_s)
        seen: set[str] = set()
        while True:
            with self._naming_errors():
                url = safe_url_string(url)
                parts = urlsplit(url)
                if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
                    raise ValueError(f"not an http or https address: {url}")
            if url in seen:
                raise FetchError("too_many_redirects", f"back to {url}")
            if len(seen) > max_redirects:
                raise FetchError("too_many_redirects", f"more than {max_redirects}")
            seen.add(url)
            if is_image and self._config.obey_robots:
                await self._require_permission(url)
            if is_image and self._config.obey_tdm_reservations:
                await self._require_no_reservation(url)
            async with self._hosts.turn(parts.hostname) as host:
                loop = asyncio.get_running_loop()
                started_at = loop.time()
                try:
                    target, taken = await self._get(url, read, left, is_last=is_image and not host.waiting)
                except FetchError as error:
                    host.failed(error, started_at, loop.time())
                    raise
                host.answered()
                if target is None:
                    return await finish(taken)
            with self._naming_errors():
                url = urljoin(url, target)

    async def _get(self, url: str, read: Reader[Any], left: TimeLeft, is_last: bool) -> tuple[str | None, Any]:
        """One answer: where it redirects to, or what `read` took from it.

        The last request to a host closes its connection: those of thousands of hosts would be more than a process may have.
        """
        headers = {"Connection": "close"} if is_last else {}
        with self._naming_errors(), left.running() as seconds:
            async with (
                asyncio.timeout(max(seconds, 0)),
                self._session.get(URL(url, encoded=True), headers=headers, allow_redirects=False) as response,
            ):
                target = response.headers.get("Location") if response.status in REDIRECTS else None
                return target, await read(response) if target is None else None

    @contextmanager
    def _naming_errors(self) -> Iterator[None]:
        """Turn whatever the network throws into FetchError."""
        try:
            yield
        except TimeoutError as error:
            bounds = f"{self._config.timeout_s:g} s without a byte or {self._config.image_deadline_s:g} s in all"
            raise FetchError("timeout", f"over {bounds}") from error
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, PrivateAddressError):
                raise FetchError("private_address", str(error.os_error)) from error
            is_dns = isinstance(error.os_error, socket.gaierror)
            raise FetchError("dns" if is_dns else "connection", str(error.os_error)) from error
        except aiohttp.ClientPayloadError as error:
            if "ConnectionResetError" in str(error):  # aiohttp tells it in words only
                raise FetchError("connection", "reset in the middle of the body") from error
            raise FetchError("not_an_image", "cut off: the rest of the body did not come") from error
        except OSError as error:
            raise FetchError("connection", str(error)) from error
        except aiohttp.ServerDisconnectedError as error:
            raise FetchError("connection", str(error)) from error
        except (aiohttp.ClientError, ValueError) as error:
            raise FetchError("fetch_failed", f"{type(error).__name__}: {error}") from error

    async def _read_image(self, response: aiohttp.ClientResponse) -> bytes:
        """The body of an image. Raises FetchError if the host refuses it, or it is too large or cut off."""
        if not 200 <= response.status < 300:
            raise refusal(response.status, response.headers.get("Retry-After"))
        told = opt_out(directives(response.headers.getall("X-Robots-Tag", ()), self._config.user_agent_token.lower()))
        if told:
            raise FetchError("opted_out_image", f"X-Robots-Tag says {told}")
        if self._config.obey_tdm_reservations and response.headers.get(TDM_HEADER, "").strip() == TDM_RESERVED:
            raise FetchError(*TDM_HEADER_SAYS_SO)
        announced, bound = response.content_length, self._config.max_image_bytes
        if announced is not None and announced > bound:
            raise FetchError("too_large", f"{announced} bytes announced, at most {bound} allowed")
        body = await _read_up_to(response, bound + 1)
        if len(body) > bound:
            raise FetchError("too_large", f"more than the {bound} bytes allowed")
        if is_cut_off(body):
            raise FetchError("not_an_image", f"cut off: the JPEG of {len(body)} bytes has no end")
        return body

    async def _require_permission(self, url: str) -> None:
        """Raise FetchError if the robots.txt of the URL's origin forbids it, or cannot be read."""
        origin, host = _origin(url)
        rules = await _once(self._rules, origin, lambda: self._fetch_rules(origin, host))
        if not rules.allows(url):
            raise FetchError("robots", "robots.txt forbids it")

    async def _fetch_rules(self, origin: str, host: str) -> RobotsRules | FetchError:
        async def read(response: aiohttp.ClientResponse) -> RobotsRules | FetchError:
            if response.status >= 500:  # the rules may exist and cannot be known: RFC 9309, 2.3.1.4
                return FetchError(f"http_{response.status}", "the answer at robots.txt")
            return RobotsRules(response.status, await _read_up_to(response, MAX_ROBOTS_BYTES), self._token)

        rules: RobotsRules | FetchError
        try:
            rules = await self._follow(f"{origin}robots.txt", read, _as_it_is, MAX_ROBOTS_REDIRECTS, is_image=False)
        except FetchError as error:
            if error.reason == "too_many_redirects":
                return RobotsRules(404, b"", self._token)  # counts as absent: RFC 9309, 2.3.1.2
            return FetchError(error.reason, f"robots.txt: {error.detail}")
        if isinstance(rules, RobotsRules):
            polite = self._hosts[host]
            polite.delay_s = max(polite.delay_s, rules.crawl_delay_s)
        return rules

    async def _require_no_reservation(self, url: str) -> None:
        """Raise FetchError if the tdmrep.json of the URL's origin reserves it, or that host cannot be reached."""
        origin, _ = _origin(url)
        rules = await _once(self._reservations, origin, lambda: self._fetch_reservations(origin))
        if rules.reserves(url):
            raise FetchError("tdm_reserved", "tdmrep.json reserves it")

    async def _fetch_reservations(self, origin: str) -> TdmRules | FetchError:
        """The origin's rules; whatever else it answers, it "does not implement this protocol" (the report, 5.1)."""

        async def read(response: aiohttp.ClientResponse) -> TdmRules:
            if not 200 <= response.status < 300:
                return NO_TDM_RULES
            return TdmRules(await _read_up_to(response, MAX_TDM_BYTES))

        try:
            return await self._follow(origin + TDM_FILE, read, _as_it_is, MAX_ROBOTS_REDIRECTS, is_image=False)
        except FetchError as error:
            if error.is_settled:
                return NO_TDM_RULES
            return FetchError(error.reason, f"{TDM_FILE}: {error.detail}")

    def _socket(self, address: Any) -> socket.socket:
        """The socket of a connection to an address that may be connected to; called with each one right before."""
        family, kind, protocol, _, at = address
        if not self._config.allow_private_addresses and not is_public(at[0]):
            raise PrivateAddressError("the host is at an address that is not of the public Internet")
        return socket.socket(family, kind, protocol)


async def _once(
    known: dict[str, asyncio.Task[T | FetchError]],
    origin: str,
    fetch: Callable[[], Coroutine[Any, Any, T | FetchError]],
) -> T:
    """What holds for all URLs of an origin, asked for once. Raises FetchError if it cannot be read."""
    if origin not in known:
        known[origin] = asyncio.create_task(fetch())
    found = await asyncio.shield(known[origin])
    if isinstance(found, FetchError):
        raise FetchError(found.reason, found.detail)
    return found


def _origin(url: str) -> tuple[str, str]:
    """Where the rules on a URL lie, and its host."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/", parts.hostname or ""


async def _as_it_is(taken: T) -> T:
    return taken


async def _read_up_to(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        body += chunk
        if len(body) >= limit_bytes:
            del body[limit_bytes:]
            break
    return bytes(body)
