"""The audit of a data set: what was dropped where and why, from which hosts, in which languages, how long, and how uneven.

Two stages, for a data set without a query list has no entry-count curve: AUDIT counts the verdicts of the pairs, QUERY_AUDIT
the matches of the queries. Both write one small JSON whatever the size of the data, read by `read_audit` and `read_query_audit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from upath import UPath

from pipeline.balancing import read_threshold
from pipeline.curate import counts_of, verdicts_and_pairs
from pipeline.errors import InputError
from pipeline.matching import COUNTS_FILE, CURVE_FILE
from pipeline.parquet import open_parquet
from pipeline.query import QueryConfig, query_rows, query_to_parquet
from pipeline.settings import Settings
from pipeline.stage import Counts, Stage

AUDIT_FILE = "audit.json"
QUERY_AUDIT_FILE = "query_audit.json"
SOURCES_FILE = "sources.parquet"  # every source, out of sql/audit_sources.sql
PII_COLUMN = "pii"

# Where the bins of the histograms begin; the rules of curate.* and of the published pipelines (5, 200, 1,000) are edges.
CHAR_EDGES = (0, 1, 5, 10, 20, 30, 40, 50, 75, 100, 150, 200, 300, 500, 1_000)
WORD_EDGES = (0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100)


class AuditConfig(Settings):
    """How much of the tables is shown; every number is over all rows."""

    preset: str = Field("", description="Name of the rules that judged, shown beside every number")
    top: int = Field(50, ge=1, description="Hosts and sources listed, those with the most pairs")
    samples_per_reason: int = Field(10, ge=0, le=1_000, description="Captions shown of each reason, and of those kept")
    sample_chars: int = Field(300, ge=1, description="A longer caption is cut, in characters")
    withheld_reasons: tuple[str, ...] = Field(
        ("opted_out", "tombstone", "blocked_url", "blocked_host", "blocked_word", "low_score"),
        description="Reasons whose captions are counted, never shown: what opted out or is blocked must not come back",
    )
    query: QueryConfig = QueryConfig()


class QueryAuditConfig(Settings):
    """What of the entry-count curve is shown."""

    pairs_per_query: int = Field(
        20_000, ge=1, description="Threshold t where no balancing chose one, in pairs (CLIP 2.2: 20,000)"
    )
    points: int = Field(100, ge=2, description="Ranks of the curve, evenly spaced in the logarithm")
    top: int = Field(20, ge=1, description="Queries listed, those with the most pairs")
    query: QueryConfig = QueryConfig()


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceRow(_Table):
    """A source, or a kind of source; rows_in = rows_kept + sum(dropped)."""

    source_kind: str
    source: str | None
    sources: int
    rows_in: int
    rows_kept: int
    dropped: dict[str, int]


class DomainRow(_Table):
    """A host and its pairs."""

    host: str
    rows: int
    kept: int


class LanguageRow(_Table):
    """A language (ISO 639, None = not found), its pairs, and how sure the detector was, 0 to 1."""

    lang: str | None
    rows: int
    kept: int
    mean_score: float | None


class LengthBin(_Table):
    """Captions with low <= length < below (None = no upper bound)."""

    low: int
    below: int | None
    rows: int
    kept: int


class PiiRow(_Table):
    """A kind of personal data and the pairs whose caption has it."""

    kind: str
    rows: int
    kept: int


class SampleRow(_Table):
    """A pair to look at; the caption is the web's, cut to `sample_chars`, and not escaped."""

    drop_reason: str | None
    decided_by: str | None
    pair_id: str | None
    source: str
    host: str | None
    caption: str | None


class Audit(_Table):
    """What `audit.json` holds. Lists named after `top` are the first so many, all others are whole."""

    preset: str
    rows_in: int
    rows_kept: int
    dropped: dict[str, int]
    kinds: tuple[SourceRow, ...]
    top_sources: tuple[SourceRow, ...]
    top_domains: tuple[DomainRow, ...]
    domains: int
    domains_kept: int
    languages: tuple[LanguageRow, ...]
    caption_chars: tuple[LengthBin, ...]
    caption_words: tuple[LengthBin, ...]
    pii: tuple[PiiRow, ...] | None  # None: the pairs have no such column
    samples: tuple[SampleRow, ...]
    withheld_reasons: tuple[str, ...]

    @property
    def sources(self) -> int:
        return sum(kind.sources for kind in self.kinds)


class CurvePoint(_Table):
    """A query by its rank, 1 = most pairs; cumulative_share is of all matches, this query included."""

    rank: int
    query: str
    pairs: int
    cumulative_share: float


class QueryAudit(_Table):
    """What `query_audit.json` holds; see sql/audit_queries.sql for the numbers."""

    t: int
    queries: int
    without_pair: int
    over_t: int
    matches: int
    tail_share: float | None
    balanced_matches: int
    most_pairs: int
    curve: tuple[CurvePoint, ...]
    top_queries: tuple[CurvePoint, ...]


def _audit(sources: Sequence[UPath], out: Path, config: AuditConfig) -> Counts:
    """`sources` is all parts of PAIR_VERDICTS, then those of the pairs that they judge."""
    if not sources:
        raise InputError("audit: no part was given; name every part of the verdicts and of the pairs")
    bounds = config.query
    judged, pairs = verdicts_and_pairs(sources)
    counts = counts_of(judged)
    rows = out / ".rows.parquet"
    joined = query_to_parquet("audit_rows", rows, bounds, pairs=pairs, verdicts=judged)
    if joined != counts.rows_in:
        raise InputError(
            f"{counts.rows_in} verdicts of {len(judged)} parts, but {joined} rows of pairs have one; "
            "name every part of both, in the same order"
        )
    listed = out / SOURCES_FILE
    query_to_parquet("audit_sources", listed, bounds, verdicts=judged, preset=config.preset)
    domains = query_rows("audit_domains", bounds, rows=rows, top=config.top)
    audit = Audit(
        preset=config.preset,
        **counts.model_dump(),
        kinds=query_rows("audit_source_totals", bounds, sources=listed, by_kind=True, top=config.top),
        top_sources=query_rows("audit_source_totals", bounds, sources=listed, by_kind=False, top=config.top),
        top_domains=[{name: row[name] for name in DomainRow.model_fields} for row in domains],
        domains=domains[0]["hosts"] if domains else 0,
        domains_kept=domains[0]["hosts_kept"] if domains else 0,
        languages=query_rows("audit_languages", bounds, rows=rows),
        caption_chars=query_rows("audit_lengths", bounds, rows=rows, edges=CHAR_EDGES, in_words=False),
        caption_words=query_rows("audit_lengths", bounds, rows=rows, edges=WORD_EDGES, in_words=True),
        pii=_pii(pairs, judged, bounds),
        samples=_samples(pairs, judged, config),
        withheld_reasons=sorted(set(config.withheld_reasons) & set(counts.dropped)),
    )
    rows.unlink()
    _write(out / AUDIT_FILE, audit)
    return counts


def _pii(pairs: Sequence[UPath], verdicts: Sequence[UPath], bounds: QueryConfig) -> list[dict[str, Any]] | None:
    if not all(_has_column(file, PII_COLUMN) for file in pairs):
        return None
    return query_rows("audit_pii", bounds, pairs=pairs, verdicts=verdicts)


def _has_column(file: UPath, name: str) -> bool:
    with file.open("rb") as opened:
        return name in open_parquet(opened).schema_arrow.names


def _samples(pairs: Sequence[UPath], verdicts: Sequence[UPath], config: AuditConfig) -> list[dict[str, Any]]:
    if not config.samples_per_reason:
        return []
    return query_rows(
        "audit_samples",
        config.query,
        pairs=pairs,
        verdicts=verdicts,
        per_reason=config.samples_per_reason,
        withheld=config.withheld_reasons,
        max_chars=config.sample_chars,
    )


def _query_audit(sources: Sequence[UPath], out: Path, config: QueryAuditConfig) -> Counts:
    """`sources` is the folder of MATCH_COUNTS, then that of BALANCE_THRESHOLD if the data set is balanced."""
    counts, *threshold = sources
    t = read_threshold(threshold[0])["t"] if threshold else config.pairs_per_query
    (numbers,) = query_rows("audit_queries", config.query, counts=counts / COUNTS_FILE, t=t)
    queries = numbers["queries"]
    wanted = {"curve": log_spaced(queries, config.points), "top_queries": list(range(1, config.top + 1))}
    ranks = {
        name: query_rows("audit_query_ranks", config.query, curve=counts / CURVE_FILE, ranks=ranks)
        for name, ranks in wanted.items()
    }
    _write(out / QUERY_AUDIT_FILE, QueryAudit(t=t, **numbers, **ranks))
    return Counts(rows_in=queries, rows_kept=queries)


def log_spaced(last: int, points: int) -> list[int]:
    """At most `points` ranks from 1 to `last`, both included, evenly spaced in the logarithm; none of none."""
    return sorted({round(last ** (point / (points - 1))) for point in range(points)}) if last else []


AUDIT = Stage(
    "audit",
    _audit,
    sql=(
        "drop_counts",
        "audit_rows",
        "audit_sources",
        "audit_source_totals",
        "audit_domains",
        "audit_languages",
        "audit_lengths",
        "audit_pii",
        "audit_samples",
    ),
)
QUERY_AUDIT = Stage("query_audit", _query_audit, sql=("audit_queries", "audit_query_ranks"))


def read_audit(folder: UPath) -> Audit:
    """What AUDIT wrote."""
    return Audit.model_validate_json((folder / AUDIT_FILE).read_bytes())


def read_query_audit(folder: UPath) -> QueryAudit:
    """What QUERY_AUDIT wrote."""
    return QueryAudit.model_validate_json((folder / QUERY_AUDIT_FILE).read_bytes())


def _write(file: Path, table: BaseModel) -> None:
    file.write_text(table.model_dump_json(indent=1) + "\n", encoding="utf-8")
