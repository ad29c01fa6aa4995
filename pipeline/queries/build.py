"""The query list: the candidates of all sources, merged, without duplicates, cut at 500,000 in a stated order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from upath import UPath

from pipeline.errors import InputError
from pipeline.queries.config import QueryListConfig
from pipeline.query import query_rows, query_to_parquet
from pipeline.stage import Counts, Stage

QUERIES_FILE = "queries.parquet"
VERDICTS_FILE = "candidate_verdicts.parquet"


def _query_list(sources: Sequence[UPath], out: Path, config: QueryListConfig) -> Counts:
    """`sources` are folders of GIVEN_QUERIES, WORDNET_LEMMAS, NGRAM_CANDIDATES and TITLE_CANDIDATES, any of them."""
    candidates = [path for source in sources for path in sorted(source.glob("*.parquet"), key=str)]
    if not candidates:
        raise InputError(
            "no source of queries was given; name a query list, a Wikipedia dump, page views or a word list"
        )
    verdicts = out / VERDICTS_FILE
    preference = list(config.preference)
    query_to_parquet(
        "query_verdicts",
        verdicts,
        config.query,
        candidates=candidates,
        preference=preference,
        max_unigrams=config.max_unigrams,
        max_bigrams=config.max_bigrams,
        max_titles=config.max_titles,
        max_queries=config.max_queries,
        numbers=config.numbers,
    )
    rows = query_to_parquet(
        "query_list", out / QUERIES_FILE, config.query, verdicts=verdicts, candidates=candidates, preference=preference
    )
    if not rows:
        raise InputError("the query list is empty: no source gave a usable query; see candidate_verdicts.parquet")
    outcomes = {row["drop_reason"]: row["rows"] for row in query_rows("drop_counts", config.query, verdicts=verdicts)}
    kept = outcomes.pop(None)
    return Counts(rows_in=kept + sum(outcomes.values()), rows_kept=kept, dropped=outcomes)


QUERY_LIST = Stage("query_list", _query_list, sql=("query_verdicts", "query_list", "drop_counts"))
