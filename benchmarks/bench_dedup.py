"""De-duplication of URL-caption pairs: our keys against SELECT DISTINCT on the strings, both in DuckDB.

    python -m benchmarks.bench_dedup --rows 1000000 --threads 2
    python -m benchmarks.bench_dedup --rows 100000000 --threads 2 --ours-only

Both read the same Parquet parts of pairs and write the distinct (url_norm, caption) to Parquet, each in a process of its own
with the same memory limit. Pairs are made from their numbers: URLs of about 80 characters, captions of about 60, three rows of
ten are copies of another row; half of the captions are unique, the others drawn by Zipf's law. `rules` is the stage of that
name, whose numbers the global pass reads; it does more than the peer (every rule, two further keys) and runs part by part, on as
many machines as there are, so the ratio is shown with and without it. `repeats` is the whole stage of that name, which also
numbers the copies and counts captions and images, and `verdicts` the stage after it, part by part; they have no peer. `copy`
writes about as many pairs without looking for copies: the floor of both ways, which our pipeline does not pay, as its verdicts
are read beside the pairs. Processor time is what other work on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
from upath import UPath

from pipeline.config import CurateConfig
from pipeline.curate import PAIR_VERDICTS, PairVerdictsConfig, rows_of
from pipeline.query import QueryConfig, query_to_parquet
from pipeline.repeats import REPEATS, RepeatsConfig, buckets_for
from pipeline.rules import RULED_FILE, RULES, RulesConfig
from pipeline.stage import total

PART_ROWS = 1_000_000
WANTED_RATIO = 5.0
WORDS = """
a the of in on with and red blue green dog cat bird horse river mountain beach house garden street old new small large
portrait view photograph painting illustration woman man child people flower tree forest winter summer evening morning
light wooden stone glass kitchen table chair window market festival bicycle train harbour bridge castle church museum
""".split()  # noqa: SIM905

# A row is a copy of an earlier one in three cases of ten; all columns follow from the number of the original.
MAKE_PAIRS = """
copy (
    with numbers as (
        select i as row_number, case when hash(i, 1) % 10 < 3 then (hash(i, 2) % (i + 1)::ubigint)::bigint else i end as original,
        from range($first, $first + $rows) as numbers(i)
    ),
    captions as (
        select
            *,
            case when hash(original, 3) % 2 = 0 then original + 1
            else pow($all_rows, (hash(original, 4) % 1000003) / 1000003)::bigint end as caption_number,
        from numbers
    ),
    texts as (
        select
            row_number,
            'https://' || substr(md5((original % 5003)::varchar), 1, 12) || '.example.com/wp-content/uploads/'
            || (2000 + original % 24)::varchar || '/' || md5(original::varchar) || '.jpg' as url_norm,
            array_to_string(
                list_transform(range(1, 11), lambda place: $words[1 + (hash(caption_number, place) % $word_count)::bigint]), ' '
            ) as caption,
        from captions
    )
    select
        $part::integer as part,
        'bench' as source,
        row_number - $first as row,
        url_norm as url,
        url_norm,
        caption as caption_raw,
        caption,
        lower(caption) as caption_key,
        left(sha256(url_norm || chr(31) || caption), 32) as pair_id,
        null::varchar as page_opt_out,
        length(caption)::integer as chars,
        10::integer as words,
        'en' as lang,
        0.9::float as lang_score,
        false as is_file_name,
    from texts
) to $out (format parquet, compression zstd, row_group_size 122880)
"""

DISTINCT = """
copy (select distinct url_norm, caption from read_parquet($pairs))
to $out (format parquet, compression zstd, row_group_size 122880)
"""

# What every way pays that writes the pairs: about as many of them, without finding out which.
COPY = """
copy (select url_norm, caption from read_parquet($pairs) where row % 100 < 77)
to $out (format parquet, compression zstd, row_group_size 122880)
"""

PAYLOAD = """
copy (
    select pairs.url_norm, pairs.caption,
    from read_parquet($pairs) as pairs
    anti join read_parquet($copies) as copies on ((pairs.part::ubigint << 40) | pairs.row::ubigint) = copies.place
) to $out (format parquet, compression zstd, row_group_size 122880)
"""


class Clock:
    """Seconds of named steps, of the clock and of the processor."""

    def __init__(self) -> None:
        self.wall_s: dict[str, float] = {}
        self.processor_s: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        wall, processor = time.perf_counter(), time.process_time()
        yield
        self.wall_s[name] = time.perf_counter() - wall
        self.processor_s[name] = time.process_time() - processor


@dataclass(frozen=True)
class Bounds:
    """What the statements may use, and into how many the passes over all keys are cut."""

    threads: int
    memory_mb: int
    buckets: int

    @property
    def query(self) -> QueryConfig:
        return QueryConfig(memory_limit_mb=self.memory_mb, threads=self.threads)


def run_statement(folder: Path, bounds: Bounds, text: str, **values: object) -> int:
    """Run a COPY with the bounds that the product's statements have; return the rows written."""
    with tempfile.TemporaryDirectory(dir=folder) as spill, duckdb.connect() as connection:
        connection.execute("set enable_progress_bar = false")
        connection.execute("set preserve_insertion_order = false")  # DISTINCT has no order, so the payload needs none
        connection.execute("set memory_limit = $limit", {"limit": f"{bounds.memory_mb}MB"})
        connection.execute("set temp_directory = $folder", {"folder": spill})
        connection.execute("set threads = $threads", {"threads": bounds.threads})
        (rows,) = connection.execute(text, values).fetchone() or (0,)
    return int(rows)


def parts_of(folder: Path) -> list[UPath]:
    return [UPath(part) for part in sorted((folder / "pairs").iterdir())]


def copies_of(folder: Path) -> list[UPath]:
    return [UPath(file) for file in sorted((folder / "copies").iterdir())]


def make_pairs(folder: Path, bounds: Bounds, rows: int) -> None:
    for part, first in enumerate(range(0, rows, PART_ROWS)):
        out = folder / "pairs" / f"part-{part:05}"
        out.mkdir(parents=True)
        values: dict[str, object] = {
            "part": part,
            "first": first,
            "rows": min(PART_ROWS, rows - first),
            "all_rows": rows,
        }
        values |= {"words": WORDS, "word_count": len(WORDS)}
        run_statement(folder, bounds, MAKE_PAIRS, out=str(out / "pairs.parquet"), **values)


def run_distinct(folder: Path, bounds: Bounds, clock: Clock) -> int:
    pairs = [str(part / "pairs.parquet") for part in parts_of(folder)]
    with clock.step("copy"):
        run_statement(folder, bounds, COPY, pairs=pairs, out=str(folder / "copy.parquet"))
    with clock.step("distinct"):
        return run_statement(folder, bounds, DISTINCT, pairs=pairs, out=str(folder / "distinct.parquet"))


def run_keys(folder: Path, bounds: Bounds, clock: Clock) -> int:
    query = bounds.query
    config = RulesConfig.of(CurateConfig(), query)
    ruled = [folder / "rules" / part.name for part in parts_of(folder)]
    with clock.step("rules"):
        for part, out in zip(parts_of(folder), ruled, strict=True):
            out.mkdir(parents=True)
            RULES.work([part], out, config)
    files = [part / RULED_FILE for part in ruled]
    copies = folder / "copies"
    copies.mkdir()
    with clock.step("keys"):
        for number in range(bounds.buckets):
            repeated, bucket = folder / "repeated.parquet", {"bucket": number, "buckets": bounds.buckets}
            query_to_parquet("repeated_pairs", repeated, query, ruled=files, **bucket)
            query_to_parquet(
                "later_copies", copies / f"{number}.parquet", query, ruled=files, repeated=repeated, **bucket
            )
    return sum(map(rows_of, files)) - sum(map(rows_of, copies_of(folder)))


def run_payload(folder: Path, bounds: Bounds, clock: Clock) -> int:
    """The pairs that `run_keys` found to be no copies, written."""
    values = {"pairs": [str(part / "pairs.parquet") for part in parts_of(folder)]}
    values |= {"copies": [str(file) for file in copies_of(folder)]}
    with clock.step("payload"):
        return run_statement(folder, bounds, PAYLOAD, **values, out=str(folder / "survivors.parquet"))


def run_verdicts(folder: Path, bounds: Bounds, clock: Clock) -> int:
    """The stages themselves, on the parts that `run_keys` left."""
    ruled = [UPath(part) for part in sorted((folder / "rules").iterdir())]
    repeats = [UPath(folder / "repeats" / str(number)) for number in range(bounds.buckets)]
    with clock.step("repeats"):
        for number, out in enumerate(repeats):
            out.mkdir(parents=True)
            config = RepeatsConfig.of(CurateConfig(), bounds.query, number, bounds.buckets)
            REPEATS.work(ruled, Path(out.path), config)
    judged = []
    with clock.step("verdicts"):
        for part in ruled:
            out_part = folder / "verdicts" / part.name
            out_part.mkdir(parents=True)
            judged.append(PAIR_VERDICTS.work([part, *repeats], out_part, PairVerdictsConfig(query=bounds.query)))
    counts = total(judged)
    return counts.rows_in - counts.dropped["duplicate_pair"]


def in_child(work: Callable[[Path, Bounds, Clock], int], folder: Path, bounds: Bounds) -> dict[str, object]:
    """Run `work` in a process of its own: rows, seconds by step, peak memory."""
    report = folder / f"{work.__name__}.json"
    child = multiprocessing.get_context("spawn").Process(target=_child, args=(work, folder, bounds, report))
    child.start()
    child.join()
    if child.exitcode != 0:
        raise SystemExit(f"{work.__name__} ended with exit code {child.exitcode}")
    values: dict[str, object] = json.loads(report.read_text())
    return values


def _child(work: Callable[[Path, Bounds, Clock], int], folder: Path, bounds: Bounds, report: Path) -> None:
    clock = Clock()
    rows = work(folder, bounds, clock)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    values = {"rows": rows, "peak_mb": peak_mb, "wall_s": clock.wall_s, "processor_s": clock.processor_s}
    report.write_text(json.dumps(values))


def show(rows: int, results: dict[str, dict[str, object]]) -> dict[str, dict[str, float]]:
    """Print the table; returns seconds by unit and step."""
    print(f"{'step':10} {'wall s':>8} {'cpu s':>8} {'M rows/s':>9} {'cpu us/row':>11} {'peak MB':>8}")
    seconds: dict[str, dict[str, float]] = {"wall_s": {}, "processor_s": {}}
    for result in results.values():
        for step, wall in result["wall_s"].items():  # type: ignore[attr-defined]
            cpu = result["processor_s"][step]  # type: ignore[index]
            seconds["wall_s"][step], seconds["processor_s"][step] = wall, cpu
            print(
                f"{step:10} {wall:8.2f} {cpu:8.2f} {rows / wall / 1e6:9.2f} {cpu / rows * 1e6:11.3f} {result['peak_mb']:8}"
            )
    return seconds


def compare(seconds: dict[str, dict[str, float]]) -> bool:
    """Print how many times as long DISTINCT takes; tell whether the aim was reached."""
    for unit, steps in seconds.items():
        distinct, ours = steps["distinct"], steps["keys"] + steps["payload"]
        told = {
            "keys alone": distinct / steps["keys"],
            "with the payload": distinct / ours,
            "with the payload, less a plain copy": (distinct - steps["copy"]) / max(ours - steps["copy"], 1e-9),
            "with the rules too": distinct / (ours + steps["rules"]),
        }
        print(f"DISTINCT / ours by {unit}: " + "; ".join(f"{name} {ratio:.1f}" for name, ratio in told.items()))
    return seconds["wall_s"]["distinct"] / (seconds["wall_s"]["keys"] + seconds["wall_s"]["payload"]) >= WANTED_RATIO


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory-mb", type=int, default=2_000, help="limit of DuckDB")
    parser.add_argument("--buckets", type=int, default=0, help="of our passes; 0 = as many as build-dataset would take")
    parser.add_argument("--ours-only", action="store_true", help="without DISTINCT and without writing the pairs")
    parser.add_argument("--folder", type=Path, help="where the files go (10 million rows: 3 GB), removed at the end")
    options = parser.parse_args()
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="wit-bench-dedup-", dir=options.folder))
    try:
        versions = f"duckdb {duckdb.__version__}, Python {platform.python_version()}"
        bounds = Bounds(
            threads=options.threads,
            memory_mb=options.memory_mb,
            buckets=options.buckets or buckets_for(options.rows, QueryConfig(memory_limit_mb=options.memory_mb)),
        )
        print(f"{versions}, {options.rows:,} rows, {bounds}")
        make_pairs(folder, bounds, options.rows)
        works = [run_keys, run_verdicts] if options.ours_only else [run_distinct, run_keys, run_payload, run_verdicts]
        results = {work.__name__: in_child(work, folder, bounds) for work in works}
    finally:
        shutil.rmtree(folder)
    found = {name: result["rows"] for name, result in results.items()}
    print(f"distinct pairs: {found}")
    if len(set(found.values())) != 1:
        print("they differ: one of them is wrong")
        return 1
    seconds = show(options.rows, results)
    if options.ours_only:
        return 0
    reached = compare(seconds)
    print(
        f"aim: {WANTED_RATIO:g} times SELECT DISTINCT with the payload, by the clock: {'reached' if reached else 'missed'}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
