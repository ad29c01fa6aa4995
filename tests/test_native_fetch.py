"""The native backend against real servers: its pictures are img2dataset's, it is polite, and a kill costs nothing."""

from __future__ import annotations

import asyncio
import hashlib
import http.server
import io
import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from downloaded_parts import finished
from PIL import ExifTags, Image
from upath import UPath

from flows.build_dataset import build_dataset
from pipeline.config import BuildDatasetConfig, CurateConfig, DownloadConfig, ImageConfig, ShardConfig
from pipeline.download import download_stage
from pipeline.fetch_error import FetchError
from pipeline.outages import DownloadError
from pipeline.polite_fetcher import PoliteFetcher
from pipeline.polite_hosts import MAX_REFUSALS
from pipeline.retry import RetryConfig, final_counts, retry_stage
from pipeline.sources.config import SourceConfig, UrlListConfig
from pipeline.stage import StageResult
from pipeline.stored_image import shrink

AGENT = "webimagetext/0.1 (+mailto:tests@example.org)"
ASKED_OF_EACH_HOST = ("/robots.txt", "/.well-known/tdmrep.json")
Answer = tuple[int, dict[str, str], bytes]


def picture(
    width_px: int, height_px: int, seed: int = 0, mode: str = "RGB", kind: str = "JPEG", **options: Any
) -> bytes:
    draw = np.random.default_rng(seed)
    noise = Image.fromarray(draw.integers(0, 255, (9, 11, 4), np.uint8)).resize((width_px, height_px))
    buffer = io.BytesIO()
    noise.convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


class Host(http.server.BaseHTTPRequestHandler):
    """Answers by `answers`, a function of path and how often it was asked for; notes when each request came and went."""

    protocol_version = "HTTP/1.1"
    answers: ClassVar[Callable[[str, int], Answer]]
    times: ClassVar[defaultdict[str, list[float]]] = defaultdict(list)
    open: ClassVar[list[int]] = [0]
    most_open: ClassVar[list[int]] = [0]
    connections: ClassVar[set[Any]] = set()
    closing: ClassVar[list[str]] = []
    lock: ClassVar[threading.Lock] = threading.Lock()
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        with self.lock:
            self.times[self.path].append(time.monotonic())
            self.open[0] += 1
            self.most_open[0] = max(self.most_open[0], self.open[0])
            self.connections.add(self.client_address)
            if self.headers["Connection"] == "close":
                self.closing.append(self.path)
        status, headers, body = type(self).answers(self.path, len(self.times[self.path]))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        with self.lock:
            self.open[0] -= 1
        if "X-Reset" in headers:
            self.wfile.write(body[:100])
            time.sleep(0.2)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            return
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def host() -> Iterator[str]:
    Host.times.clear()
    Host.connections.clear()
    Host.closing.clear()
    Host.open[0] = Host.most_open[0] = 0
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host)
    httpd.daemon_threads = True
    threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    httpd.server_close()


def serve(answers: Callable[[str, int], Answer]) -> None:
    def with_robots(path: str, time_: int) -> Answer:
        return (404, {}, b"") if path in ASKED_OF_EACH_HOST else answers(path, time_)

    Host.answers = staticmethod(with_robots)


def config(**changes: Any) -> DownloadConfig:
    settings: dict[str, Any] = {
        "backend": "native",
        "timeout_s": 3.0,
        "image_deadline_s": 5.0,
        "short_side_px": 64,
        "user_agent": AGENT,
        "allow_private_addresses": True,
        "max_failed_share": 1.0,
    }
    return DownloadConfig(**settings | changes)


def write_part(folder: Path, urls: list[str], twice: Sequence[str] = ()) -> UPath:
    """A selected part with a pair of each URL, and one more of each that is to come twice."""
    ids = [hashlib.sha256(url.encode()).hexdigest()[:32] for url in urls] + ["0" * 32 for _ in twice]
    urls = [*urls, *twice]
    return finished(folder, {"selected.parquet": pa.table({"pair_id": ids, "url": urls}).sort_by("pair_id")})


def run(folder: Path, urls: list[str], settings: DownloadConfig, twice: Sequence[str] = ()) -> StageResult:
    part = write_part(folder / "parts" / "part-00000", urls, twice)
    return download_stage(folder / "cache").run([part], UPath(folder / "downloads"), settings)


def statuses(result: StageResult, urls: list[str]) -> list[str]:
    table = pq.read_table(Path(result.out.path) / "results.parquet")
    told = dict(zip(table["pair_id"].to_pylist(), table["status"].to_pylist(), strict=True))
    return [told[hashlib.sha256(url.encode()).hexdigest()[:32]] for url in urls]


def fetch(urls: list[str], settings: DownloadConfig) -> list[str]:
    """What the fetcher says of each URL, asked for at once, in this process."""

    async def visit(fetcher: PoliteFetcher, url: str) -> str:
        try:
            await fetcher.fetch(url, len)
        except FetchError as error:
            return str(error)
        return "ok"

    async def all_at_once() -> list[str]:
        with ThreadPoolExecutor(1) as decoders:
            async with PoliteFetcher(settings, decoders) as fetcher:
                return list(await asyncio.gather(*(visit(fetcher, url) for url in urls)))

    return asyncio.run(all_at_once())


def test_pictures_are_those_of_img2dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
    from img2dataset.resizer import Resizer

    from pipeline.upright import decode_upright

    monkeypatch.setattr(cv2, "imdecode", cv2.imdecode)  # and back again at the end
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    deep = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 65_535, (90, 70), np.uint16)).save(deep, "PNG")
    bodies = [
        *(
            picture(width, height, seed=width)
            for width, height in [(200, 150), (65, 333), (64, 64), (30, 20), (301, 97)]
        ),
        picture(150, 100, mode="L"),
        picture(150, 100, mode="RGBA", kind="PNG"),
        picture(150, 100, mode="P", kind="PNG"),
        picture(150, 100, kind="WEBP"),
        picture(150, 100, exif=turned),
        deep.getvalue(),
    ]
    expected = [shrink(body, 64, 90) for body in bodies]
    decode_upright()
    resize = Resizer(64, "keep_ratio", True, encode_quality=90)
    for body, ours in zip(bodies, expected, strict=True):
        *theirs, error = resize(io.BytesIO(body))
        assert error is None and ours == tuple(theirs)


@pytest.mark.parametrize("body", [b"", b"no picture", picture(50, 50)[:40]])
def test_no_picture(body: bytes) -> None:
    with pytest.raises(FetchError, match=r"^not_an_image: "):
        shrink(body, 64, 90)


def test_a_host_is_asked_politely(host: str) -> None:
    """Never over more connections than it may have, which are kept to the last request; never sooner than the pause."""

    def slow(path: str, _: int) -> Answer:
        time.sleep(0.05)
        return 200, {}, picture(80, 70)

    serve(slow)
    urls = [f"{host}/{number}.jpg" for number in range(12)]
    assert fetch(urls, config(connections_per_host=2, host_delay_s=0.04)) == ["ok"] * 12
    assert Host.most_open[0] == 2 and len(Host.connections) == 2
    assert 1 <= len(Host.closing) <= 2
    starts = sorted(times[0] for times in Host.times.values())
    assert starts[-1] - starts[0] > 0.9 * 0.04 * 11


def test_robots_are_obeyed_and_asked_once(host: str) -> None:
    rules = b"User-agent: *\nDisallow: /\n\nUser-agent: webimagetext\nDisallow: /private/\n"

    def answers(path: str, _: int) -> Answer:
        if path == "/to-private":
            return 302, {"Location": "/private/b.jpg"}, b""
        return (200, {}, rules) if path == "/robots.txt" else (200, {}, picture(80, 70))

    Host.answers = staticmethod(answers)
    urls = [f"{host}{path}" for path in ("/a.jpg", "/c.jpg", "/private/b.jpg", "/to-private")]
    assert fetch(urls, config()) == ["ok", "ok", *["robots: robots.txt forbids it"] * 2]
    assert len(Host.times["/robots.txt"]) == 1 and not Host.times["/private/b.jpg"]
    assert fetch(urls, config(obey_robots=False)) == ["ok"] * 4


def test_reservations_of_text_and_data_mining_are_obeyed_and_asked_for_once(host: str) -> None:
    rules = json.dumps([{"location": "/free/*", "tdm-reservation": 0}, {"location": "/*.jpg$", "tdm-reservation": 1}])

    def answers(path: str, _: int) -> Answer:
        if path == "/.well-known/tdmrep.json":
            return 200, {}, rules.encode()
        header = {"tdm-reservation": "1"} if path == "/by-header.png" else {}
        return (404, {}, b"") if path == "/robots.txt" else (200, header, picture(80, 70))

    Host.answers = staticmethod(answers)
    urls = [f"{host}/{name}" for name in ("free/a.jpg", "a.png", "a.jpg", "deep/b.jpg", "by-header.png")]
    file, header = "tdm_reserved: tdmrep.json reserves it", "tdm_reserved: the header tdm-reservation"
    assert fetch(urls, config()) == ["ok", "ok", file, file, header]
    assert len(Host.times["/.well-known/tdmrep.json"]) == 1
    assert not Host.times["/a.jpg"] and not Host.times["/deep/b.jpg"]
    assert fetch(urls, config(obey_tdm_reservations=False)) == ["ok"] * 5


@pytest.mark.parametrize("status", [500, 429, 302])
def test_a_host_without_a_tdmrep_json_reserves_nothing(status: int, host: str) -> None:
    def answers(path: str, _: int) -> Answer:
        return (status, {"Location": path}, b"") if path.endswith("tdmrep.json") else (200, {}, picture(80, 70))

    Host.answers = staticmethod(answers)
    assert fetch([f"{host}/a.jpg"], config(retries=0)) == ["ok"]


@pytest.mark.parametrize(
    ("status", "expected"), [(503, "http_503: the answer at robots.txt"), (403, "ok"), (302, "ok")]
)
def test_robots_that_cannot_be_read(status: int, expected: str, host: str) -> None:
    """RFC 9309, 2.3.1: a 4xx, or a chain of redirects, allows all; a 5xx nothing, for the time being."""

    def answers(path: str, _: int) -> Answer:
        return (status, {"Location": path}, b"") if path == "/robots.txt" else (200, {}, picture(80, 70))

    Host.answers = staticmethod(answers)
    assert fetch([f"{host}/a.jpg"], config(retries=0)) == [expected]


def test_a_host_that_asks_for_patience_gets_it(host: str) -> None:
    serve(lambda path, time_: (429, {"Retry-After": "1"}, b"") if time_ == 1 else (200, {}, picture(80, 70)))
    assert fetch([f"{host}/a.jpg"], config()) == ["ok"]
    first, second = Host.times["/a.jpg"]
    assert second - first >= 1


def test_a_host_that_refuses_again_and_again_is_left_alone(host: str) -> None:
    serve(lambda path, time_: (429, {"Retry-After": "3600"}, b""))
    urls = [f"{host}/{number}.jpg" for number in range(20)]
    told = fetch(urls, config(connections_per_host=1))
    assert told == ["http_429: the server's answer; retry after 3600 s"] * 20
    assert sum(map(len, Host.times.values())) == 3, "what is asked of each host, and the first image"
    Host.times.clear()
    serve(lambda path, time_: (503, {}, b""))
    assert {error.split(":")[0] for error in fetch(urls, config(connections_per_host=5, retries=0))} == {"http_503"}
    assert len(Host.times) - 2 <= 5 * MAX_REFUSALS, "so many at once, then a pause"


def test_refusals_of_requests_that_were_open_together_are_one(host: str) -> None:
    def answers(path: str, time_: int) -> Answer:
        return (429, {}, b"") if time_ == 1 else (200, {}, picture(80, 70))

    serve(answers)
    assert fetch([f"{host}/{number}.jpg" for number in range(6)], config()) == ["ok"] * 6


def test_a_reset_in_the_middle_may_pass_and_a_short_body_may_not(host: str) -> None:
    def answers(path: str, _: int) -> Answer:
        return 200, {"X-Reset": "1"} if path == "/reset" else {}, picture(80, 70)

    serve(answers)
    cut = {"Content-Length": "100000", "Connection": "close"}
    told = fetch([f"{host}/reset"], config(retries=0, obey_robots=False))
    assert told == ["connection: reset in the middle of the body"]
    serve(lambda path, time_: (200, cut, picture(80, 70)))
    told = fetch([f"{host}/short"], config(retries=0, obey_robots=False))
    assert told == ["not_an_image: cut off: the rest of the body did not come"]


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "10.0.0.1", "169.254.169.254"])
def test_private_addresses_are_refused(name: str, host: str) -> None:
    serve(lambda path, time_: (200, {}, picture(80, 70)))
    url = f"http://{name}:{host.rsplit(':', 1)[1]}/a.jpg"
    (told,) = fetch([url], config(allow_private_addresses=False, obey_robots=False))
    assert told.startswith("private_address: ")
    assert not Host.times


@pytest.mark.parametrize("name", ["127.1", "2130706433", "0x7f.1"])
def test_other_spellings_of_an_address_are_refused(name: str, host: str) -> None:
    serve(lambda path, time_: (200, {}, picture(80, 70)))
    url = f"http://{name}:{host.rsplit(':', 1)[1]}/a.jpg"
    (told,) = fetch([url], config(allow_private_addresses=False, obey_robots=False))
    assert told.split(": ")[0] in ("private_address", "fetch_failed", "dns")
    assert not Host.times


def test_a_redirect_inward_is_refused(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = host.rsplit(":", 1)[1]
    serve(lambda path, time_: (302, {"Location": f"http://127.0.0.2:{port}/b.jpg"}, b""))
    monkeypatch.setattr("pipeline.polite_fetcher.is_public", lambda address: address == "127.0.0.1")
    settings = config(allow_private_addresses=False, obey_robots=False, obey_tdm_reservations=False)
    (told,) = fetch([f"{host}/a.jpg"], settings)
    assert told.startswith("private_address: ")
    assert list(Host.times) == ["/a.jpg"]


def test_a_killed_part_goes_on_where_it_was(host: str, tmp_path: Path) -> None:
    """Kill -9 of the stage in its middle: the second run asks for nothing that came, and its files are those of one run."""
    hold = threading.Event()

    def answers(path: str, _: int) -> Answer:
        number = int(path.strip("/"))
        if number >= 20:
            hold.wait(30)
        return (404, {}, b"") if number % 5 == 0 else (200, {}, picture(100, 80, seed=number))

    serve(answers)
    urls = [f"{host}/{number}" for number in range(24)]
    settings = config(connections_per_host=30, timeout_s=30, image_deadline_s=60)
    part = write_part(tmp_path / "parts" / "part-00000", urls)
    code = (
        "import sys; from pathlib import Path; from upath import UPath; from pipeline.config import DownloadConfig; "
        "from pipeline.download import download_stage; config = DownloadConfig.model_validate_json(sys.argv[3]); "
        "download_stage(Path(sys.argv[4])).run([UPath(sys.argv[1])], UPath(sys.argv[2]), config)"
    )
    arguments = [str(part), str(tmp_path / "out"), settings.model_dump_json(), str(tmp_path / "cache")]
    killed = subprocess.Popen([sys.executable, "-c", code, *arguments])
    ends_at = time.monotonic() + 60
    while len(Host.times) < 24 + len(ASKED_OF_EACH_HOST):
        assert time.monotonic() < ends_at, "waited in vain"
        time.sleep(0.05)
    time.sleep(1)  # the answers are on their way to the cache
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    hold.set()
    download = download_stage(tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.sqlite"))) == 1
    result = download.run([part], UPath(tmp_path / "out"), settings)
    assert {len(Host.times[f"/{number}"]) for number in range(20)} == {1}
    assert (result.counts.rows_kept, result.counts.dropped) == (19, {"http_404": 5})
    assert not list((tmp_path / "cache").iterdir()), "what is done needs no cache"
    whole = download_stage(tmp_path / "other_cache").run([part], UPath(tmp_path / "whole"), settings)
    assert whole.record.outputs == result.record.outputs and "00000.tar" in whole.record.outputs


def test_the_end_of_a_parts_time_keeps_what_came(host: str, tmp_path: Path) -> None:
    def answers(path: str, _: int) -> Answer:
        if path.startswith("/slow"):
            time.sleep(60)
        return 200, {}, picture(80, 70)

    serve(answers)
    urls = [f"{host}/{number}.jpg" for number in range(6)] + [f"{host}/slow-{number}.jpg" for number in range(6)]
    settings = config(timeout_s=60, image_deadline_s=60, part_deadline_s=20, connections_per_host=12)
    started = time.monotonic()
    result = run(tmp_path, urls, settings)
    assert time.monotonic() - started < 35
    assert statuses(result, urls) == ["ok"] * 6 + ["timeout"] * 6


def test_only_failed_rows_are_tried_again(host: str, tmp_path: Path) -> None:
    def answers(path: str, time_: int) -> Answer:
        if path == "/gone.jpg":
            return 404, {}, b""
        if path == "/busy.jpg" and time_ == 1:
            return 503, {"Retry-After": "1"}, b""
        if path == "/dead.jpg":
            return 500, {}, b""
        return 200, {}, picture(80, 70, seed=len(path))

    serve(answers)
    urls = [f"{host}/{name}.jpg" for name in ("good", "gone", "busy", "dead")]
    settings = config(retries=0, retry_wait_s=0.1)
    first = run(tmp_path, urls, settings, twice=urls[:1])
    assert first.counts.rows_kept == 2, "two pairs of one image"
    assert statuses(first, urls) == ["ok", "http_404", "http_503", "http_500"]
    sources = [UPath(tmp_path / "parts" / "part-00000"), first.out]
    retry = retry_stage(tmp_path / "cache")
    finished_at = time.monotonic()
    second = retry.run(sources, UPath(tmp_path / "retries"), RetryConfig(download=settings, number=1))
    assert statuses(second, urls[2:]) == ["ok", "http_500"] and second.counts.rows_in == 2
    assert {path: len(times) for path, times in Host.times.items() if path not in ASKED_OF_EACH_HOST} == {
        "/good.jpg": 1,
        "/gone.jpg": 1,
        "/busy.jpg": 2,
        "/dead.jpg": 2,
    }
    assert Host.times["/busy.jpg"][1] - finished_at > 1, "as the host had asked"
    done = final_counts([[first.counts], [second.counts]])
    assert (done.rows_in, done.rows_kept, done.dropped) == (5, 3, {"http_404": 1, "http_500": 1})
    assert retry.run(sources, UPath(tmp_path / "retries"), RetryConfig(download=settings, number=1)).was_done


def test_a_cache_that_cannot_be_written_ends_the_part(host: str, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(DownloadError, match=r"(?s)native ended with status 1.*File exists: .*cache"):
        run(tmp_path, [f"{host}/a.jpg"], config())
    assert not (tmp_path / "downloads").exists()


@pytest.mark.usefixtures("prefect_harness")
def test_the_flow_tries_again_later_and_takes_the_last_result(host: str, tmp_path: Path) -> None:
    """From a list of URLs to shards: an image that came in the second pass is in them, one on the block list is not."""
    known = picture(90, 80, seed=99)

    def answers(path: str, time_: int) -> Answer:
        if path == "/late.jpg" and time_ == 1:
            return 503, {}, b""
        if path == "/dead.jpg":
            return 500, {}, b""
        return 200, {}, known if path == "/known.jpg" else picture(90, 80, seed=sum(path.encode()))

    serve(answers)
    names = ["good", "late", "dead", "known", *(f"more-{number}" for number in range(3))]
    lines = [f"{host}/{name}.jpg,A picture of the {name} thing" for name in names]
    (tmp_path / "pairs.csv").write_text("\n".join(["url,caption", *lines]))
    (tmp_path / "known.txt").write_text(hashlib.md5(known).hexdigest())
    good = hashlib.sha256(picture(90, 80, seed=sum(b"/good.jpg"))).hexdigest()
    (tmp_path / "faces.csv").write_text(f"sha256,left,top,right,bottom\n{good},0,0,0.5,0.5\n{good[::-1]},0,0,1,1\n")
    dataset = BuildDatasetConfig(
        name="late",
        source=SourceConfig(kind="url_list", url_list=UrlListConfig(paths=(str(tmp_path / "pairs.csv"),))),
        curate=CurateConfig(languages=()),
        download=config(rows_per_part=4, retries=0, retry_wait_s=0, block_hashes=[str(tmp_path / "known.txt")]),
        images=ImageConfig(min_side_px=16, min_bytes=1, face_boxes=(str(tmp_path / "faces.csv"),)),
        shards=ShardConfig(val_share=0),
    )
    shards = Path(build_dataset(dataset, str(tmp_path / "workspace")))
    packed = pq.read_table(shards / "train" / "samples.parquet")["url"].to_pylist()
    assert {url.rsplit("/", 1)[1].removesuffix(".jpg") for url in packed} == set(names) - {"dead", "known"}
    manifest = json.loads((shards / "manifest.json").read_text())
    assert manifest["face_boxes"] == {"boxes": 2, "boxes_without_sample": 1, "samples": 1}
    funnel = {stage["stage"]: stage for stage in manifest["funnel"]}
    assert funnel["download"]["rows_in"] == len(names) and funnel["download"]["rows_kept"] == len(names) - 2
    assert funnel["download"]["dropped"] == {"blocked_hash": 1, "http_500": 1}
    asked = {path: len(times) for path, times in Host.times.items()}
    assert (asked["/good.jpg"], asked["/late.jpg"], asked["/dead.jpg"], asked["/known.jpg"]) == (1, 2, 2, 1)
