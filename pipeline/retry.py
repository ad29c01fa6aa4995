"""The rows of a finished download that failed for a cause that may pass, tried once more, later.

A first pass is never changed: a later one has rows of its own, those that it tried, and whoever reads the results of all
passes takes of each pair the last (sql/image_verdicts.sql).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
from pydantic import Field
from upath import UPath

from pipeline.config import DownloadConfig
from pipeline.download import REQUESTS_FILE, RESULTS_FILE, fetch_requests, make_work_folder
from pipeline.fetch_cache import CachedStage, cache_file
from pipeline.fetch_error import passing_reasons
from pipeline.outages import refuse_silence
from pipeline.query import QueryConfig, query_rows, query_to_parquet
from pipeline.selection import SELECTED_FILE
from pipeline.settings import Settings
from pipeline.stage import Counts, Stage, total

HOSTS_TO_TRY = 5  # of those that answered, before a silent pass is held for an outage


class RetryConfig(Settings):
    """One later pass over one part."""

    download: DownloadConfig
    number: int = Field(ge=1, description="Of the pass; 1 follows the first download")


def _retry(sources: Sequence[UPath], out: Path, config: RetryConfig, cache_folder: Path) -> Counts:
    """`out` gets what a download gives, for the rows that it tries: none if all is well.

    `sources` is the selected part, what the pass before made of it, and what BLOCK_HASHES wrote if there are such lists.
    What fails again is final: hosts that are gone for good would close the gate of the first pass. This one has its own,
    `refuse_silence`.
    """
    selected, earlier, *hashes = sources
    work = make_work_folder(out)
    rows = query_to_parquet(
        "retry_requests",
        work / REQUESTS_FILE,
        QueryConfig(),
        selected=selected / SELECTED_FILE,
        results=earlier / RESULTS_FILE,
        passing_reasons=passing_reasons(),
    )
    if rows:
        asked = pq.read_table(work / REQUESTS_FILE, columns=["retry_after_s"])["retry_after_s"].to_pylist()
        time.sleep(wait_s(config, max((seconds for seconds in asked if seconds is not None), default=0)))
    part, cache = f"{selected.parent.name}/{selected.name}", cache_file(cache_folder, sources, config)
    counts = fetch_requests(part, work, rows, out, hashes, config.download, cache)
    hosts = query_rows(
        "answered_hosts",
        QueryConfig(),
        selected=selected / SELECTED_FILE,
        results=earlier / RESULTS_FILE,
        most=HOSTS_TO_TRY,
    )
    refuse_silence(part, counts, [host["url"] for host in hosts], config.download)
    shutil.rmtree(work)
    return counts


def retry_stage(cache_folder: Path) -> Stage[RetryConfig]:
    """One later pass over one part; `cache_folder` is as for the first."""
    return CachedStage(
        "retry",
        partial(_retry, cache_folder=cache_folder),
        sql=("retry_requests", "download_results"),
        version=2,
        cache_folder=cache_folder,
    )


def wait_s(config: RetryConfig, retry_after_s: float) -> float:
    """The pause before a pass: longer from pass to pass, and as long as the hosts asked for, within a bound."""
    pause_s: float = config.download.retry_wait_s * 2.0 ** (config.number - 1)
    return min(max(pause_s, retry_after_s), config.download.max_retry_wait_s)


def final_counts(passes: Sequence[Sequence[Counts]]) -> Counts:
    """What became of the rows of a download in the end; `passes` are the counts of its parts, and of those of each retry."""
    *earlier, last = (total(counts) for counts in passes)
    passing = set(passing_reasons())
    settled = [{reason: rows for reason, rows in counts.dropped.items() if reason not in passing} for counts in earlier]
    kept = [
        Counts(rows_in=counts.rows_kept + sum(dropped.values()), rows_kept=counts.rows_kept, dropped=dropped)
        for counts, dropped in zip(earlier, settled, strict=True)
    ]
    return total([*kept, last])
