"""The crawler against a real HTTP server on loopback; the crawling process is the real one."""

from __future__ import annotations

import functools
import gzip
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from twisted.internet.error import DNSLookupError
from upath import UPath

from pipeline.errors import InputError
from pipeline.sources import site_crawl
from pipeline.sources.config import CrawlConfig
from pipeline.sources.frontier import Frontier, Target, Visit, site_of
from pipeline.sources.page_cache import CachedPage, open_cache
from pipeline.sources.resolver import PublicResolver
from pipeline.sources.rows import ROWS_SCHEMA
from pipeline.stage import StageResult

TYPE = "text/html; charset=utf-8"
Answer = Callable[[BaseHTTPRequestHandler], None]


def send(
    handler: BaseHTTPRequestHandler, status: int, body: bytes | str = b"", headers: dict[str, str] | None = None
) -> None:
    """An ordinary response."""
    body = body.encode() if isinstance(body, str) else body
    handler.send_response(status)
    for name, value in {"Content-Type": TYPE, "Content-Length": str(len(body)), **(headers or {})}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def page(html: str, **headers: str) -> Answer:
    return lambda handler: send(handler, 200, html, {name.replace("_", "-"): value for name, value in headers.items()})


def redirect(location: str) -> Answer:
    return lambda handler: send(handler, 302, headers={"Location": location})


def drip(handler: BaseHTTPRequestHandler) -> None:
    """A page that never ends: a byte every so often."""
    handler.send_response(200)
    handler.send_header("Content-Type", TYPE)
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b"x")
        time.sleep(0.1)


def endless(handler: BaseHTTPRequestHandler) -> None:
    """A page larger than any bound, without a Content-Length."""
    handler.send_response(200)
    handler.send_header("Content-Type", TYPE)
    handler.end_headers()
    for _ in range(2_000):
        handler.wfile.write(b"x" * 10_000)


def truncated(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", TYPE)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"<img src=a.jpg>")


class Site:
    """A web site on a free port of 127.0.0.1, and what was asked of it."""

    def __init__(self) -> None:
        self.pages: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.user_agents: set[str] = set()
        lock = threading.Lock()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with lock:
                    site.asked.append(self.path)
                    site.user_agents.add(self.headers["User-Agent"])
                try:
                    answer = site.pages.get(self.path)
                    answer(self) if answer else send(self, 404, "none")
                except (BrokenPipeError, ConnectionResetError):
                    pass

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=functools.partial(self._server.serve_forever, 0.05), daemon=True).start()
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.host}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(autouse=True, scope="module")
def _bytecode_is_kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The crawling processes share their compiled modules, whatever the surroundings say; it halves their start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        patch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path_factory.mktemp("bytecode")))
        yield


@pytest.fixture
def site() -> Iterator[Site]:
    served = Site()
    yield served
    served.close()


def config(site: Site, **changes: Any) -> CrawlConfig:
    values: dict[str, Any] = {"seeds": (site.url + "/",), "delay_s": 0, "timeout_s": 5, "allow_private_addresses": True}
    return CrawlConfig(**{**values, **changes})


def crawl(config: CrawlConfig, folder: Path, out: str = "out") -> StageResult:
    (part,) = site_crawl.plan(config)
    return site_crawl.site_crawl_stage(folder / "cache").run((), UPath(folder / out), part)


def read(folder: Path, name: str, out: str = "out") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / out / name).to_pylist()
    return rows


def outcomes(folder: Path, site: Site) -> dict[str, str]:
    return {row["page_url"].removeprefix(site.url): row["outcome"] for row in read(folder, "pages.parquet")}


def test_one_site_with_everything_a_site_can_do(site: Site, tmp_path: Path) -> None:
    bomb = gzip.compress(b"x" * 20_000_000)
    links = (
        "/a.html /b.html?utm_source=x /b.html /private/x.html /gone /moved /away /loop /slow /huge /endless /bomb "
        "/feed.json /photo.JPG /truncated /flaky /broken.html /hostile.html"
    )
    site.pages = {
        "/robots.txt": lambda h: send(h, 200, "User-agent: *\nDisallow: /private\n", {"Content-Type": "text/plain"}),
        "/": page(
            "<base href='/'><img src='logo.png' alt='Logo'>"
            + "".join(f"<a href='{link}'>x</a>" for link in links.split())
            + "<a href='http://elsewhere.example/'>x</a>"
        ),
        "/a.html": page(
            "<figure><img src='s.jpg' srcset='s.jpg 100w, l.jpg 900w' alt='Cat'><figcaption>Cat</figcaption></figure>"
            "<a href='/deep/1'>x</a><a href='/nofollowed' rel=nofollow>x</a>",
            X_Robots_Tag="noai",
        ),
        "/b.html?utm_source=x": page(
            "<meta name=robots content='noimageindex,nofollow'><img src=b.jpg><a href=/never>x</a>"
        ),
        "/moved": redirect("/target"),
        "/target": page("<img src=t.jpg title=T>"),
        "/away": redirect("http://elsewhere.example/x"),
        "/loop": redirect("/loop2"),
        "/loop2": redirect("/loop"),
        "/slow": drip,
        "/huge": page("x" * 300_000),
        "/endless": endless,
        "/bomb": lambda h: send(h, 200, bomb, {"Content-Encoding": "gzip"}),
        "/feed.json": page("{}", Content_Type="application/json"),
        "/truncated": truncated,
        "/flaky": lambda h: send(h, 200 if site.asked.count("/flaky") > 1 else 503, "<img src=f.jpg>"),
        "/broken.html": page("<table><td><img src=x.jpg alt=Broken<p></tr><a href=/deep/1"),
        "/hostile.html": page("<img " + " ".join(f"a{number}=1" for number in range(20_000)) + ">"),
        "/deep/1": page("<img src=1.jpg><a href=2>x</a>"),
        "/deep/2": page("<img src=2.jpg>"),
        "/deep/3": page(""),
        "/nofollowed": page(""),
    }
    result = crawl(config(site, max_depth=2, timeout_s=1.5, max_page_bytes=200_000), tmp_path)

    assert outcomes(tmp_path, site) == {
        "/": "ok",
        "/a.html": "ok",
        "/b.html?utm_source=x": "ok",
        "/private/x.html": "robots",
        "/gone": "http_404",
        "/moved": "redirect",
        "/target": "ok",
        "/away": "off_site",
        "/loop": "redirect",
        "/loop2": "redirect",
        "/slow": "timeout",
        "/huge": "too_large",
        "/endless": "too_large",
        "/bomb": "too_large",
        "/feed.json": "not_html",
        "/photo.JPG": "not_html",
        "/truncated": "error:ResponseDataLossError",
        "/flaky": "ok",
        "/broken.html": "ok",
        "/hostile.html": "hostile_page",
        "/deep/1": "ok",
        "/deep/2": "depth_limit",
    }
    assert "/private/x.html" not in site.asked and "/nofollowed" not in site.asked and "/photo.JPG" not in site.asked
    assert site.user_agents == {config(site).user_agent}

    rows = read(tmp_path, "rows.parquet")
    assert pq.read_schema(tmp_path / "out/rows.parquet").equals(ROWS_SCHEMA)
    assert [row["row"] for row in rows] == list(range(len(rows)))
    assert {row["source"] for row in rows} == {f"site_crawl:{site.host}"}
    short = [{name: str(value).removeprefix(site.url) for name, value in row.items()} for row in rows]
    columns = ("page_url", "url", "caption_raw", "text_key", "page_opt_out")
    assert [tuple(row[name] for name in columns) for row in short] == [
        ("/", "/logo.png", "Logo", "alt", "None"),
        ("/a.html", "/l.jpg", "Cat", "alt", "noai"),
        ("/a.html", "/l.jpg", "Cat", "figcaption", "noai"),
        ("/b.html?utm_source=x", "/b.jpg", "None", "alt", "noimageindex"),
        ("/broken.html", "/x.jpg", "Broken<p", "alt", "None"),
        ("/deep/1", "/deep/1.jpg", "None", "alt", "None"),
        ("/flaky", "/f.jpg", "None", "alt", "None"),
        ("/target", "/t.jpg", "T", "title", "None"),
    ]
    assert result.counts.rows_in == result.counts.rows_kept == len(rows)
    moved = next(row for row in read(tmp_path, "pages.parquet") if row["page_url"].endswith("/moved"))
    assert (moved["status"], moved["redirect_to"], moved["depth"]) == (302, site.url + "/target", 1)


open_requests: list[int] = []  # how many were open together, each time one came


def many_pages(count: int, delay_s: Callable[[int], float] = lambda number: 0) -> dict[str, Answer]:
    """A tree of pages: page n leads to 3n+1, 3n+2 and 3n+3."""
    waiting: set[int] = set()
    open_requests.clear()

    def answer(number: int) -> Answer:
        links = "".join(
            f"<a href='/p/{child}'>x</a>" for child in range(3 * number + 1, 3 * number + 4) if child < count
        )

        def serve(handler: BaseHTTPRequestHandler) -> None:
            waiting.add(number)
            open_requests.append(len(waiting))
            time.sleep(delay_s(number))
            waiting.discard(number)
            send(handler, 200, f"<img src='{number}.jpg' alt='Picture {number}'>{links}")

        return serve

    return {f"/p/{number}": answer(number) for number in range(count)}


def test_the_bound_on_pages_cuts_at_the_same_place_whatever_comes_first(site: Site, tmp_path: Path) -> None:
    found = []
    for run, delay_s in enumerate([lambda number: 0.06 * (number % 3 == 1), lambda number: 0.06 * (number % 3 == 0)]):
        site.pages = many_pages(40, delay_s)
        crawl(
            config(site, seeds=(site.url + "/p/0",), max_pages_per_site=9, concurrent_requests_per_site=4),
            tmp_path / str(run),
        )
        assert max(open_requests) <= 4
        found.append([(tmp_path / str(run) / "out" / name).read_bytes() for name in ("rows.parquet", "pages.parquet")])
    assert found[0] == found[1]
    by_outcome = Counter(outcomes(tmp_path / "0", site).values())
    assert by_outcome == {"ok": 9, "page_limit": 19}
    assert {row["caption_raw"] for row in read(tmp_path / "0", "rows.parquet")} == {f"Picture {n}" for n in range(9)}


CHILD = """
import sys
from pathlib import Path
from upath import UPath
from pipeline.sources.config import CrawlConfig
from pipeline.sources.site_crawl import site_crawl_stage
folder = Path(sys.argv[1])
site_crawl_stage(folder / "cache").run((), UPath(folder / "out"), CrawlConfig.model_validate_json(sys.argv[2]))
"""


def start_stage(folder: Path, settings: CrawlConfig) -> tuple[subprocess.Popen[str], psutil.Process]:
    """A process that runs the stage, and the crawling process below it."""
    command = [sys.executable, "-c", CHILD, str(folder), settings.model_dump_json()]
    stage = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: bool(psutil.Process(stage.pid).children()))
    return stage, psutil.Process(stage.pid).children()[0]


def test_killed_twice_in_the_middle_and_run_again(site: Site, tmp_path: Path) -> None:
    site.pages = many_pages(24, lambda number: 0.05)
    settings = config(site, seeds=(site.url + "/p/0",), concurrent_requests_per_site=1)
    killed = tmp_path / "killed"
    fetched: set[str] = set()
    for victim in ("crawl", "stage"):
        site.asked.clear()
        stage, crawler = start_stage(killed, settings)
        wait_until(lambda: len(site.asked) >= 8)
        os.kill(crawler.pid if victim == "crawl" else stage.pid, signal.SIGKILL)
        _, error = stage.communicate(timeout=20)
        assert stage.returncode != 0
        assert victim == "stage" or ("CrawlError" in error and "code -9" in error)
        # The crawler does not outlive the stage, whoever was killed.
        wait_until(lambda gone=crawler: not gone.is_running() or gone.status() == psutil.STATUS_ZOMBIE)  # type: ignore[misc]
        assert not (killed / "out").exists()
        assert not fetched & set(site.asked)
        fetched |= {path for path in site.asked[:-1] if path.startswith("/p/")}
    assert len(fetched) >= 12

    site.asked.clear()
    crawl(settings, killed)
    assert not fetched & set(site.asked)
    crawl(settings, tmp_path / "undisturbed")
    for name in ("rows.parquet", "pages.parquet"):
        assert (killed / "out" / name).read_bytes() == (tmp_path / "undisturbed/out" / name).read_bytes()


def wait_until(is_true: Callable[[], bool], limit_s: float = 30) -> None:
    end = time.monotonic() + limit_s
    while not is_true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_loopback_is_refused_unless_allowed(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": page("<img src=a.jpg>")}
    port = site.host.rpartition(":")[2]
    for run, host in enumerate(["127.0.0.1", "localhost"]):  # a literal address, and a name that leads to one
        refusing = config(site, seeds=(f"http://{host}:{port}/",), allow_private_addresses=False)
        with pytest.raises(InputError, match="allow_private_addresses"):
            crawl(refusing, tmp_path / str(run))
    assert site.asked == []


def test_the_resolver_lets_only_public_addresses_through() -> None:
    resolver = PublicResolver(None, cache_size=0, timeout=1)
    assert resolver._check("8.8.8.8", "dns.example") == "8.8.8.8"
    with pytest.raises(DNSLookupError, match=r"10\.0\.0\.1, which is not an address of the public Internet"):
        resolver._check("10.0.0.1", "inside.example")
    assert "inside.example" in resolver.refused and "dns.example" not in resolver.refused


def test_a_site_that_is_not_there_is_named(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    gone = CrawlConfig(seeds=(f"http://127.0.0.1:{port}/x#y",), allow_private_addresses=True, delay_s=0)
    with pytest.raises(InputError, match=f"seed http://127.0.0.1:{port}/x: nothing answers there"):
        crawl(gone, tmp_path)
    assert not (tmp_path / "out").exists()


def test_what_can_be_mended_is_an_error_and_the_rest_an_outcome() -> None:
    seeds = CrawlConfig(seeds=("http://h.example/",))
    elsewhere = Visit("http://h.example/", 301, "off_site", 0, redirect_to="http://www.h.example/")
    with pytest.raises(InputError, match=r"leads to http://www\.h\.example/, which is another site; give that address"):
        site_crawl._check_reached(seeds, [elsewhere])
    with pytest.raises(InputError, match=r"seed http://h\.example/: its host name does not resolve"):
        site_crawl._check_reached(seeds, [Visit("http://h.example/", None, "dns_error", 0)])
    for outcome in ("ok", "robots", "http_500", "timeout"):
        site_crawl._check_reached(seeds, [Visit("http://h.example/", None, outcome, 0)])
    found = Visit("http://h.example/b", 200, "ok", 0)
    site_crawl._check_reached(seeds, [elsewhere, found])


def test_robots_that_cannot_be_read_forbid_and_crawl_delay_and_deadline_hold(site: Site, tmp_path: Path) -> None:
    site.pages = {"/robots.txt": lambda handler: send(handler, 500), "/": page("<img src=a.jpg>")}
    assert crawl(config(site), tmp_path).counts.rows_in == 0
    assert outcomes(tmp_path, site) == {"/": "robots_unreachable"}
    assert "/" not in site.asked

    site.pages |= {"/robots.txt": page("User-agent: webimagetext\nCrawl-delay: 3600"), **many_pages(4)}
    crawl(config(site, seeds=(site.url + "/p/0", site.url + "/"), site_deadline_s=2), tmp_path / "slowly")
    assert outcomes(tmp_path / "slowly", site) == {
        "/p/0": "ok",
        **{path: "deadline" for path in ("/", "/p/1", "/p/2", "/p/3")},
    }


def test_plan_groups_seeds_by_site() -> None:
    seeds = ("http://b.example/x", "http://a.example:8080", "https://B.example/y", "http://b.example/x")
    parts = site_crawl.plan(CrawlConfig(seeds=seeds, max_depth=1))
    assert [part.seeds for part in parts] == [(seeds[0], seeds[2]), (seeds[1],)]
    assert {part.max_depth for part in parts} == {1}
    with pytest.raises(InputError, match=r"seeds is empty"):
        site_crawl.plan(CrawlConfig())
    with pytest.raises(InputError, match=r"seeds\[1\]: 'b.example' is not a web address"):
        site_crawl.plan(CrawlConfig(seeds=("http://a.example", "b.example")))


def test_site_of() -> None:
    assert site_of("http://A.example/x") == site_of("https://a.example:443/") == "a.example"
    assert site_of("http://a.example:443/") != site_of("http://a.example/")
    assert site_of("mailto:x") == ""


def test_a_page_reached_by_a_shorter_way_is_not_too_deep() -> None:
    frontier = Frontier(CrawlConfig(seeds=("http://h/",), max_depth=1))
    (seed,) = frontier.next_wave(lambda url: None)
    frontier.record(seed, Visit("http://h/", 200, "ok", 0), ["http://h/a", "http://h/b"])
    first, second = frontier.next_wave(lambda url: None)
    frontier.record(first, Visit("http://h/a", 200, "ok", 1), ["http://h/c", "http://h/d"])
    frontier.record(second, Visit("http://h/b", 302, "", 1, redirect_to="http://h/c"), [])
    assert frontier.next_wave(lambda url: None) == [Target("http://h/c", 1, 1)]
    frontier.record(Target("http://h/c", 1, 1), Visit("http://h/c", 200, "ok", 1), [])
    assert frontier.next_wave(lambda url: None) == []
    found = [(visit.page_url[-1], visit.outcome) for visit in frontier.all_visits()]
    assert found == [("/", "ok"), ("a", "ok"), ("b", "redirect"), ("c", "ok"), ("d", "depth_limit")]


def test_the_cache_gives_back_what_was_stored(tmp_path: Path) -> None:
    page = CachedPage("http://h/a", 200, (("X-A", "1"), ("X-A", "2\u00e9")), b"\x00\xffbody" * 1000)
    with open_cache(tmp_path / "c" / "x.sqlite") as cache:
        cache.store(page._replace(status=404))
        cache.store(page)
    with open_cache(tmp_path / "c" / "x.sqlite") as cache:
        assert cache.find("http://h/a") == page
        assert cache.find("http://h/b") is None
