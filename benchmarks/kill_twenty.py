"""A data set, killed at twenty random moments of download, hashing and packing: its shards, and what was fetched twice.

    python -m benchmarks.kill_twenty --images 60 --kills 20 --seed 0

A build is the stages from the download to the shards, run by a process that leads its own session; a kill is SIGKILL to that
whole group, and what it had started must end by itself. Each build is killed once in every stage, at a moment drawn from the time
that the stage took undisturbed (a stage that ends before is not killed), until all kills have hit. Images come from a server that
counts: what lay in a cache or in a finished part when the kill came must never be asked for again. That holds for `backend:
native`; of img2dataset a part in work is fetched anew, so only finished parts are spared.
"""

from __future__ import annotations

import argparse
import hashlib
import http.server
import multiprocessing
import os
import random
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import ClassVar

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
from upath import UPath

from pipeline.config import BuildDatasetConfig, DownloadConfig, ImageConfig, ShardConfig
from pipeline.download import download_stage
from pipeline.image_facts import IMAGE_FACTS
from pipeline.images import IMAGE_VERDICTS, ImageVerdictsConfig, image_sources
from pipeline.query import QueryConfig
from pipeline.settings import Settings
from pipeline.shards import SHARDS, ShardsConfig
from pipeline.stage import MARKER, Counts, Stage
from pipeline.tombstones import TAKEN_DOWN, TakenDownConfig

QUERY = QueryConfig(threads=1)
PARTS = 2
STAGES = ("downloads", "facts", "verdicts", "shards")  # folders of a build
POLL_S = 0.001
ANSWER_S = 0.03  # so that a kill finds images on their way
QUIET_S = 120.0  # what was started must have ended by then; a process that imports notices its parent only afterwards
PRELOADED = ("pipeline.download", "pipeline.images", "pipeline.shards", "pipeline.image_facts", "simplejpeg", "psutil")
COLUMNS = ("pair_id", "url", "url_norm", "host", "caption", "page_url", "text_key", "source")


def picture(number: int) -> bytes:
    pixels_HWC = np.random.default_rng(number).integers(0, 255, (48, 64, 3), np.uint8)
    return bytes(simplejpeg.encode_jpeg(pixels_HWC, quality=80))


class Counting(http.server.BaseHTTPRequestHandler):
    """`/NUMBER.jpg` is the picture of that number."""

    asked: ClassVar[Counter[str]] = Counter()

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        name = self.path.strip("/").removesuffix(".jpg")
        time.sleep(ANSWER_S)
        body = picture(int(name)) if name.isdecimal() else b""
        with suppress(BrokenPipeError, ConnectionResetError):  # who asked was killed
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def write_selection(root: Path, address: str, images: int) -> None:
    """The selected pairs, whole and in parts, as finished stages."""
    urls = [f"{address}/{number}.jpg" for number in range(images)]
    rows = sorted(
        (
            {name: "" for name in COLUMNS}
            | {"pair_id": hashlib.sha256(url.encode()).hexdigest()[:32], "url": url, "caption": f"picture {number}"}
            for number, url in enumerate(urls)
        ),
        key=lambda row: row["pair_id"],
    )
    parts = {root / "parts" / f"part-{part:05d}": rows[part::PARTS] for part in range(PARTS)}
    for folder, chosen in {root / "selected": rows, **parts}.items():

        def work(_: object, out: Path, __: Settings, table: list[dict[str, str]] = chosen) -> Counts:
            pq.write_table(pa.Table.from_pylist(table), out / "selected.parquet")
            return Counts(rows_in=len(table), rows_kept=len(table))

        Stage("selected", work).run([], UPath(folder), Settings())


def build(root: Path) -> None:
    """The stages from the download to the shards; the leader of a session of its own."""
    os.setsid()
    space = UPath(root)
    config = BuildDatasetConfig(
        name="killed",
        images=ImageConfig(min_side_px=1),
        shards=ShardConfig(samples_per_shard=8, val_share=0.1),
        download=DownloadConfig(
            backend="native", threads=8, short_side_px=32, allow_private_addresses=True, retry_passes=0
        ),
        query=QUERY,
    )
    selected = [space / "parts" / f"part-{part:05d}" for part in range(PARTS)]
    stage = download_stage(root / "cache")
    downloads = [stage.run([part], space / "downloads" / part.name, config.download).out for part in selected]
    facts = [IMAGE_FACTS.run([part], space / "facts" / part.name, Settings()).out for part in downloads]
    rules = ImageVerdictsConfig(images=config.images, query=QUERY)
    verdicts = IMAGE_VERDICTS.run(image_sources(selected, downloads, facts, []), space / "verdicts", rules).out
    gone = TAKEN_DOWN.run([verdicts, space / "selected"], space / "taken_down", TakenDownConfig(query=QUERY)).out
    SHARDS.run([verdicts, gone, *downloads], space / "shards", ShardsConfig(config=config))


def settled(root: Path) -> set[str]:
    """The pairs that lie in a finished part or in a cache."""
    found: set[str] = set()
    for marker in root.glob(f"downloads/*/{MARKER}"):
        found.update(pq.read_table(marker.with_name("results.parquet"), columns=["pair_id"])["pair_id"].to_pylist())
    for file in root.glob("cache/*.sqlite"):
        with closing(sqlite3.connect(file)) as cache:
            if cache.execute("select 1 from sqlite_master where name = 'outcomes'").fetchone():
                found.update(pair_id for (pair_id,) in cache.execute("select pair_id from outcomes"))
    return found


def files(root: Path) -> dict[str, bytes]:
    shards = root / "shards"
    return {str(file.relative_to(shards)): file.read_bytes() for file in shards.rglob("*.*") if file.name != MARKER}


def run(root: Path, stage: str = "", after_s: float = 0.0) -> tuple[bool, dict[str, float]]:
    """Build, or be killed `after_s` seconds after the start of `stage`; nothing of it runs afterwards.

    Returns whether it was killed, and for how many seconds each stage was seen in work.
    """
    process = multiprocessing.get_context("forkserver").Process(target=build, args=(root,))
    started = time.time()
    process.start()
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    while process.exitcode is None:
        now, at_work = time.monotonic(), stage_in_work(root, started)
        first.setdefault(at_work, now)
        last[at_work] = now
        if stage in first and now - first[stage] >= after_s:
            break
        time.sleep(POLL_S)
    is_killed = process.exitcode is None
    if is_killed:
        assert process.pid is not None
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    elif process.exitcode:
        raise RuntimeError(f"the build ended with status {process.exitcode}")
    ends_at = time.monotonic() + QUIET_S
    while any(str(root) in word for each in psutil.process_iter(["cmdline"]) for word in each.info["cmdline"] or ()):
        if time.monotonic() > ends_at:
            raise RuntimeError("what the build had started did not end with it")
        time.sleep(0.02)
    return is_killed, {name: last[name] - first[name] for name in first}


def main() -> int:
    """Returns 1 if any byte differs or anything was fetched twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(PRELOADED))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counting)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    paths = {
        hashlib.sha256(f"{address}/{number}.jpg".encode()).hexdigest()[:32]: f"/{number}.jpg"
        for number in range(options.images)
    }
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "undisturbed"
        write_selection(whole, address, options.images)
        run(whole)  # the first one also waits for the fork server
        expected = files(whole)
        again = Path(folder) / "again"
        write_selection(again, address, options.images)
        _, lengths_s = run(again)
        if files(again) != expected:
            raise RuntimeError("two undisturbed builds differ")
        kills, builds, different, twice, during = 0, 0, 0, 0, Counter[str]()
        while kills < options.kills:
            root = Path(folder) / f"build-{builds}"
            write_selection(root, address, options.images)
            Counting.asked.clear()
            known: dict[str, int] = {}
            for stage in STAGES:
                if kills == options.kills:
                    break
                is_killed, _ = run(root, stage, draw.uniform(0, lengths_s[stage]))
                kills += is_killed
                during[stage_in_work(root)] += is_killed
                known = {pair_id: Counting.asked[paths[pair_id]] for pair_id in settled(root)} | known
            run(root)
            again_fetched = sum(Counting.asked[paths[pair_id]] > asked for pair_id, asked in known.items())
            is_same = files(root) == expected
            print(
                f"build {builds}: after {kills} kills in all, shards {'equal' if is_same else 'DIFFER'}, "
                f"{len(known)} images were there at a kill, {again_fetched} of them fetched again",
                flush=True,
            )
            builds += 1
            twice += again_fetched
            different += not is_same
    server.shutdown()
    where = ", ".join(f"{stage} {count}" for stage, count in sorted((+during).items()))
    lengths = ", ".join(f"{stage} {lengths_s[stage]:.2f} s" for stage in STAGES)
    print(f"{kills} kills ({where}), {builds} builds; undisturbed: {lengths}")
    print(f"builds whose shards differ: {different}; images fetched though they were there: {twice}")
    return int(different > 0 or twice > 0)


def places(root: Path, stage: str) -> list[Path]:
    """Where the stage, or each part of it, ends up."""
    parts = [root / stage / f"part-{part:05d}" for part in range(PARTS)]
    return parts if stage in ("downloads", "facts") else [root / stage]


def stage_in_work(root: Path, since: float = 0.0) -> str:
    """The stage whose scratch folder lies there, and was not left by a build before `since`."""
    for stage in STAGES:
        for place in places(root, stage):
            with suppress(FileNotFoundError):
                if place.with_name(f".{place.name}.partial").stat().st_mtime > since:
                    return stage
    return "between"


if __name__ == "__main__":
    sys.exit(main())
