"""Matching: which queries of the list occur in the text of each pair, and how many pairs each query has.

This is the "text only querying for sub-string matches" of the CLIP paper (arXiv 2103.00020, section 8), as an equi-join
of runs of words (sql/match_pairs.sql). It is done per part of pairs; only the counts need all parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field
from upath import UPath

from pipeline.parquet import batches, open_parquet, read_parquet
from pipeline.queries.text import normalise_column
from pipeline.query import SPEED_ONLY, QueryConfig, query_rows, query_to_parquet
from pipeline.scratch import scratch_folder
from pipeline.settings import Settings
from pipeline.stage import Counts, Stage

QUERIES_FILE = "queries.parquet"
VERDICTS_FILE = "query_verdicts.parquet"
PREFIXES_FILE = "prefixes.parquet"
MATCHES_FILE = "matches.parquet"
COUNTS_FILE = "query_counts.parquet"
CURVE_FILE = "query_curve.parquet"
BATCH_ROWS = 65_536


class MatchConfig(Settings):
    """How the text of a pair is compared with a query."""

    mode: Literal["fixed", "metaclip-exact"] = Field(
        "fixed",
        description="fixed = words in any case, whatever punctuation stands between them (St. Louis matches st louis); "
        "metaclip-exact = as published by MetaCLIP, case and quirks included",
    )
    pairs_file: str = Field(
        "pairs.parquet", min_length=1, description="File with pair_id and caption in the folder of each part of pairs"
    )
    max_caption_bytes: int = Field(
        20_000, ge=1, description="A longer caption is not matched but counted, in bytes of UTF-8 (no person wrote it)"
    )
    query: QueryConfig = Field(QueryConfig(), description="Bounds of one statement", json_schema_extra=SPEED_ONLY)

    @property
    def is_exact(self) -> bool:
        return self.mode == "metaclip-exact"


def index_queries(queries: Path | UPath, out: Path, config: MatchConfig) -> Counts:
    """Write what `match_pairs` needs of a query list into the folder `out`; count the queries that cannot take part."""
    with scratch_folder("queries") as scratch:
        normal = Path(scratch) / "normal.parquet"
        index = Path(scratch) / "index.parquet"
        table = read_parquet(UPath(queries), ["query_id", "query"])
        text = table["query"].combine_chunks()
        pq.write_table(table.append_column("normal", text if config.is_exact else normalise_column(text)), normal)
        verdicts = out / VERDICTS_FILE
        query_to_parquet("match_queries", verdicts, config.query, queries=normal, exact=config.is_exact)
        query_to_parquet("match_index", index, config.query, verdicts=verdicts)
        query_to_parquet("match_prefixes", out / PREFIXES_FILE, config.query, queries=index)
    outcomes = {row["drop_reason"]: row["rows"] for row in query_rows("drop_counts", verdicts=verdicts)}
    kept = outcomes.pop(None, 0)
    return Counts(rows_in=kept + sum(outcomes.values()), rows_kept=kept, dropped=outcomes)


def match_pairs(pairs: Sequence[Path | UPath], prefixes: Path | UPath, out: Path, config: MatchConfig) -> int:
    """Write the matches of the files `pairs` to `out`: pair_id, query_id, unique and in this order; return how many."""
    with scratch_folder("texts") as scratch:
        texts = (
            pairs
            if config.is_exact
            else [_normal_texts(pairs, Path(scratch) / "texts.parquet", config.max_caption_bytes)]
        )
        return query_to_parquet(
            "match_pairs",
            out,
            config.query,
            pairs=list(texts),
            prefixes=prefixes,
            max_bytes=config.max_caption_bytes,
            exact=config.is_exact,
        )


def _normal_texts(pairs: Sequence[Path | UPath], out: Path, max_bytes: int) -> Path:
    """DuckDB has neither NFKC nor case folding, so the normal form is made here, a batch at a time."""
    schema = pa.schema([("pair_id", pa.string()), ("caption", pa.string())])
    with pq.ParquetWriter(out, schema, compression="lz4") as writer:
        for path in pairs:
            with path.open("rb") as opened, open_parquet(opened) as file:
                for batch in batches(file, BATCH_ROWS, schema.names):
                    texts = batch.filter(pc.less_equal(pc.binary_length(batch["caption"]), max_bytes)).cast(schema)
                    normal = normalise_column(texts["caption"])
                    writer.write_batch(pa.record_batch([texts["pair_id"], normal], schema=schema))
    return out


def _query_index(sources: Sequence[UPath], out: Path, config: MatchConfig) -> Counts:
    (queries,) = sources
    return index_queries(queries / QUERIES_FILE, out, config)


def _matches(sources: Sequence[UPath], out: Path, config: MatchConfig) -> Counts:
    """`sources` is the folder of QUERY_INDEX, then parts of pairs; a pair with no match is counted, not written."""
    index, *parts = sources
    pairs = [part / config.pairs_file if part.is_dir() else part for part in parts]
    matches = out / MATCHES_FILE
    match_pairs(pairs, index / PREFIXES_FILE, matches, config)
    (row,) = query_rows(
        "match_outcomes", config.query, pairs=pairs, matches=matches, max_bytes=config.max_caption_bytes
    )
    dropped = {
        "no_pair_id": row["without_pair_id"],
        "duplicate_pair": row["copies"],
        "no_caption": row["without_caption"],
        "long_caption": row["long_caption"],
    }
    dropped["no_match"] = row["rows"] - row["matched"] - sum(dropped.values())
    return Counts(
        rows_in=row["rows"],
        rows_kept=row["matched"],
        dropped={reason: rows for reason, rows in dropped.items() if rows},
    )


def _query_counts(sources: Sequence[UPath], out: Path, config: MatchConfig) -> Counts:
    """`sources` is the folder of the query list, then all parts of matches; a query without a pair counts as dropped."""
    queries, *parts = sources
    counts = out / COUNTS_FILE
    rows = query_to_parquet(
        "match_counts",
        counts,
        config.query,
        queries=queries / QUERIES_FILE,
        matches=[part / MATCHES_FILE for part in parts],
    )
    query_to_parquet("match_curve", out / CURVE_FILE, config.query, counts=counts)
    (row,) = query_rows("balance_tail_share", config.query, counts=counts, t=1)
    matched = row["matched_queries"]
    return Counts(rows_in=rows, rows_kept=matched, dropped={"no_pair": rows - matched} if rows > matched else {})


def _kept_captions(sources: Sequence[UPath], out: Path, config: MatchConfig) -> Counts:
    """`sources` is one part of verdicts and the same part of pairs: what of it is matched."""
    verdicts, part = sources
    rows = query_to_parquet(
        "kept_captions",
        out / config.pairs_file,
        config.query,
        pairs=part / "pairs.parquet",
        verdicts=verdicts / "verdicts.parquet",
    )
    return Counts(rows_in=rows, rows_kept=rows)


KEPT_CAPTIONS = Stage("kept_captions", _kept_captions, sql=("kept_captions",))
QUERY_INDEX = Stage("query_index", _query_index, sql=("match_queries", "match_index", "match_prefixes", "drop_counts"))
MATCHES = Stage("matches", _matches, sql=("match_pairs", "match_outcomes"))
MATCH_COUNTS = Stage("match_counts", _query_counts, sql=("match_counts", "match_curve", "balance_tail_share"))
