"""Matching captions with 500,000 queries: our SQL against pyahocorasick, the fastest published way (MetaCLIP's code).

    python -m benchmarks.bench_matching --captions 1000000 --queries 500000 --rounds 3

Both read the same Parquet file of pairs and write the same Parquet file of matches in mode metaclip-exact, each in a process
of its own on one core, taking turns; the files are compared row by row. Captions and queries are made from a seed: words are
drawn by Zipf's law, half of the queries are words, 30 % bi-grams, the others longer. The automaton's build is shown apart,
as MetaCLIP pickles it; so is that of our index. The ratio is of processor time, which other work on the machine disturbs
least; wall time stands beside it. Mode fixed is shown for comparison; it has no peer.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.matching import MATCHES_FILE, PREFIXES_FILE, MatchConfig, index_queries, match_pairs
from pipeline.query import QueryConfig

SYLLABLES = "ba ce di fo gu ha ki lo mu ne pa ro si tu ve wi xa yo zu sh th er on al".split()  # noqa: SIM905
MARKS = ".,;:?!`"
BATCH_ROWS = 100_000
MEMORY_LIMIT_MB = 2_000


def make_words(count: int, rng: np.random.Generator) -> NDArray[np.object_]:
    """Distinct words of 1 to 4 syllables, a fifth of them capitalised, in the order of their frequency."""
    words: dict[str, None] = {}
    while len(words) < count:
        for length in rng.integers(1, 5, count):
            word = "".join(SYLLABLES[i] for i in rng.integers(0, len(SYLLABLES), length))
            words[word.capitalize() if rng.random() < 0.2 else word] = None
    return np.array(list(words)[:count], dtype=object)


def draw_by_zipf(words: NDArray[np.object_], count: int, rng: np.random.Generator) -> NDArray[np.object_]:
    """`count` words, the k-th with a probability of about 1 / k."""
    ranks = (len(words) ** rng.random(count)).astype(np.int64) - 1
    drawn: NDArray[np.object_] = words[np.minimum(ranks, len(words) - 1)]
    return drawn


def make_phrases(words: NDArray[np.object_], lengths: NDArray[np.int64], rng: np.random.Generator) -> list[str]:
    drawn = draw_by_zipf(words, int(lengths.sum()), rng).tolist()
    ends = np.cumsum(lengths).tolist()
    return [" ".join(drawn[end - length : end]) for end, length in zip(ends, lengths.tolist(), strict=True)]


def make_queries(words: NDArray[np.object_], count: int, rng: np.random.Generator) -> list[str]:
    queries = dict.fromkeys(words[: count // 2].tolist())
    while len(queries) < count:
        lengths = rng.choice([2, 3, 4, 5, 6], count, p=[0.6, 0.3, 0.06, 0.03, 0.01])
        queries |= dict.fromkeys(make_phrases(words, lengths, rng))
    return list(queries)[:count]


def make_captions(words: NDArray[np.object_], count: int, rng: np.random.Generator) -> list[str]:
    """Captions of 3 to 14 words, a third of them with a mark somewhere."""
    captions = make_phrases(words, rng.integers(3, 15, count), rng)
    for place in np.flatnonzero(rng.random(count) < 1 / 3).tolist():
        first, _, rest = captions[place].partition(" ")
        captions[place] = f"{first}{MARKS[place % len(MARKS)]} {rest}"
    return captions


def write_inputs(folder: Path, captions: int, queries: int) -> None:
    rng = np.random.default_rng(0)
    words = make_words(max(1_000, int(queries * 0.8)), rng)
    pair_ids = [f"{i:032x}" for i in range(captions)]
    table = pa.table({"pair_id": pair_ids, "caption": make_captions(words, captions, rng)})
    pq.write_table(table, folder / "pairs.parquet", compression="zstd", row_group_size=BATCH_ROWS)
    names = make_queries(words, queries, rng)
    ids = pa.array(range(len(names)), pa.int32())
    pq.write_table(pa.table({"query_id": ids, "query": names}), folder / "queries.parquet")


def run_sql(folder: Path, mode: str) -> dict[str, float]:
    """Build the index and match with one thread; seconds of the processor and of the clock."""
    config = MatchConfig(mode=mode, query=QueryConfig(memory_limit_mb=MEMORY_LIMIT_MB, threads=1))
    out = folder / mode
    out.mkdir(exist_ok=True)
    built = time.process_time()
    index_queries(folder / "queries.parquet", out, config)
    wall, processor = time.perf_counter(), time.process_time()
    match_pairs([folder / "pairs.parquet"], out / PREFIXES_FILE, out / MATCHES_FILE, config)
    return {
        "build_s": processor - built,
        "processor_s": time.process_time() - processor,
        "wall_s": time.perf_counter() - wall,
    }


def run_automaton(folder: Path, mode: str) -> dict[str, float]:
    """The same by pyahocorasick."""
    import ahocorasick

    out = folder / mode
    out.mkdir(exist_ok=True)
    built = time.process_time()
    automaton = ahocorasick.Automaton()
    table = pq.read_table(folder / "queries.parquet")
    for query_id, query in zip(table["query_id"].to_pylist(), table["query"].to_pylist(), strict=True):
        automaton.add_word(f" {query} ", query_id)
    automaton.make_automaton()
    wall, processor = time.perf_counter(), time.process_time()
    schema = pa.schema([("pair_id", pa.string()), ("query_id", pa.int32())])
    with pq.ParquetWriter(out / MATCHES_FILE, schema, compression="zstd") as writer:
        for batch in pq.ParquetFile(folder / "pairs.parquet").iter_batches(BATCH_ROWS):
            pair_ids: list[str] = []
            query_ids: list[int] = []
            for pair_id, caption in zip(batch["pair_id"].to_pylist(), batch["caption"].to_pylist(), strict=True):
                found = sorted({query_id for _, query_id in automaton.iter(_spaced(caption))})
                pair_ids += [pair_id] * len(found)
                query_ids += found
            columns = [pa.array(pair_ids, pa.string()), pa.array(query_ids, pa.int32())]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    return {
        "build_s": processor - built,
        "processor_s": time.process_time() - processor,
        "wall_s": time.perf_counter() - wall,
    }


def _spaced(caption: str) -> str:
    text = f" {caption} "
    for mark in MARKS:
        text = text.replace(mark, f" {mark} ")
    return text.replace("\t", " ").replace("\n", " ").replace("\r", " ")


def _in_own_process(work: Callable[[Path, str], dict[str, float]], folder: Path, mode: str) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(work, folder, mode, sender))
    process.start()
    sender.close()
    measured: dict[str, float] = json.loads(receiver.recv())
    process.join()
    return measured


def _child(work: Callable[[Path, str], dict[str, float]], folder: Path, mode: str, sender: object) -> None:
    measured = work(folder, mode)
    measured["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sender.send(json.dumps(measured))  # type: ignore[attr-defined]


def assert_same_matches(folder: Path) -> int:
    ours, theirs = (pq.read_table(folder / name / MATCHES_FILE) for name in ("metaclip-exact", "pyahocorasick"))
    if not ours.cast(theirs.schema).equals(theirs):
        raise AssertionError("the matches differ")
    return int(ours.num_rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    engines: dict[str, Callable[[Path, str], dict[str, float]]] = {
        "metaclip-exact": run_sql,
        "pyahocorasick": run_automaton,
        "fixed": run_sql,
    }
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in engines}
    with tempfile.TemporaryDirectory(prefix="wit-bench-") as scratch:
        folder = Path(scratch)
        write_inputs(folder, arguments.captions, arguments.queries)
        for _ in range(arguments.rounds):
            for name, work in engines.items():
                measured[name].append(_in_own_process(work, folder, name))
            matches = assert_same_matches(folder)
    print(
        f"{arguments.captions:,} captions, {arguments.queries:,} queries, {matches:,} matches (identical), "
        f"medians of {arguments.rounds} rounds, one thread, {platform.machine()}, Python {platform.python_version()}\n"
    )
    print("| engine | captions/s of processor time | ratio | captions/s | build, s | peak RSS, MB |")
    print("|---|---|---|---|---|---|")

    def median(name: str, what: str) -> float:
        return statistics.median(each[what] for each in measured[name])

    peer = arguments.captions / median("pyahocorasick", "processor_s")
    for name in engines:
        speed = arguments.captions / median(name, "processor_s")
        print(
            f"| {name} | {speed:,.0f} | {speed / peer:.2f} | {arguments.captions / median(name, 'wall_s'):,.0f} "
            f"| {median(name, 'build_s'):.1f} | {max(each['peak_rss_mb'] for each in measured[name]):,.0f} |"
        )


if __name__ == "__main__":
    main()
