"""Fetches one part's images, in a process of its own: `python -m pipeline.native_fetch SPEC.json`.

One event loop asks all hosts, each politely (pipeline/polite_hosts.py); threads decode, for OpenCV lets go of the interpreter's
lock. What is settled is kept in a cache at once, and packed in the order of pair_id at the end: the same bytes give the same tar.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
import tarfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from pipeline.blocked_hashes import BlockedHashes
from pipeline.fetch_cache import FetchCache, Outcome, open_cache
from pipeline.fetch_error import BLOCKED_HASH, FetchError
from pipeline.fetch_spec import FETCHED_SCHEMA, FetchSpec
from pipeline.originals import OriginalsLog, original_of
from pipeline.parent_death import die_with_parent
from pipeline.parquet import read_parquet
from pipeline.polite_fetcher import PoliteFetcher
from pipeline.stored_image import shrink

PACKING_SHARE = (
    0.2  # so much of a part's time is left for packing and for the end of the process, before it would be killed
)
DECODERS = 4  # threads, where there are as many cores
LATE = "timeout: the part's time was over before its turn"


def fetch(spec: FetchSpec) -> None:
    """Fetch, shrink and pack all images: `out` gets one `00000.tar`, `.parquet` and `_stats.json`, as of img2dataset."""
    cv2.setNumThreads(1)
    requests = read_parquet(UPath(spec.requests), ["pair_id", "url"]).to_pylist()
    with open_cache(spec.cache) as cache:
        settled = cache.pair_ids()
        pairs_of: defaultdict[str, list[str]] = defaultdict(list)
        for request in requests:
            if request["pair_id"] not in settled:
                pairs_of[request["url"]].append(request["pair_id"])
        failed = asyncio.run(_fetch_all(spec, pairs_of, cache))
        _pack(spec, [request["pair_id"] for request in requests], failed, cache)


async def _fetch_all(spec: FetchSpec, pairs_of: dict[str, list[str]], cache: FetchCache) -> dict[str, str]:
    """Fetch each URL once for all of its pairs. Returns the errors that may pass, by pair_id; all else is in the cache."""
    failed: dict[str, str] = {}
    blocked = BlockedHashes(spec.block_hashes) if spec.block_hashes else None

    def store(body: bytes) -> Outcome:
        if blocked and blocked.holds(body):
            raise FetchError(*BLOCKED_HASH)
        image = shrink(body, spec.config.short_side_px, spec.config.jpeg_quality)
        return Outcome("", None, image, original_of(body))

    async def visit(fetcher: PoliteFetcher, url: str) -> None:
        try:
            outcome = await fetcher.fetch(url, store)
        except FetchError as error:
            if not error.is_settled:
                failed.update(dict.fromkeys(pairs_of[url], str(error)))
                return
            outcome = Outcome("", str(error), None, None)
        for pair_id in pairs_of[url]:
            cache.store(outcome._replace(pair_id=pair_id))

    with ThreadPoolExecutor(min(DECODERS, os.cpu_count() or 1)) as decoders:
        async with PoliteFetcher(spec.config, decoders) as fetcher:
            visits = {asyncio.create_task(visit(fetcher, url)): url for url in pairs_of}
            ends_at = spec.ends_at - PACKING_SHARE * spec.config.part_deadline_s
            await _finish(visits, max(ends_at - time.monotonic(), 0))
    for task, url in visits.items():
        if task.cancelled():
            failed.update(dict.fromkeys(pairs_of[url], LATE))
    return failed


async def _finish(tasks: dict[asyncio.Task[None], str], limit_s: float) -> None:
    """Wait for all tasks, cancel what is not done in time, and raise what one of them raised."""
    if not tasks:
        return
    done, late = await asyncio.wait(tasks, timeout=limit_s, return_when=asyncio.FIRST_EXCEPTION)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    for task in done:
        task.result()


def _pack(spec: FetchSpec, pair_ids: list[str], failed: dict[str, str], cache: FetchCache) -> None:
    spec.out.mkdir()
    originals = OriginalsLog(spec.out.parent, os.getpid())
    rows: list[dict[str, Any]] = []
    with tarfile.open(spec.out / "00000.tar", "w") as tar:
        for number, pair_id in enumerate(pair_ids):
            outcome = cache.find(pair_id) or Outcome(pair_id, failed[pair_id], None, None)
            row: dict[str, Any] = {
                "pair_id": pair_id,
                "key": f"{number:09d}",
                "status": "failed",
                "error_message": outcome.error,
            }
            if outcome.image is not None and outcome.original is not None:
                image = outcome.image
                member = tarfile.TarInfo(f"{row['key']}.jpg")
                member.size = len(image.jpeg)
                tar.addfile(member, io.BytesIO(image.jpeg))
                originals.add(outcome.original)
                row |= {"status": "success", "sha256": outcome.original.sha256}
                row |= {"width": image.width_px, "height": image.height_px}
                row |= {"original_width": image.original_width_px, "original_height": image.original_height_px}
            rows.append(row)
    pq.write_table(pa.Table.from_pylist(rows, schema=FETCHED_SCHEMA), spec.out / "00000.parquet")
    successes = sum(row["status"] == "success" for row in rows)
    (spec.out / "00000_stats.json").write_text(json.dumps({"count": len(rows), "successes": successes}))


if __name__ == "__main__":
    _spec = FetchSpec.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    die_with_parent(_spec.parent_pid, signal.SIGKILL)
    fetch(_spec)
