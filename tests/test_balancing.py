from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from upath import UPath

from pipeline.balancing import (
    BALANCE_ENTRIES,
    BALANCE_THRESHOLD,
    BALANCED,
    BALANCED_FILE,
    BalanceBucket,
    BalanceConfig,
    read_threshold,
)
from pipeline.errors import InputError
from pipeline.matching import COUNTS_FILE, MATCHES_FILE
from pipeline.query import QueryConfig, query_rows
from pipeline.stage import Counts, Stage

ONE_THREAD = QueryConfig(memory_limit_mb=500, threads=1)
Matches = dict[str, list[str]]


def pair_id(number: int) -> str:
    return f"{number:032x}"


def finished(out: Path, name: str, table: pa.Table) -> UPath:
    """A folder like that of the stage before: one file with a table."""

    def write(sources: Sequence[UPath], folder: Path, config: BaseModel) -> Counts:
        pq.write_table(table, folder / name)
        return Counts(rows_in=table.num_rows, rows_kept=table.num_rows)

    return Stage(f"test_{out.name}", write).run([], UPath(out), ONE_THREAD).out


def write_matches(folder: Path, matches: Matches, parts: int = 1) -> tuple[UPath, list[UPath]]:
    """The counts and `parts` parts of the matches {pair_id: queries}."""
    queries = sorted({query for found in matches.values() for query in found} | {"nothing has this"})
    ids = {query: number for number, query in enumerate(queries)}
    count: dict[str, int] = defaultdict(int)
    for found in matches.values():
        for query in found:
            count[query] += 1
    table = pa.table(
        {
            "query_id": pa.array(range(len(queries)), pa.int32()),
            "query": queries,
            "pairs": pa.array([count[query] for query in queries], pa.int64()),
        }
    )
    counts = finished(folder / "counts", COUNTS_FILE, table)
    rows = [(pair, ids[query]) for pair, found in sorted(matches.items()) for query in found]
    outs = []
    for part in range(parts):
        mine = [row for row in rows if int(row[0], 16) % parts == part]
        columns = {
            "pair_id": pa.array([row[0] for row in mine], pa.string()),
            "query_id": pa.array([row[1] for row in mine], pa.int32()),
        }
        outs.append(finished(folder / f"matches-{part}", MATCHES_FILE, pa.table(columns)))
    return counts, outs


def balance(
    folder: Path, matches: Matches, config: BalanceConfig, parts: int = 1, buckets: int = 1
) -> list[dict[str, Any]]:
    """Rows of balanced.parquet, by `parts` parts of matches and `buckets` buckets."""
    config = config.model_copy(update={"query": ONE_THREAD})
    counts, outs = write_matches(folder, matches, parts)

    def task(number: int, of: int) -> BalanceBucket:
        return BalanceBucket(balance=config, number=number, buckets=of)

    if config.mode == "sample":
        jobs = [([part], task(0, 1)) for part in outs]
    else:
        jobs = [(outs, task(number, buckets)) for number in range(buckets)]
    entries = [
        BALANCE_ENTRIES.run([counts, *sources], UPath(folder / f"entries-{i}"), job).out
        for i, (sources, job) in enumerate(jobs)
    ]
    threshold = BALANCE_THRESHOLD.run([counts, *entries], UPath(folder / "threshold"), config).out
    rows: list[dict[str, Any]] = []
    for number in range(buckets):
        out = UPath(folder / f"balanced-{number}")
        result = BALANCED.run([threshold, counts, *entries], out, task(number, buckets))
        part = pq.read_table(out / BALANCED_FILE).to_pylist()
        assert result.counts.rows_in == len(part)
        assert result.counts.rows_kept == sum(row["kept"] for row in part)
        rows += part
    return sorted(rows, key=lambda row: str(row["pair_id"]))


def draw(seed: int, pair: str, query: str) -> int:
    """53 bits, the slow obvious way."""
    return int.from_bytes(hashlib.md5(f"{seed}:{pair}:{query}".encode()).digest()[:8], "little") >> 11


def brute_force(matches: Matches, config: BalanceConfig) -> dict[str, tuple[bool, float]]:
    pairs_of: dict[str, list[str]] = defaultdict(list)
    for pair, found in matches.items():
        for query in found:
            pairs_of[query].append(pair)
    t = config.pairs_per_query
    taken = {}
    for query, pairs in pairs_of.items():
        by_draw = sorted((draw(config.seed, pair, query), pair) for pair in pairs)
        taken[query] = {pair for _, pair in by_draw[:t]}
    answer = {}
    for pair, found in matches.items():
        p = [min(1, t / len(pairs_of[query])) for query in found]
        if config.mode == "cap":
            kept = any(pair in taken[query] for query in found)
        else:
            kept = any(draw(config.seed, pair, query) / 2**53 < each for query, each in zip(found, p, strict=True))
        answer[pair] = kept, 1 - math.prod(1 - each for each in p)
    return answer


some_matches = st.dictionaries(
    st.integers(0, 2**128 - 1).map(pair_id),
    st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=5, unique=True),
    min_size=1,
    max_size=60,
)
anything = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("mode", ["sample", "cap"])
@anything
@given(matches=some_matches, t=st.integers(1, 12), seed=st.integers(0, 3), buckets=st.integers(1, 3))
def test_balancing_is_the_brute_force(
    tmp_path_factory: pytest.TempPathFactory, mode: Any, matches: Matches, t: int, seed: int, buckets: int
) -> None:
    config = BalanceConfig(mode=mode, pairs_per_query=t, seed=seed)
    rows = balance(tmp_path_factory.mktemp("balance"), matches, config, parts=2, buckets=buckets)
    expected = brute_force(matches, config)
    assert {row["pair_id"]: row["kept"] for row in rows} == {pair: kept for pair, (kept, _) in expected.items()}
    for row in rows:
        assert row["keep_probability"] == pytest.approx(expected[row["pair_id"]][1], abs=1e-9)
        assert row["query"] in matches[row["pair_id"]]
        assert row["queries"] == len(matches[row["pair_id"]])


def zipf_matches(pairs: int, queries: int = 40) -> Matches:
    """Query k occurs in about 1 of k pairs, so most pairs match several."""
    return {
        pair_id(i): found
        for i in range(pairs)
        if (found := [f"query {k}" for k in range(1, queries) if draw(9, str(i), str(k)) % k == 0])
    }


@pytest.mark.parametrize("mode", ["sample", "cap"])
def test_same_rows_for_any_number_of_parts_and_buckets(tmp_path: Path, mode: Any) -> None:
    matches, config = zipf_matches(3_000), BalanceConfig(mode=mode, pairs_per_query=50, seed=1)
    whole = balance(tmp_path / "whole", matches, config)
    assert balance(tmp_path / "cut", matches, config, parts=3, buckets=5) == whole
    assert 0 < sum(row["kept"] for row in whole) < len(whole)


def test_kept_pairs_are_as_many_as_the_formula_says(tmp_path: Path) -> None:
    matches = zipf_matches(6_000)
    for seed in (0, 1, 2):
        rows = balance(tmp_path / str(seed), matches, BalanceConfig(pairs_per_query=100, seed=seed))
        expected = sum(row["keep_probability"] for row in rows)
        variance = sum(row["keep_probability"] * (1 - row["keep_probability"]) for row in rows)
        assert abs(sum(row["kept"] for row in rows) - expected) < 5 * math.sqrt(variance)
        assert 0 < expected < 0.9 * len(rows)


def test_a_query_of_many_pairs_gives_about_t_and_a_rare_one_all(tmp_path: Path) -> None:
    matches = {pair_id(i): ["common"] for i in range(5_000)} | {pair_id(5_000 + i): ["rare"] for i in range(30)}
    rows = balance(tmp_path / "sample", matches, BalanceConfig(pairs_per_query=200))
    common = sum(row["kept"] for row in rows if row["query"] == "common")
    assert abs(common - 200) < 5 * math.sqrt(200)
    assert all(row["kept"] and row["keep_probability"] == 1 for row in rows if row["query"] == "rare")
    capped = balance(tmp_path / "cap", matches, BalanceConfig(mode="cap", pairs_per_query=200))
    assert sum(row["kept"] for row in capped if row["query"] == "common") == 200
    assert sum(row["kept"] for row in capped if row["query"] == "rare") == 30


def test_a_query_with_exactly_t_pairs_keeps_them_all(tmp_path: Path) -> None:
    matches = {pair_id(i): ["exactly"] for i in range(500)}
    for mode in ("sample", "cap"):
        rows = balance(tmp_path / mode, matches, BalanceConfig(mode=mode, pairs_per_query=500))
        assert all(row["kept"] and row["keep_probability"] == 1 for row in rows)


def test_a_larger_threshold_only_adds_pairs_and_another_seed_changes_them(tmp_path: Path) -> None:
    matches = zipf_matches(1_000)
    kept = {
        (t, seed): {
            row["pair_id"]
            for row in balance(tmp_path / f"{t}-{seed}", matches, BalanceConfig(pairs_per_query=t, seed=seed))
            if row["kept"]
        }
        for t, seed in [(10, 0), (30, 0), (30, 1)]
    }
    assert kept[10, 0] < kept[30, 0]
    assert kept[30, 0] != kept[30, 1]


@pytest.mark.parametrize("mode", ["sample", "cap"])
@pytest.mark.parametrize("wanted", [1, 137, 600])
def test_threshold_for_a_wanted_size_is_the_smallest_that_reaches_it(tmp_path: Path, mode: Any, wanted: int) -> None:
    matches = zipf_matches(800)
    rows = balance(tmp_path / "wanted", matches, BalanceConfig(mode=mode, wanted_pairs=wanted))
    t = read_threshold(UPath(tmp_path / "wanted" / "threshold"))["t"]
    assert sum(row["kept"] for row in rows) >= wanted
    if t > 1:
        fewer = balance(tmp_path / "fewer", matches, BalanceConfig(mode=mode, pairs_per_query=t - 1))
        assert sum(row["kept"] for row in fewer) < wanted


def test_a_wanted_size_beyond_all_pairs_keeps_them_all(tmp_path: Path) -> None:
    assert all(row["kept"] for row in balance(tmp_path, zipf_matches(300), BalanceConfig(wanted_pairs=10**9)))


def test_threshold_of_a_tail_share_inverts_the_tail_share(tmp_path: Path) -> None:
    matches = zipf_matches(2_000)
    counts, _ = write_matches(tmp_path, matches)
    for wanted in (0.06, 0.3, 0.6, 0.9):
        config = BalanceConfig(tail_share=wanted, query=ONE_THREAD)
        found = read_threshold(BALANCE_THRESHOLD.run([counts], UPath(tmp_path / f"t-{wanted}"), config).out)
        pairs = [row["pairs"] for row in pq.read_table(counts / COUNTS_FILE).to_pylist()]

        def share(t: int, pairs: list[int] = pairs) -> float:
            return sum(each for each in pairs if each < t) / sum(pairs)

        assert found["tail_share"] == pytest.approx(share(found["t"]))
        assert all(abs(share(t) - wanted) >= abs(share(found["t"]) - wanted) - 1e-12 for t in pairs if t)
        assert found["head_queries"] == sum(each >= found["t"] for each in pairs)


def test_no_match_at_all(tmp_path: Path) -> None:
    assert balance(tmp_path / "fixed", {}, BalanceConfig()) == []
    for wish in ({"wanted_pairs": 5}, {"tail_share": 0.1}):
        with pytest.raises(InputError, match="no pair matched any query"):
            balance(tmp_path / next(iter(wish)), {}, BalanceConfig(**wish))


def test_summary_of_parts(tmp_path: Path) -> None:
    rows = balance(tmp_path, zipf_matches(500), BalanceConfig(pairs_per_query=20), buckets=2)
    balanced = [UPath(tmp_path / f"balanced-{number}" / BALANCED_FILE) for number in range(2)]
    (summary,) = query_rows("balance_summary", ONE_THREAD, balanced=balanced)
    assert summary["matched"] == len(rows)
    assert summary["kept"] == sum(row["kept"] for row in rows)
    assert summary["expected"] == pytest.approx(sum(row["keep_probability"] for row in rows))


def test_configuration_is_refused_where_it_contradicts_itself() -> None:
    with pytest.raises(ValidationError, match="give one of them"):
        BalanceConfig(tail_share=0.1, wanted_pairs=5)
    with pytest.raises(ValidationError, match="does not exist"):
        BalanceBucket(number=2, buckets=2)
