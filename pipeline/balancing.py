"""Balancing: about as many pairs of a rare query as of a common one, t at most.

The CLIP paper has "approximately class balance" by up to 20,000 pairs per query (arXiv 2103.00020, section 2.2);
MetaCLIP (arXiv 2309.16671, Algorithm 1) made it precise: a pair is kept with probability
1 - prod(1 - min(1, t / count)). Here every match gets the threshold `enters_at` above which it lets its pair in, so one
pass holds for every t, and a larger t only adds pairs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from upath import UPath

from pipeline.errors import InputError
from pipeline.matching import COUNTS_FILE, MATCHES_FILE
from pipeline.query import SPEED_ONLY, QueryConfig, query_rows, query_to_parquet
from pipeline.settings import Settings
from pipeline.stage import Counts, Stage

ENTRIES_FILE = "entries.parquet"
THRESHOLD_FILE = "threshold.json"
BALANCED_FILE = "balanced.parquet"
ENTRIES_SQL = {"sample": "balance_draws", "cap": "balance_ranks"}


class BalanceConfig(Settings):
    """How many pairs of each query are kept. The threshold t is `pairs_per_query`, unless a share or a size decides it."""

    mode: Literal["sample", "cap"] = Field(
        "sample",
        description="sample = each match keeps its pair with probability min(1, t / count) (MetaCLIP, Algorithm 1); "
        "cap = each query takes exactly min(t, count) pairs (the CLIP paper's words: up to 20,000 pairs per query)",
    )
    pairs_per_query: int = Field(
        20_000,
        ge=1,
        description="Threshold t, in pairs (CLIP 2.2: 20,000; MetaCLIP 2.5B and MetaCLIP 2 English: 170,000)",
    )
    tail_share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Choose t so that queries with fewer pairs hold this share of matches (MetaCLIP: 0.06)",
    )
    wanted_pairs: int | None = Field(None, ge=1, description="Choose the smallest t that keeps at least so many pairs")
    seed: int = Field(0, ge=0, description="Seed of the draws")
    query: QueryConfig = Field(QueryConfig(), description="Bounds of one statement", json_schema_extra=SPEED_ONLY)

    @model_validator(mode="after")
    def _one_way_to_t(self) -> Self:
        if self.tail_share is not None and self.wanted_pairs is not None:
            raise ValueError("tail_share and wanted_pairs both decide the threshold; give one of them")
        return self


class BalanceBucket(Settings):
    """One of several tasks that together balance a data set; the answer is the same for any number of them."""

    balance: BalanceConfig = BalanceConfig()
    number: int = Field(0, ge=0, description="Number of the bucket, from 0")
    buckets: int = Field(1, ge=1, description="Buckets in all")

    @model_validator(mode="after")
    def _exists(self) -> Self:
        if self.number >= self.buckets:
            raise ValueError(f"bucket {self.number} of {self.buckets} does not exist; they are numbered from 0")
        return self


def _entries(sources: Sequence[UPath], out: Path, config: BalanceBucket) -> Counts:
    """`sources` is the folder of MATCH_COUNTS, then parts of matches.

    Mode sample: any parts, a bucket of their pairs; one task per part needs no bucket. Mode cap: all parts, a bucket of
    their queries.
    """
    counts, *parts = sources
    balance = config.balance
    rows = query_to_parquet(
        ENTRIES_SQL[balance.mode],
        out / ENTRIES_FILE,
        balance.query,
        matches=[part / MATCHES_FILE for part in parts],
        counts=counts / COUNTS_FILE,
        seed=balance.seed,
        bucket=config.number,
        buckets=config.buckets,
    )
    return Counts(rows_in=rows, rows_kept=rows)


def _threshold(sources: Sequence[UPath], out: Path, config: BalanceConfig) -> Counts:
    """`sources` is the folder of MATCH_COUNTS, then (if `wanted_pairs` decides) all of BALANCE_ENTRIES."""
    counts, *entries = sources
    t = _solve(counts / COUNTS_FILE, [part / ENTRIES_FILE for part in entries], config)
    (row,) = query_rows("balance_tail_share", config.query, counts=counts / COUNTS_FILE, t=t)
    (out / THRESHOLD_FILE).write_text(json.dumps({"t": t, **row}, indent=2, sort_keys=True))
    return Counts(rows_in=1, rows_kept=1)


def _solve(counts: UPath, entries: Sequence[UPath], config: BalanceConfig) -> int:
    if config.tail_share is not None:
        rows = query_rows("balance_t_of_tail_share", config.query, counts=counts, tail_share=config.tail_share)
    elif config.wanted_pairs is not None:
        if not entries:
            raise InputError("balance.wanted_pairs needs the entries of all matches, none were given")
        rows = query_rows("balance_t_of_pairs", config.query, entries=list(entries), pairs=config.wanted_pairs)
    else:
        return config.pairs_per_query
    t = rows[0]["t"] if rows else None
    if t is None:
        raise InputError(
            "no pair matched any query, so no threshold can be chosen; check the query list against the captions, "
            "or set match.mode to fixed"
        )
    return int(t)


def read_threshold(folder: UPath) -> dict[str, Any]:
    """What BALANCE_THRESHOLD decided: t, tail_share, matches, head_queries, matched_queries, most_pairs."""
    values: dict[str, Any] = json.loads((folder / THRESHOLD_FILE).read_text())
    return values


def _balanced(sources: Sequence[UPath], out: Path, config: BalanceBucket) -> Counts:
    """`sources` is the folder of BALANCE_THRESHOLD, that of MATCH_COUNTS, then BALANCE_ENTRIES, every entry of a pair."""
    threshold, counts, *entries = sources
    balanced = out / BALANCED_FILE
    rows = query_to_parquet(
        "balance_pairs",
        balanced,
        config.balance.query,
        entries=[part / ENTRIES_FILE for part in entries],
        counts=counts / COUNTS_FILE,
        t=read_threshold(threshold)["t"],
        bucket=config.number,
        buckets=config.buckets,
    )
    (row,) = query_rows("balance_summary", config.balance.query, balanced=balanced)
    kept = row["kept"]
    return Counts(rows_in=rows, rows_kept=kept, dropped={"over_represented": rows - kept} if rows > kept else {})


BALANCE_ENTRIES = Stage("balance_entries", _entries, sql=tuple(ENTRIES_SQL.values()))
BALANCE_THRESHOLD = Stage(
    "balance_threshold", _threshold, sql=("balance_tail_share", "balance_t_of_tail_share", "balance_t_of_pairs")
)
BALANCED = Stage("balanced", _balanced, sql=("balance_pairs", "balance_summary"))
