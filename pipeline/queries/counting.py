"""Counting words and pairs of neighbouring words, per part of text, then over all parts, in DuckDB and out of core."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from upath import UPath

from pipeline.queries.config import WikipediaConfig
from pipeline.queries.wikipedia import LINES_FILE
from pipeline.query import query_rows, query_to_parquet
from pipeline.stage import Counts, Stage

NGRAMS_FILE = "ngrams.parquet"
UNIGRAMS_FILE = "unigrams.parquet"
BIGRAMS_FILE = "bigrams.parquet"


def _ngrams(sources: Sequence[UPath], out: Path, config: WikipediaConfig) -> Counts:
    """`sources` is one part of WIKIPEDIA_TEXT; rows are distinct pairs of neighbouring words."""
    (text,) = sources
    rows = query_to_parquet(
        "query_ngrams",
        out / NGRAMS_FILE,
        config.query,
        lines=text / LINES_FILE,
        max_word_chars=config.max_word_chars,
    )
    return Counts(rows_in=rows, rows_kept=rows)


def _ngram_candidates(sources: Sequence[UPath], out: Path, config: WikipediaConfig) -> Counts:
    """`sources` are all parts of NGRAMS; rows in are the distinct words and what became of them."""
    ngrams = [part / NGRAMS_FILE for part in sources]
    unigrams = query_to_parquet(
        "query_unigrams", out / UNIGRAMS_FILE, config.query, ngrams=ngrams, min_count=config.min_unigram_count
    )
    bigrams = query_to_parquet(
        "query_bigrams",
        out / BIGRAMS_FILE,
        config.query,
        ngrams=ngrams,
        min_count=config.min_bigram_count,
        min_pmi=config.min_bigram_pmi,
    )
    (row,) = query_rows("query_ngram_totals", config.query, ngrams=ngrams)
    rare = row["distinct_words"] - unigrams
    return Counts(
        rows_in=row["distinct_words"] + row["distinct_bigrams"],
        rows_kept=unigrams + bigrams,
        dropped={
            reason: rows
            for reason, rows in {"rare_word": rare, "weak_bigram": row["distinct_bigrams"] - bigrams}.items()
            if rows
        },
    )


NGRAMS = Stage("ngrams", _ngrams, sql=("query_ngrams",))
NGRAM_CANDIDATES = Stage(
    "ngram_candidates", _ngram_candidates, sql=("query_unigrams", "query_bigrams", "query_ngram_totals")
)
