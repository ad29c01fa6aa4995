"""A disk that is really full: the error is one line, nothing half-written counts as done, and with room the bytes are right."""

from __future__ import annotations

import hashlib
import http.server
import os
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
import simplejpeg
from built_shards import CONFIG, IMAGES, PAIRS, QUERY, Built
from downloaded_parts import finished, write_facts, write_part
from upath import UPath

from flows.console import is_told_in_one_line
from pipeline.config import DownloadConfig
from pipeline.download import download_stage
from pipeline.images import IMAGE_VERDICTS, ImageVerdictsConfig, image_sources
from pipeline.outages import DownloadError
from pipeline.shards import SHARDS
from pipeline.stage import StageResult

Run = Callable[[UPath], StageResult]


class SmallDisk:
    """A file system in memory that takes no more than so much."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def resize(self, size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a disk that is small enough to be filled")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    yield SmallDisk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # the error that was raised may hold a file


def files_of(result: StageResult) -> dict[str, bytes]:
    return {name: Path(result.out.path, name).read_bytes() for name in result.record.outputs}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp("built"))


def packing(built: Built) -> Run:
    sources = [built.verdicts, built.data.whole("taken_down"), *built.downloads]
    return lambda out: SHARDS.run(sources, out, CONFIG)


def judging(built: Built) -> Run:
    """Tables that DuckDB and Arrow write."""
    root = Path(built.data.root.path) / "judged"
    written = [write_part(root, number, PAIRS[number::2]) for number in range(2)]
    facts = [write_facts(root, number, PAIRS[number::2]) for number in range(2)]
    sources = image_sources([part for part, _ in written], [download for _, download in written], facts, [])
    return lambda out: IMAGE_VERDICTS.run(sources, out, ImageVerdictsConfig(images=IMAGES, query=QUERY))


@pytest.mark.parametrize(("work", "size"), [(packing, "64k"), (judging, "4k")])
def test_a_stage_goes_on_when_there_is_room(
    built: Built, disk: SmallDisk, tmp_path: Path, work: Callable[[Built], Run], size: str
) -> None:
    run = work(built)
    disk.resize(size)
    out = UPath(disk.folder / "out")
    with pytest.raises((OSError, ValueError)) as told:
        run(out)
    assert is_told_in_one_line(told.value) and len(str(told.value).splitlines()) == 1
    assert not out.exists()
    disk.resize("8m")
    result = run(out)
    assert not result.was_done and files_of(result) == files_of(run(UPath(tmp_path / "elsewhere")))


class Pictures(http.server.BaseHTTPRequestHandler):
    """`/NUMBER` is a picture of about 40 kB."""

    asked: ClassVar[Counter[str]] = Counter()

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        name = self.path.strip("/")
        body = b""
        if name.isdecimal():
            pixels_HWC = np.random.default_rng(int(name)).integers(0, 255, (200, 200, 3), np.uint8)
            body = bytes(simplejpeg.encode_jpeg(pixels_HWC, quality=95))
        self.send_response(200 if body else 404)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_a_download_goes_on_when_there_is_room_and_fetches_nothing_twice(disk: SmallDisk, tmp_path: Path) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    urls = [f"http://127.0.0.1:{server.server_address[1]}/{number}" for number in range(40)]
    ids = [hashlib.sha256(url.encode()).hexdigest()[:32] for url in urls]
    part = finished(tmp_path / "part", {"selected.parquet": pa.table({"pair_id": ids, "url": urls}).sort_by("pair_id")})
    settings = DownloadConfig(
        backend="native", allow_private_addresses=True, user_agent="tests/1 (+mailto:t@example.org)"
    )
    disk.resize("1m")
    out = UPath(disk.folder / "out")
    with pytest.raises(DownloadError, match=r"^download of .*: the disk is full; make room, then run .* again$"):
        download_stage(tmp_path / "cache").run([part], out, settings)
    assert not out.exists()
    disk.resize("64m")
    result = download_stage(tmp_path / "cache").run([part], out, settings)
    assert result.counts.rows_kept == len(urls)
    assert {Pictures.asked[f"/{number}"] for number in range(40)} == {1}
    other = download_stage(tmp_path / "other").run([part], UPath(tmp_path / "elsewhere"), settings)
    assert files_of(result) == files_of(other)
    server.shutdown()
    server.server_close()
