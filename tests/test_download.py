"""The download stage against a real server that misbehaves in every way we know, with the real img2dataset."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import time
import urllib.parse
import urllib.request
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from downloaded_parts import finished
from PIL import ExifTags, Image
from upath import UPath

from pipeline import download as download_module
from pipeline.blocked_hashes import BLOCK_HASHES, plan_hashes
from pipeline.bounded_opener import BoundedOpener
from pipeline.config import DownloadConfig
from pipeline.download import download_stage
from pipeline.fetch_error import FetchError
from pipeline.fetch_part import WORKER_DIED
from pipeline.fetch_spec import FETCHED_SCHEMA, FetchSpec
from pipeline.jpeg import is_cut_off
from pipeline.originals import ORIGINALS_SCHEMA
from pipeline.outages import DownloadError, refuse_outage
from pipeline.query import QueryConfig, query_to_parquet
from pipeline.stage import Counts

MAX_BYTES = 200_000
DRIP_S = 30.0


def jpeg(width_px: int, height_px: int, seed: int = 0, **options: Any) -> bytes:
    pixels_HWC = np.random.default_rng(seed).integers(0, 255, (height_px // 8, width_px // 8, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels_HWC).resize((width_px, height_px)).save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def bomb_png(side_px: int) -> bytes:
    """A PNG of a few bytes that claims `side_px` x `side_px` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side_px, side_px, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


GOOD = jpeg(320, 240)
SMALL = jpeg(96, 64, seed=1)
XMP = '<x:xmpmeta xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/" plus:DataMining="http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED"/>'
PROHIBITED = jpeg(130, 90, seed=7, xmp=XMP.encode())
KNOWN, KNOWN_TOO = jpeg(120, 90, seed=5), jpeg(120, 90, seed=6)
PNG, TURNED = io.BytesIO(), io.BytesIO()
EXIF = Image.Exif()
EXIF[ExifTags.Base.Orientation] = 6  # the camera was held upright
Image.effect_noise((90, 70), 50).save(TURNED, "JPEG", exif=EXIF)
Image.new("RGB", (70, 70), "teal").save(PNG, "PNG")
ANSWERS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "/good.jpg": (200, {}, GOOD),
    "/small.jpg": (200, {}, SMALL),
    "/drawing.png": (200, {}, PNG.getvalue()),
    "/turned.jpg": (200, {}, TURNED.getvalue()),
    "/other-agent.jpg": (200, {"X-Robots-Tag": "otherbot: noai"}, jpeg(160, 160, seed=2)),
    "/known.jpg": (200, {}, KNOWN),
    "/known-too.jpg": (200, {}, KNOWN_TOO),
    "/redirect.jpg": (302, {"Location": "/good.jpg"}, b""),
    "/spaced name.jpg": (200, {}, jpeg(80, 80, seed=3)),
    "/noai.jpg": (200, {"X-Robots-Tag": "noimageai"}, GOOD),
    "/none.jpg": (200, {"X-Robots-Tag": "none"}, GOOD),
    "/noml.jpg": (200, {"X-Robots-Tag": "webimagetext: noml"}, GOOD),
    "/404.jpg": (404, {}, b"gone"),
    "/500.jpg": (500, {}, b"sorry"),
    "/loop.jpg": (302, {"Location": "/loop2.jpg"}, b""),
    "/loop2.jpg": (302, {"Location": "/loop.jpg"}, b""),
    "/far.jpg": (302, {"Location": "/far/1"}, b""),
    "/html.jpg": (200, {"Content-Type": "image/jpeg"}, b"<!doctype html><title>not a picture</title>"),
    "/cut.jpg": (200, {"Content-Length": str(len(GOOD))}, GOOD[: len(GOOD) // 2]),
    "/half.jpg": (200, {}, GOOD[: len(GOOD) // 2]),
    "/bomb.png": (200, {}, bomb_png(20_000)),
    "/wide.png": (200, {}, bomb_png(1_000)),
    "/announced.jpg": (200, {"Content-Length": str(MAX_BYTES + 1)}, b""),
    "/robots.txt": (404, {}, b""),
    "/.well-known/tdmrep.json": (404, {}, b""),
    "/reserved.jpg": (200, {"TDM-Reservation": "1"}, GOOD),
    "/prohibited.jpg": (200, {}, PROHIBITED),
    "/elsewhere.jpg": (302, {"Location": "file:///etc/hostname"}, b""),
}
EXPECTED = {
    "good.jpg": "ok",
    "small.jpg": "ok",
    "drawing.png": "ok",
    "turned.jpg": "ok",
    "other-agent.jpg": "ok",
    "known.jpg": "blocked_hash",
    "known-too.jpg": "blocked_hash",
    "redirect.jpg": "ok",
    "spaced name.jpg": "ok",
    "noai.jpg": "opted_out_image",
    "none.jpg": "opted_out_image",
    "noml.jpg": "opted_out_image",
    "reserved.jpg": "tdm_reserved",
    "prohibited.jpg": "ok",
    "404.jpg": "http_404",
    "500.jpg": "http_500",
    "loop.jpg": "too_many_redirects",
    "far.jpg": "too_many_redirects",
    "html.jpg": "not_an_image",
    "cut.jpg": "not_an_image",
    "half.jpg": "not_an_image",
    "bomb.png": "too_many_pixels",
    "announced.jpg": "too_large",
    "endless.jpg": "too_large",
    "drip.jpg": "timeout",
    "drip-headers.jpg": "timeout",
    "elsewhere.jpg": "fetch_failed",
}


class Misbehaving(http.server.BaseHTTPRequestHandler):
    """Answers by ANSWERS; `/drip` a byte at a time, `/endless` without end, `/far/N` one redirect further."""

    protocol_version = "HTTP/1.0"
    asked: ClassVar[Counter[str]] = Counter()
    agents: ClassVar[set[str]] = set()

    def do_GET(self) -> None:
        path = urllib.parse.unquote(self.path)
        self.asked[path] += 1
        self.agents.add(self.headers["User-Agent"])
        with suppress(BrokenPipeError, ConnectionResetError):
            self._answer(path)

    def _answer(self, path: str) -> None:
        if path == "/drip.jpg":
            self._head(200, {"Content-Length": str(len(GOOD))})
            self._drip(GOOD)
        elif path == "/drip-headers.jpg":
            self._drip(b"HTTP/1.0 200 OK\r\n" + b"X-Slow: very\r\n" * 100)
        elif path == "/endless.jpg":
            self._head(200, {})
            while True:
                self.wfile.write(bytes(10_000))
        elif path.startswith("/far/"):
            self._head(302, {"Location": f"/far/{int(path.removeprefix('/far/')) + 1}"})
        else:
            status, headers, body = ANSWERS[path]
            self._head(status, {"Content-Length": str(len(body)), **headers})
            self.wfile.write(body)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _drip(self, data: bytes) -> None:
        ends_at = time.monotonic() + DRIP_S
        for byte in data:
            if time.monotonic() > ends_at:
                return
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(0.1)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Misbehaving)
    httpd.daemon_threads = True
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    httpd.server_close()


def config(**changes: Any) -> DownloadConfig:
    settings: dict[str, Any] = {
        "backend": "img2dataset",
        "threads": 16,
        "timeout_s": 2.5,
        "image_deadline_s": 3.0,
        "max_image_bytes": MAX_BYTES,
        "max_image_pixels": 2_000_000,
        "max_redirects": 3,
        "short_side_px": 64,
        "max_failed_share": 0.99,
        "user_agent": "webimagetext/0.1 (+mailto:tests@example.org)",
        "allow_private_addresses": True,
    }
    return DownloadConfig(**{**settings, **changes})


def pair_id(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:32]


def write_part(folder: Path, urls: list[str]) -> UPath:
    """A selected part, as far as the download reads it."""
    table = pa.table(
        {"pair_id": pa.array([pair_id(url) for url in urls], pa.string()), "url": pa.array(urls, pa.string())}
    )
    return finished(folder, {"selected.parquet": table.sort_by("pair_id")})


def run_stage(part: UPath, out: Path, settings: DownloadConfig) -> Counts:
    return download_stage(out.with_name("cache")).run([part], UPath(out), settings).counts


@pytest.fixture(scope="module", params=["img2dataset", "native"])
def fetched(request: pytest.FixtureRequest, server: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """One run over all of EXPECTED, a host that does not resolve and a port that nobody listens at."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refused = f"http://127.0.0.1:{closed.getsockname()[1]}/refused.jpg"
    urls = [f"{server}/{name}" for name in EXPECTED] + [refused, "http://no-such-host.invalid/a.jpg", "gopher://x/a"]
    folder = tmp_path_factory.mktemp("download")
    Misbehaving.asked.clear()
    known = folder / "known.txt"
    known.write_text(f"{hashlib.md5(KNOWN).hexdigest()}\n{hashlib.sha256(KNOWN_TOO).hexdigest().upper()}\n")
    settings = config(backend=request.param, block_hashes=[str(known)])
    hashes = BLOCK_HASHES.run((), UPath(folder / "hashes"), plan_hashes(settings.block_hashes, QueryConfig())).out
    part = write_part(folder / "selected" / "part-00000", urls)
    download = download_stage(folder / "cache")
    return download.run([part, hashes], UPath(folder / "out"), settings).counts, folder / "out"


def by_name(out: Path, *columns: str) -> dict[str, Any]:
    rows = pq.read_table(out / "results.parquet").to_pylist()
    names = {pair_id(url): url for url in urls_of(out)}
    return {names[row["pair_id"]].rsplit("/", 1)[1]: tuple(row[column] for column in columns) for row in rows}


def urls_of(out: Path) -> list[str]:
    selected = pq.read_table(out.parent / "selected" / "part-00000" / "selected.parquet")
    urls: list[str] = selected["url"].to_pylist()
    return urls


def test_every_pair_gets_its_reason(fetched: tuple[Any, Path]) -> None:
    counts, out = fetched
    expected = {**EXPECTED, "refused.jpg": "connection", "a.jpg": "dns", "a": "fetch_failed"}
    assert {name: status for name, (status,) in by_name(out, "status").items()} == expected
    dropped = Counter(reason for reason in expected.values() if reason != "ok")
    assert (counts.rows_in, counts.rows_kept, counts.dropped) == (len(expected), 8, dict(sorted(dropped.items())))
    ids = pq.read_table(out / "results.parquet")["pair_id"].to_pylist()
    assert ids == sorted(set(ids))


def test_results_point_into_the_tar(fetched: tuple[Any, Path]) -> None:
    _, out = fetched
    assert sorted(path.name for path in out.iterdir()) == ["00000.tar", "results.parquet", "stage.json"]
    tar = (out / "00000.tar").read_bytes()
    for row in pq.read_table(out / "results.parquet").to_pylist():
        if row["status"] != "ok":
            assert row["error"] and row["image_offset"] is None and row["sha256"] is None
            continue
        image = Image.open(io.BytesIO(tar[row["image_offset"] : row["image_offset"] + row["stored_bytes"]]))
        image.load()
        assert image.format == "JPEG" and image.size == (row["width_px"], row["height_px"])
    sizes = by_name(out, "width_px", "height_px", "original_width_px", "original_height_px", "sha256")
    assert sizes["good.jpg"] == sizes["redirect.jpg"] == (85, 64, 320, 240, hashlib.sha256(GOOD).hexdigest())
    assert sizes["turned.jpg"][:4] == (64, 82, 70, 90)
    opt_outs = {name: told for name, (told,) in by_name(out, "file_opt_out").items() if told}
    assert opt_outs == {"prohibited.jpg": "DMI-PROHIBITED"}
    originals = by_name(out, "original_bytes", "original_format")
    assert originals["good.jpg"] == originals["redirect.jpg"] == (len(GOOD), "jpeg")
    assert originals["drawing.png"] == (len(PNG.getvalue()), "png")
    assert originals["404.jpg"] == originals["html.jpg"] == (None, None)
    assert sizes["small.jpg"] == (96, 64, 96, 64, hashlib.sha256(SMALL).hexdigest()), "never enlarged"


def test_settled_answers_are_asked_for_once_and_honestly(fetched: tuple[Any, Path]) -> None:
    assert Misbehaving.asked["/404.jpg"] == 1
    assert Misbehaving.asked["/500.jpg"] == 2, "one retry"
    assert Misbehaving.agents == {config().user_agent}


def test_nothing_is_kept_of_a_blocked_image(fetched: tuple[Any, Path]) -> None:
    _, out = fetched
    told = ("its bytes are on a list of download.block_hashes",)
    row = by_name(out, "error", "sha256", "original_bytes", "tar", "width_px")["known.jpg"]
    assert row == (f"blocked_hash: {told[0]}", None, None, None, None)
    assert Misbehaving.asked["/known.jpg"] == 1, "it is not fetched once more"
    with tarfile.open(out / "00000.tar") as tar:
        assert sum(name.endswith(".jpg") for name in tar.getnames()) == 8


def test_errors_are_the_same_words_for_the_same_cause(fetched: tuple[Any, Path]) -> None:
    _, out = fetched
    errors = by_name(out, "error")
    assert errors["drip.jpg"] == ("timeout: over 2.5 s without a byte or 3 s in all",)
    assert errors["endless.jpg"] == (f"too_large: more than the {MAX_BYTES} bytes allowed",)


@pytest.fixture(scope="module")
def opener(server: str) -> BoundedOpener:
    return BoundedOpener(config(allow_private_addresses=False))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "10.0.0.1", "169.254.169.254"])
def test_private_addresses_are_refused_before_a_connection(opener: BoundedOpener, server: str, host: str) -> None:
    with pytest.raises(FetchError, match=r"^private_address: "):
        opener.open(f"http://{host}:{server.rsplit(':', 1)[1]}/good.jpg")


def test_a_redirect_to_a_private_address_is_refused(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = server.rsplit(":", 1)[1]
    monkeypatch.setattr("pipeline.bounded_opener.is_public", lambda address: address == "127.0.0.1")
    monkeypatch.setitem(ANSWERS, "/inward.jpg", (302, {"Location": f"http://127.0.0.2:{port}/good.jpg"}, b""))
    with pytest.raises(FetchError, match=r"^private_address: 127\.0\.0\.2 "):
        BoundedOpener(config(allow_private_addresses=False)).open(f"{server}/inward.jpg")


def test_the_deadline_spans_redirects_and_body(server: str) -> None:
    started = time.monotonic()
    with (
        pytest.raises(FetchError, match=r"^timeout: "),
        BoundedOpener(config(timeout_s=5, image_deadline_s=0.5)).open(f"{server}/drip.jpg") as response,
    ):
        response.read()
    assert time.monotonic() - started < DRIP_S / 2


def test_an_opened_body_is_whole(server: str) -> None:
    with BoundedOpener(config()).open(urllib.request.Request(f"{server}/redirect.jpg")) as response:
        assert response.read() == GOOD


def test_cut_off_jpegs_are_told_from_whole_ones() -> None:
    thumbnail = jpeg(64, 48, seed=4)
    with_thumbnail = GOOD[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + GOOD[2:]
    progressive = jpeg(320, 240, progressive=True)
    for whole in (GOOD, with_thumbnail, progressive, GOOD + bytes(1_000), GOOD[:2] + b"\xff" + GOOD[2:]):
        assert not is_cut_off(whole)
        assert is_cut_off(whole[: len(GOOD) // 2])
    for other in (b"", b"\x89PNG", bomb_png(10), b"<html>"):
        assert not is_cut_off(other)


def test_an_outage_fails_the_part_and_says_why() -> None:
    counts = Counts(rows_in=20, rows_kept=1, dropped={"dns": 15, "http_404": 4})
    with pytest.raises(DownloadError, match=r"part-00003: .*19 of 20 images failed \(dns 15, http_404 4\).*resolver"):
        refuse_outage("selected/part-00003", counts, config(max_failed_share=0.9))
    refuse_outage("selected/part-00003", counts, config(max_failed_share=0.95))


@pytest.mark.parametrize(
    ("dropped", "kept", "remedy"),
    [
        ({"dns": 9, "private_address": 9}, 0, "resolver.*gone for good, set download.max_failed_share to 1"),
        ({"dns": 7, "private_address": 11}, 0, "host names do not resolve"),
        ({"dns": 19}, 0, "host names do not resolve"),
        ({"connection": 2, "timeout": 3}, 0, "check the network; lower"),
        ({"http_503": 5}, 0, "hosts do not answer as they should"),
        ({"http_429": 17, "http_404": 1}, 0, "ask to slow down"),
        ({"dns": 4}, 0, None),  # too few to tell
        ({"dns": 9}, 1, None),  # 0.9 is not more than 0.9
        ({"http_404": 19}, 0, None),  # an answer that will not change
        ({"private_address": 19}, 0, None),  # a setting that changes it makes the part another one
        ({"http_404": 9, "timeout": 9}, 0, None),  # the network works
    ],
)
def test_a_small_part_that_nobody_answered_fails_too(dropped: dict[str, int], kept: int, remedy: str | None) -> None:
    counts = Counts(rows_in=kept + sum(dropped.values()), rows_kept=kept, dropped=dropped)
    expected = nullcontext() if remedy is None else pytest.raises(DownloadError, match=rf"an outage: .*{remedy}")
    with expected:
        refuse_outage("selected/part-00000", counts, config(max_failed_share=0.9))
    refuse_outage("selected/part-00000", counts, config(max_failed_share=1))


def test_a_part_without_a_network_is_not_finished(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    part = write_part(tmp_path / "part-00000", [f"http://127.0.0.1:{port}/{name}.jpg" for name in range(6)])
    with pytest.raises(DownloadError, match=r"6 of 6 images failed \(connection 6\)"):
        run_stage(part, tmp_path / "out", config())
    assert not (tmp_path / "out").exists()


def test_an_empty_part_is_finished_without_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_module, "_run_backend", None)
    counts = run_stage(write_part(tmp_path / "selected" / "part-00000", []), tmp_path / "out", config())
    assert counts.rows_in == 0
    assert pq.read_table(tmp_path / "out" / "results.parquet").num_rows == 0


def group_of(leader: int) -> list[psutil.Process]:
    """The processes of a session that still run."""
    alive = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
    return alive


def wait_for(condition: Any, limit_s: float = 30) -> Any:
    ends_at = time.monotonic() + limit_s
    while not (value := condition()):
        assert time.monotonic() < ends_at, "waited in vain"
        time.sleep(0.05)
    return value


def children_in_own_session() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if os.getsid(child.pid) == child.pid]


def test_a_part_over_its_deadline_is_killed_whole(server: str, tmp_path: Path) -> None:
    part = write_part(tmp_path / "selected" / "part-00000", [f"{server}/drip.jpg"])
    leaders: list[int] = []
    watcher = threading.Thread(target=lambda: leaders.append(wait_for(children_in_own_session)[0].pid))
    watcher.start()
    with pytest.raises(DownloadError, match=r"part-00000: not done within 1 s, so it was killed; .*part_deadline_s"):
        run_stage(part, tmp_path / "out", config(part_deadline_s=1, image_deadline_s=60))
    watcher.join()
    assert not group_of(leaders[0])


def test_a_killed_run_is_done_anew_and_leaves_no_process(server: str, tmp_path: Path) -> None:
    """Kill -9 of the stage's own process in the middle: its downloaders die with it, and the next run is whole."""
    part = write_part(tmp_path / "selected" / "part-00000", [f"{server}/good.jpg", f"{server}/drip.jpg"])
    settings = config(image_deadline_s=60, timeout_s=60, processes=2)
    out = UPath(tmp_path / "downloads" / "part-00000")
    Misbehaving.asked.clear()
    code = (
        "import sys; from pathlib import Path; from upath import UPath; from pipeline.config import DownloadConfig; "
        "from pipeline.download import download_stage; config = DownloadConfig.model_validate_json(sys.argv[3]); "
        "download_stage(Path(sys.argv[4])).run([UPath(sys.argv[1])], UPath(sys.argv[2]), config)"
    )
    arguments = [str(part), str(out), settings.model_dump_json(), str(tmp_path / "cache")]
    stage = subprocess.Popen([sys.executable, "-c", code, *arguments])
    try:
        wait_for(lambda: Misbehaving.asked["/drip.jpg"], limit_s=120)
        leader = next(child.pid for child in psutil.Process(stage.pid).children() if os.getsid(child.pid) == child.pid)
        assert len(group_of(leader)) > 2
    finally:
        stage.send_signal(signal.SIGKILL)
        stage.wait()
    wait_for(lambda: not group_of(leader))
    assert not out.exists()
    download = download_stage(tmp_path / "cache")
    result = download.run([part], out, config(processes=2))
    assert result.counts.dropped == {"timeout": 1} and result.counts.rows_kept == 1
    assert download.run([part], out, config(processes=1, threads=3)).was_done, "speed is not of the fingerprint"


def test_a_worker_that_crashes_ends_the_process() -> None:
    """A pool waits for ever for the answer of a worker that was killed."""
    code = """if __name__ == "__main__":
    import multiprocessing, os, threading
    from pipeline.fetch_part import _watch_workers
    threading.Thread(target=_watch_workers, daemon=True).start()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(abs, (-1,)) == 1
        pool.apply(os._exit, (3,))"""
    ended = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, text=True, check=False)
    assert ended.returncode == WORKER_DIED, ended.stderr
    assert "died with exit status 3" in ended.stderr


def test_lost_rows_are_an_error(tmp_path: Path) -> None:
    spec = FetchSpec(
        requests=tmp_path / "r",
        rows=2,
        out=tmp_path / "images",
        config=config(),
        cache=tmp_path,
        parent_pid=1,
        ends_at=0,
    )
    spec.out.mkdir()
    (tmp_path / "fetch.log").write_text("OSError: No space left on device")
    (spec.out / "00000_stats.json").write_text('{"count": 2, "successes": 1}')
    with pytest.raises(DownloadError, match=r"the disk is full; make room, then run the same command again$"):
        download_module._check_books("downloads/part-00000", spec)
    (tmp_path / "fetch.log").write_text("a worker was killed")
    with pytest.raises(
        DownloadError, match=r"img2dataset lost some of 2 rows: .*; run again; .*: a worker was killed$"
    ):
        download_module._check_books("downloads/part-00000", spec)


def test_reasons_of_img2dataset_are_mapped(tmp_path: Path) -> None:
    messages = [
        ("success", None, "ok"),
        ("failed_to_download", "Use of image disallowed by X-Robots-Tag directive", "opted_out_image"),
        ("failed_to_download", "http_403: the server's answer", "http_403"),
        ("failed_to_download", "dns: [Errno -2] Name or service not known", "dns"),
        ("failed_to_download", "unknown url type: 'x'", "fetch_failed"),
        ("failed_to_download", "http_4044: no", "fetch_failed"),
        ("failed_to_resize", "Assertion failed) pixels <= CV_IO_MAX_IMAGE_PIXELS in function", "too_many_pixels"),
        ("failed_to_resize", "Image decoding error", "not_an_image"),
    ]
    ids = [f"{number:032d}" for number in range(len(messages))]
    requests, fetched, members, originals = (
        tmp_path / name for name in ("requests", "fetched", "members", "originals")
    )
    pq.write_table(pa.table({"pair_id": ids, "url": ids}), requests)
    rows = [
        {"pair_id": pair, "key": pair, "status": status, "error_message": message}
        for pair, (status, message, _) in zip(ids, messages, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(rows[::-1], schema=FETCHED_SCHEMA), fetched)
    pq.write_table(download_module.MEMBERS_SCHEMA.empty_table(), members)
    pq.write_table(ORIGINALS_SCHEMA.empty_table(), originals)
    files = {"requests": requests, "fetched": fetched, "members": members, "originals": originals}
    query_to_parquet("download_results", tmp_path / "out", QueryConfig(), **files)
    assert pq.read_table(tmp_path / "out")["status"].to_pylist() == [reason for _, _, reason in messages]
