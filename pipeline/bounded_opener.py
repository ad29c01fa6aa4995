"""What urllib fetches with in a download process: every image within a deadline, a size and the public Internet.

img2dataset asks `urllib.request.urlopen` for each URL; `urllib.request.install_opener` is the documented hook to answer
it. urllib alone bounds the wait for one read, so a server that drips a byte a second holds it for ever; it reads bodies
of any size and connects to any address. Here one deadline spans name look-up, redirects and body; the address is
checked where it is connected to, so a name cannot change its mind in between; and each refusal is an exception whose
text starts with a reason of the funnel.

Proxies of the environment are not used: behind one, the address that is reached cannot be checked.
"""

from __future__ import annotations

import functools
import http.client
import io
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from w3lib.url import safe_url_string

from pipeline.addresses import is_public
from pipeline.config import DownloadConfig
from pipeline.fetch_error import BLOCKED_HASH, TDM_HEADER_SAYS_SO, FetchError, refusal
from pipeline.http_constants import CACHED_HOSTS, CHUNK_BYTES, DEFAULT_PORTS, REDIRECTS
from pipeline.jpeg import is_cut_off
from pipeline.tdm_rules import TDM_HEADER, TDM_RESERVED

Address = tuple[socket.AddressFamily, Any]


@dataclass(frozen=True)
class Deadline:
    """The end of one image's time, and the longest wait for one read of a socket."""

    ends_at: float
    read_timeout_s: float

    def wait_s(self) -> float:
        """How long the next read may wait. Raises TimeoutError if the time is over."""
        left_s = self.ends_at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return min(left_s, self.read_timeout_s)

    def limit(self, connected: socket.socket) -> None:
        """Let the next read or write of a socket wait no longer than `wait_s`.

        Setting a time limit lets go of the interpreter's lock, which many threads then fight for: only if it changes.
        """
        wait_s = self.wait_s()
        if connected.gettimeout() != wait_s:
            connected.settimeout(wait_s)


class DeadlineReader(io.RawIOBase):
    """Reads a socket, each read within what is left of the deadline."""

    def __init__(self, connected: socket.socket, deadline: Deadline) -> None:
        self._socket = connected
        self._raw = connected.makefile("rb", buffering=0)
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._deadline.limit(self._socket)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class DeadlineSocket:
    """What `http.client` needs of a socket, under a deadline."""

    def __init__(self, connected: socket.socket, deadline: Deadline) -> None:
        self._socket = connected
        self._deadline = deadline

    def sendall(self, data: Any) -> None:
        self._deadline.limit(self._socket)
        self._socket.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(DeadlineReader(self._socket, self._deadline))

    def close(self) -> None:
        self._socket.close()


class BoundedResponse:
    """What img2dataset takes from a response: `headers`, then `read()` the whole body once.

    Nothing of the body has been read before `read()`, so an image whose headers opt out costs no bytes.
    """

    def __init__(
        self,
        response: http.client.HTTPResponse,
        max_bytes: int,
        named: Callable[[], Any],
        is_blocked: Callable[[bytes], bool],
        on_body: Callable[[bytes], None],
    ) -> None:
        self.headers = response.headers
        self._response = response
        self._max_bytes = max_bytes
        self._named = named
        self._is_blocked = is_blocked
        self._on_body = on_body

    def read(self) -> bytes:
        """The body. Raises FetchError if it is too large, cut off, late, or on a block list."""
        with self._named():
            announced = self._response.length
            if announced is not None and announced > self._max_bytes:
                raise FetchError("too_large", f"{announced} bytes announced, at most {self._max_bytes} allowed")
            body = self._read_bounded()
            if announced is not None and len(body) < announced:
                raise FetchError("not_an_image", f"cut off: {len(body)} of {announced} bytes came")
            if is_cut_off(body):
                raise FetchError("not_an_image", f"cut off: the JPEG of {len(body)} bytes has no end")
            if self._is_blocked(body):
                raise FetchError(*BLOCKED_HASH)
        self._on_body(body)
        return body

    def _read_bounded(self) -> bytes:
        body = bytearray()
        while chunk := self._response.read(CHUNK_BYTES):
            body += chunk
            if len(body) > self._max_bytes:
                raise FetchError("too_large", f"more than the {self._max_bytes} bytes allowed")
        return bytes(body)

    def __enter__(self) -> BoundedResponse:
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()


class BoundedOpener(urllib.request.OpenerDirector):
    """An opener for `urllib.request.install_opener`, safe for any number of threads.

    It introduces itself as `config.user_agent`, whatever the request says; `on_first_use` is called before the first
    URL, `is_blocked` with each body that came whole, before anyone else sees it, and `on_body` if it is not.
    """

    def __init__(
        self,
        config: DownloadConfig,
        on_first_use: Callable[[], None] = lambda: None,
        is_blocked: Callable[[bytes], bool] = lambda body: False,
        on_body: Callable[[bytes], None] = lambda body: None,
    ) -> None:
        super().__init__()
        self._config = config
        self._on_first_use: Callable[[], None] | None = on_first_use
        self._is_blocked = is_blocked
        self._on_body = on_body
        self._tls = ssl.create_default_context()  # 26 ms of work: once for the process, not once for each image
        self._addresses = functools.lru_cache(CACHED_HOSTS)(_addresses_of)
        self._settled: dict[str, tuple[str, str]] = {}

    def open(
        self, fullurl: str | urllib.request.Request, data: Any = None, timeout: float | None = None
    ) -> BoundedResponse:
        """GET `fullurl`; `data` and `timeout` are of the hook's signature and not used, the configuration rules.

        Raises FetchError. A URL whose answer is settled (404, too large ...) is not asked for twice.
        """
        first_use, self._on_first_use = self._on_first_use, None
        if first_use is not None:
            first_use()
        url = fullurl if isinstance(fullurl, str) else fullurl.full_url
        if url in self._settled:
            raise FetchError(*self._settled[url])
        named = functools.partial(self._naming_errors, url)
        with named():
            deadline = Deadline(time.monotonic() + self._config.image_deadline_s, self._config.timeout_s)
            response = self._follow(url, deadline)
        return BoundedResponse(response, self._config.max_image_bytes, named, self._is_blocked, self._on_body)

    @contextmanager
    def _naming_errors(self, url: str) -> Iterator[None]:
        """Turn whatever the network throws into FetchError, and remember what is settled."""
        try:
            yield
        except FetchError as refusal:
            if refusal.is_settled:
                self._settled[url] = (refusal.reason, refusal.detail)
            raise
        except socket.gaierror as error:
            raise FetchError("dns", str(error)) from error
        except TimeoutError as error:
            bounds = f"{self._config.timeout_s:g} s without a byte or {self._config.image_deadline_s:g} s in all"
            raise FetchError("timeout", f"over {bounds}") from error
        except OSError as error:
            raise FetchError("connection", str(error)) from error
        except http.client.IncompleteRead as error:
            raise FetchError("not_an_image", "cut off: the last chunk of the body did not come") from error
        except (http.client.HTTPException, ValueError) as error:
            raise FetchError("fetch_failed", f"{type(error).__name__}: {error}") from error

    def _follow(self, url: str, deadline: Deadline) -> http.client.HTTPResponse:
        """The answer at the end of the redirects."""
        seen: set[str] = set()
        while True:
            url = safe_url_string(url)
            if url in seen:
                raise FetchError("too_many_redirects", f"back to {url}")
            if len(seen) > self._config.max_redirects:
                raise FetchError("too_many_redirects", f"more than {self._config.max_redirects}")
            seen.add(url)
            response = self._get(urlsplit(url), deadline)
            target = response.headers.get("Location") if response.status in REDIRECTS else None
            if target is None:
                break
            response.close()
            url = urljoin(url, target)
        if not 200 <= response.status < 300:
            response.close()
            raise refusal(response.status, response.headers.get("Retry-After"))
        if self._config.obey_tdm_reservations and response.headers.get(TDM_HEADER, "").strip() == TDM_RESERVED:
            response.close()
            raise FetchError(*TDM_HEADER_SAYS_SO)
        return response

    def _get(self, url: SplitResult, deadline: Deadline) -> http.client.HTTPResponse:
        if url.scheme not in DEFAULT_PORTS or not url.hostname:
            raise ValueError(f"not an http or https address: {url.geturl()}")
        connection = http.client.HTTPConnection(url.hostname, port=0)  # never dialled by it: it gets our socket
        connection.sock = DeadlineSocket(self._connected(url, deadline), deadline)
        headers = {
            "Host": url.netloc.rpartition("@")[2],
            "User-Agent": self._config.user_agent,
            "Accept": "*/*",
            "Connection": "close",
        }
        try:
            connection.request("GET", url._replace(scheme="", netloc="", fragment="").geturl() or "/", headers=headers)
            return connection.getresponse()
        except BaseException:
            connection.close()
            raise

    def _connected(self, url: SplitResult, deadline: Deadline) -> socket.socket:
        """A socket to the first address of the host that may be and can be connected to."""
        host = url.hostname or ""
        known = self._addresses(host, url.port or DEFAULT_PORTS[url.scheme])
        allowed = [at for at in known if self._config.allow_private_addresses or is_public(at[1][0])]
        if not allowed:
            raise FetchError("private_address", f"{host} is at {known[0][1][0]}")
        for number, address in enumerate(allowed, start=1):
            try:
                connected = _connect(address, deadline)
                break
            except OSError:
                if number == len(allowed):
                    raise
        if url.scheme == "http":
            return connected
        try:
            deadline.limit(connected)
            return self._tls.wrap_socket(connected, server_hostname=host)
        except BaseException:
            connected.close()
            raise


def _addresses_of(host: str, port: int) -> tuple[Address, ...]:
    return tuple((family, at) for family, _, _, _, at in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))


def _connect(address: Address, deadline: Deadline) -> socket.socket:
    family, at = address
    connected = socket.socket(family, socket.SOCK_STREAM)
    try:
        deadline.limit(connected)
        connected.connect(at)
    except BaseException:
        connected.close()
        raise
    return connected
