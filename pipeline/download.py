"""Downloading one part: a backend under a deadline of ours, its books checked, every pair accounted for."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from pipeline.blocked_hashes import local_hashes
from pipeline.config import DownloadConfig
from pipeline.fetch_cache import CachedStage, cache_file
from pipeline.fetch_part import OPENER_USED_FILE
from pipeline.fetch_spec import FETCHED_SCHEMA, FetchSpec
from pipeline.originals import read_originals
from pipeline.outages import DownloadError, refuse_outage
from pipeline.query import QueryConfig, query_to_parquet
from pipeline.selection import SELECTED_FILE
from pipeline.stage import Counts, Stage

REQUESTS_FILE = "requests.parquet"
RESULTS_FILE = "results.parquet"
BACKENDS = {"img2dataset": "pipeline.fetch_part", "native": "pipeline.native_fetch"}  # the modules that are run
OK = "ok"
POLL_S = 0.1
LOG_TAIL_CHARS = 2_000
FULL_DISK_MARKS = ("No space left on device", "database or disk is full")  # of the system, and of SQLite
FULL_DISK_BYTES = 1 << 20

MEMBERS_SCHEMA = pa.schema(
    {"tar": pa.string(), "key": pa.string(), "image_offset": pa.int64(), "stored_bytes": pa.int64()}
)


def _download(sources: Sequence[UPath], out: Path, config: DownloadConfig, cache_folder: Path) -> Counts:
    """`out` gets the tars of the backend and `results.parquet`, one row per pair.

    `sources` is one selected part, and what BLOCK_HASHES wrote if the configuration names such lists.
    """
    selected, *hashes = sources
    part = f"{selected.parent.name}/{selected.name}"
    work = make_work_folder(out)
    requests = work / REQUESTS_FILE
    rows = query_to_parquet("fetch_requests", requests, QueryConfig(), selected=selected / SELECTED_FILE)
    cache = cache_file(cache_folder, sources, config)
    counts = fetch_requests(part, work, rows, out, hashes, config, cache)
    refuse_outage(part, counts, config)
    shutil.rmtree(work)
    return counts


def download_stage(cache_folder: Path) -> Stage[DownloadConfig]:
    """The download of one part. Images on their way lie below `cache_folder`: a kill costs none of the native backend's."""
    return CachedStage(
        "download",
        partial(_download, cache_folder=cache_folder),
        sql=("fetch_requests", "download_results"),
        version=4,
        cache_folder=cache_folder,
    )


def make_work_folder(out: Path) -> Path:
    """An empty folder below `out` for what is not to stay."""
    work = out / ".fetch"
    work.mkdir()
    return work


def fetch_requests(
    part: str, work: Path, rows: int, out: Path, hashes: Sequence[UPath], config: DownloadConfig, cache: Path
) -> Counts:
    """Fetch the `rows` rows of REQUESTS_FILE in `work`; `out` gets the tars and `results.parquet`.

    `hashes` is what BLOCK_HASHES wrote if the configuration names such lists. Raises DownloadError naming `part`.
    """
    assert len(hashes) == bool(config.block_hashes), "a list of what must not be kept is never left out"
    requests = work / REQUESTS_FILE
    fetched = work / "fetched"
    fetched.mkdir()
    if rows:
        fetched = work / "images"
        spec = FetchSpec(
            requests=requests,
            rows=rows,
            out=fetched,
            config=config,
            block_hashes=next((local_hashes(folder, work) for folder in hashes), None),
            cache=cache,
            parent_pid=os.getpid(),
            ends_at=time.monotonic() + config.part_deadline_s,
        )
        _run_backend(part, spec)
        _check_books(part, spec)
    return _collect(requests, fetched, out, rows)


def _run_backend(part: str, spec: FetchSpec) -> None:
    """Run the backend in a process of its own, of which nothing is left running.

    Raises DownloadError if it fails or takes too long.
    """
    spec_file = spec.out.with_name("spec.json")
    spec_file.write_text(spec.model_dump_json(), encoding="utf-8")
    log = spec.out.with_name("fetch.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", BACKENDS[spec.config.backend], str(spec_file)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(spec.config),
            start_new_session=True,
        )
        in_time = _wait_and_end(process, spec.ends_at)
    if not in_time:
        raise DownloadError(
            part,
            f"not done within {spec.config.part_deadline_s:g} s, so it was killed",
            "run again; if it stays too slow, raise download.part_deadline_s or lower download.rows_per_part",
        )
    if process.returncode != 0:
        raise _broken(part, log, f"{spec.config.backend} ended with status {process.returncode}")


def _environment(config: DownloadConfig) -> dict[str, str]:
    return {
        "RES_OPTIONS": "timeout:3 attempts:2",  # of the name resolver, resolv.conf(5): a look-up cannot be interrupted
        **os.environ,
        "OPENCV_IO_MAX_IMAGE_PIXELS": str(config.max_image_pixels),  # OpenCV checks it between header and decoding
        "NO_ALBUMENTATIONS_UPDATE": "1",  # it asks a server for its newest version on import
    }


def _wait_and_end(process: subprocess.Popen[bytes], ends_at: float) -> bool:
    """Wait for the leader of a group, then kill what is left of the group. Returns whether it ended in time."""
    try:
        # WNOWAIT leaves it a zombie, so that its group id cannot be another's when it is killed below.
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() > ends_at:
                return False
            time.sleep(POLL_S)
        return True
    finally:
        with suppress(ProcessLookupError, PermissionError):  # macOS, when only the zombie is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _check_books(part: str, spec: FetchSpec) -> None:
    """Compare what the backend says it did with what it wrote. Raises DownloadError if a row or an image is missing."""
    fetched = spec.out
    stats = [json.loads(file.read_text()) for file in sorted(fetched.glob("*_stats.json"))]
    log = fetched.with_name("fetch.log")
    successes = sum(each["successes"] for each in stats)
    try:
        images = sum(1 for tar in _tars(fetched) for _ in _image_members(tar))
    except tarfile.TarError as error:
        raise _broken(part, log, f"a tar is not whole: {error}") from error
    statuses = _fetched_table(fetched)["status"].to_pylist()
    told = {
        "rows counted": sum(each["count"] for each in stats),
        "rows written": len(statuses),
        "images counted": successes,
        "images listed": statuses.count("success"),
        "images in the tars": images,
    }
    if list(told.values()) != [spec.rows, spec.rows, successes, successes, successes]:
        raise _broken(part, log, f"{spec.config.backend} lost some of {spec.rows} rows: {told}")
    if successes and spec.config.backend == "img2dataset" and not fetched.with_name(OPENER_USED_FILE).exists():
        raise DownloadError(
            part,
            "this version of img2dataset does not fetch through urllib's installed opener, so no limit was kept",
            "install img2dataset 1.47",
        )


def _collect(requests: Path, fetched: Path, out: Path, rows: int) -> Counts:
    """Move the tars to `out`, write `results.parquet`, and count it."""
    tars = _tars(fetched)
    members = [member for tar in tars for member in _image_members(tar)]
    pq.write_table(pa.Table.from_pylist(members, schema=MEMBERS_SCHEMA), requests.with_name("members.parquet"))
    pq.write_table(_fetched_table(fetched), requests.with_name("fetched.parquet"))
    pq.write_table(read_originals(requests.parent), requests.with_name("originals.parquet"))
    query_to_parquet(
        "download_results",
        out / RESULTS_FILE,
        QueryConfig(),
        requests=requests,
        fetched=requests.with_name("fetched.parquet"),
        members=requests.with_name("members.parquet"),
        originals=requests.with_name("originals.parquet"),
    )
    for tar in tars:
        tar.rename(out / tar.name)
    statuses = pq.read_table(out / RESULTS_FILE, columns=["status"])["status"].value_counts().to_pylist()
    reasons = {row["values"]: row["counts"] for row in statuses}
    kept = reasons.pop(OK, 0)
    return Counts(rows_in=rows, rows_kept=kept, dropped=dict(sorted(reasons.items())))


def _tars(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.tar"))


def _image_members(tar: Path) -> Iterator[dict[str, object]]:
    with tarfile.open(tar, "r:") as archive:
        for member in archive:
            key, _, kind = member.name.rpartition(".")
            if kind == "jpg":
                yield {"tar": tar.name, "key": key, "image_offset": member.offset_data, "stored_bytes": member.size}


def _fetched_table(folder: Path) -> pa.Table:
    files = sorted(folder.glob("*.parquet"))
    tables = [pq.read_table(file, columns=FETCHED_SCHEMA.names).select(FETCHED_SCHEMA.names) for file in files]
    return pa.concat_tables([FETCHED_SCHEMA.empty_table(), *(table.cast(FETCHED_SCHEMA) for table in tables)])


def _broken(part: str, log: Path, problem: str) -> DownloadError:
    """The error of a backend that broke off. A full disk is told as such, for it may have had no room for its own log."""
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    if any(mark in text for mark in FULL_DISK_MARKS) or shutil.disk_usage(log.parent).free < FULL_DISK_BYTES:
        return DownloadError(part, "the disk is full", "make room, then run the same command again")
    return DownloadError(part, problem, f"run again; the end of its log: {text[-LOG_TAIL_CHARS:] or '(empty)'}")
