"""The whole curation in one command: normal form, language, rules, duplicates, matching with 500,000 queries, balancing.

    python -m benchmarks.bench_curation --rows 10000000 --queries 500000

Makes a list of URL-caption pairs (three rows of ten are copies of others; captions of 7 to 18 words drawn by Zipf's law) and a
query list from a seed, then runs `wit build-queries` and `wit build-dataset url-list --until selection` as a person would, and
tells rows per second of the clock and of one core. There is no peer that does this; the figure is for comparing with itself.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.bench_matching import make_captions, make_queries, make_words

ROWS_AT_ONCE = 200_000
COPIES = 0.3


def write_pairs(path: Path, rows: int, queries: int) -> list[str]:
    """Write the list; returns the queries."""
    rng = np.random.default_rng(0)
    words = make_words(max(1_000, int(queries * 0.8)), rng)
    with pq.ParquetWriter(path, pa.schema({"url": pa.string(), "caption": pa.string()}), compression="zstd") as writer:
        for first in range(0, rows, ROWS_AT_ONCE):
            count = min(ROWS_AT_ONCE, rows - first)
            captions = [f"a photo of the {caption}" for caption in make_captions(words, count, rng)]
            numbers = np.arange(first, first + count)
            urls = [
                f"https://Site{n % 5003}.example.com/pictures/{n:09d}.jpg?utm_source=x#top" for n in numbers.tolist()
            ]
            chosen = np.where(rng.random(count) < COPIES, rng.integers(0, count, count), np.arange(count)).tolist()
            table = pa.table({"url": [urls[i] for i in chosen], "caption": [captions[i] for i in chosen]})
            writer.write_table(table, row_group_size=ROWS_AT_ONCE)
    return make_queries(words, queries, rng)


def wit(workspace: Path, *arguments: str) -> tuple[float, float]:
    """Run a command; seconds of the clock and of the processor, all its processes together."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "WIT_WORKSPACE": str(workspace)}
    subprocess.run([sys.executable, "-m", "flows.cli", *arguments], check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - started, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def stage_seconds(dataset: Path) -> dict[str, float]:
    """Seconds that each stage took, its parts together."""
    seconds: dict[str, float] = {}
    for marker in sorted(dataset.rglob("stage.json")):
        record = json.loads(marker.read_text())
        seconds[record["stage"]] = seconds.get(record["stage"], 0.0) + record["seconds"]
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=500_000)
    parser.add_argument("--pairs-per-query", type=int, default=2_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wit-curation-") as name:
        folder = Path(name)
        pairs, queries = folder / "pairs.parquet", folder / "queries.txt"
        queries.write_text("\n".join(write_pairs(pairs, options.rows, options.queries)) + "\n", encoding="utf-8")
        size_mb = pairs.stat().st_size / 1e6
        print(
            f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; {options.rows:,} rows, {size_mb:,.0f} MB"
        )
        wit(folder / "space", "build-queries", "bench", "--given-paths", str(queries))
        wall_s, processor_s = wit(
            folder / "space",
            *("build-dataset", "url-list", "--name", "bench", "--until", "selection"),
            *("--source.url-list.paths", str(pairs), "--curate.languages"),
            *("--queries.query-list", "bench", "--queries.balance.pairs-per-query", str(options.pairs_per_query)),
        )
        for stage, seconds in stage_seconds(folder / "space" / "datasets" / "bench").items():
            print(f"  {stage:<20} {seconds:8.1f} s")
        most_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(
            f"{options.rows / wall_s:,.0f} rows/s of the clock, {options.rows / processor_s:,.0f} rows/s of a core "
            f"({wall_s:,.0f} s, {processor_s:,.0f} s of the processor); largest process {most_mb:,.0f} MB"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
