"""Serving the tiny web: every site on its own port of 127.0.0.1, real HTTP/1.1, good and bad answers alike.

    python -m pipeline.tiny_web.server --pairs 600

prints one line of JSON, {"seeds": [...]}, when all sites answer, and serves until SIGTERM or SIGINT. Standard library
only: a thread for each connection takes dozens of parallel clients, and an answer can misbehave on the level of the
socket.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import socket
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import ValidationError

from pipeline.errors import InputError
from pipeline.tiny_web.answers import Answers
from pipeline.tiny_web.config import TinyWebConfig
from pipeline.tiny_web.world import HOST, World

IDLE_TIMEOUT_S = 30.0
PARENT_CHECK_S = 0.5


class TinyWeb:
    """The running web: `with TinyWeb(config) as web: web.seeds, web.world, web.requests()`.

    Raises InputError if a port is taken.
    """

    def __init__(self, config: TinyWebConfig) -> None:
        self.config = config
        self.closing = threading.Event()
        self._requests: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._sites = _bind_all(config, self)
        self.world = World(config, [site.server_port for site in self._sites])
        self.answers = Answers(self.world)
        self._threads = [threading.Thread(target=site.serve_forever, args=(0.05,), daemon=True) for site in self._sites]

    @property
    def seeds(self) -> tuple[str, ...]:
        """The first page of each site."""
        return self.world.seeds

    def requests(self) -> dict[str, int]:
        """How often each address was asked for, so far."""
        with self._lock:
            return dict(sorted(self._requests.items()))

    def count(self, site: int, path: str) -> None:
        """Note one request."""
        with self._lock:
            self._requests[self.world.origin(site) + path] += 1

    def start(self) -> None:
        """Answer from now on."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop all sites, cut what is still being sent, free the ports."""
        self.closing.set()
        for site in self._sites:
            if self._threads[site.number].is_alive():
                site.shutdown()
            site.server_close()
            site.cut_connections()

    def __enter__(self) -> TinyWeb:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Site(ThreadingHTTPServer):
    """One port."""

    request_queue_size = 128
    daemon_threads = True

    def __init__(self, port: int, number: int, web: TinyWeb) -> None:
        self.number = number
        self.web = web
        self._open: set[socket.socket] = set()
        super().__init__((HOST, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is daily life on the web; anything else is a bug of ours and is shown."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)) and not self.web.closing.is_set():
            super().handle_error(request, client_address)

    def cut_connections(self) -> None:
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError as error:
                if error.errno not in (errno.ENOTCONN, errno.EBADF):
                    raise


class _Handler(BaseHTTPRequestHandler):
    """One connection to one site."""

    protocol_version = "HTTP/1.1"
    server_version = "TinyWeb"
    sys_version = ""
    timeout = IDLE_TIMEOUT_S
    disable_nagle_algorithm = True
    server: _Site

    def do_GET(self) -> None:
        self._respond(with_body=True)

    def do_HEAD(self) -> None:
        self._respond(with_body=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: the counters say what was asked for."""

    def _respond(self, with_body: bool) -> None:
        web = self.server.web
        path = self.path.partition("?")[0].partition("#")[0]
        if path == "/_stats":
            self._send(200, {"Content-Type": "application/json"}, json.dumps(web.requests()).encode(), with_body)
            return
        web.count(self.server.number, path)
        answer = web.answers.answer(self.server.number, path)
        if answer.stream is None:
            self._send(answer.status, answer.headers, answer.body, with_body)
            return
        self.close_connection = True
        self._send_head(answer.status, {**answer.headers, "Connection": "close"})
        if with_body:
            for chunk in answer.stream:
                self.wfile.write(chunk)
                if web.closing.wait(answer.pause_s):
                    return

    def _send(self, status: int, headers: dict[str, str], body: bytes, with_body: bool) -> None:
        self._send_head(status, {**headers, "Content-Length": str(len(body))})
        if with_body:
            self.wfile.write(body)

    def _send_head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _bind_all(config: TinyWebConfig, web: TinyWeb) -> list[_Site]:
    sites: list[_Site] = []
    for number in range(config.sites):
        port = config.base_port + number if config.base_port else 0
        try:
            sites.append(_Site(port, number, web))
        except OSError as error:
            for site in sites:
                site.server_close()
            last = config.base_port + config.sites - 1
            raise InputError(
                f"port {port} on {HOST}: {os.strerror(error.errno or 0)}; the tiny web needs ports "
                f"{config.base_port} to {last}: free them, or choose another base_port (0 = any free)"
            ) from error
    return sites


def _parse_arguments(arguments: list[str] | None) -> tuple[TinyWebConfig, int | None]:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.tiny_web.server", description="Serve the tiny web on 127.0.0.1"
    )
    parser.add_argument(
        "--config", type=Path, help="JSON file of a TinyWebConfig; the options below change single values"
    )
    parser.add_argument("--seed", type=int)
    parser.add_argument("--pairs", type=int, help="pairs that a correct pipeline keeps")
    parser.add_argument("--sites", type=int)
    parser.add_argument("--port", type=int, dest="base_port", help="port of the first site; 0 = any free ports")
    parser.add_argument(
        "--end-with-parent", type=int, metavar="PID", help="end when PID, the parent process, has ended"
    )
    given = vars(parser.parse_args(arguments))
    path, end_with_parent = given.pop("config"), given.pop("end_with_parent")
    try:
        values = json.loads(path.read_text(encoding="utf-8")) if path else {}
        values |= {name: value for name, value in given.items() if value is not None}
        return TinyWebConfig.model_validate(values), end_with_parent
    except (ValidationError, json.JSONDecodeError, OSError) as error:
        raise InputError(f"{path or 'command line'}: {error}") from error


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit status."""
    try:
        config, parent = _parse_arguments(arguments)
        web = TinyWeb(config)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    with web:
        print(json.dumps({"seeds": web.seeds}), flush=True)
        # Asked for again and again: Linux' PR_SET_PDEATHSIG would already fire when the thread that started us ends.
        while not done.wait(PARENT_CHECK_S) and parent in (None, os.getppid()):
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
