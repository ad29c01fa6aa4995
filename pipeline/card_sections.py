"""What a card tells: its sections, from the funnel to the datasheet, as tables, charts and prose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.audit import Audit, QueryAudit, SampleRow, SourceRow
from pipeline.card_blocks import Cell, Chart, Prose, Quotes, Section, Table
from pipeline.card_charts import curve_mermaid, curve_svg, histogram
from pipeline.config import BuildDatasetConfig
from pipeline.croissant import LICENCE
from pipeline.stage import FunnelStage

LANGUAGES_TOLD = 10


@dataclass(frozen=True)
class Facts:
    """Everything the card is made from. `manifest` is that of docs/shards.md, None before there are shards."""

    config: BuildDatasetConfig
    funnel: Sequence[FunnelStage]
    audit: Audit
    queries: QueryAudit | None
    manifest: Mapping[str, Any] | None
    gallery: Sequence[Section] = ()

    @property
    def samples(self) -> dict[str, int]:
        """Samples of each split."""
        return {name: split["samples"] for name, split in (self.manifest or {}).get("splits", {}).items()}

    @property
    def size(self) -> int:
        """Samples of the shards, else pairs kept."""
        return sum(self.samples.values()) if self.manifest else self.audit.rows_kept

    @property
    def headline(self) -> str:
        what = "images with captions, out" if self.manifest else "pairs kept"
        return f"{what} of {self.audit.rows_in:,} pairs found"

    @property
    def languages(self) -> list[str]:
        """Languages of kept pairs, most pairs first."""
        kept = sorted(self.audit.languages, key=lambda row: (-row.kept, row.lang or ""))
        return [row.lang for row in kept if row.lang and row.kept]


def sections(facts: Facts) -> list[Section]:
    """The card, from the funnel to the datasheet."""
    audit = facts.audit
    return [
        Section(
            "funnel",
            "From the web to the data set",
            "Every row that entered a stage was kept or dropped for one reason. The bar shows what entered and what was kept.",
            [_funnel_table(facts.funnel)],
        ),
        Section(
            "sources",
            "Sources and rules",
            f"Rules: {audit.preset or 'as configured'}. Rows in are the kept and the dropped together.",
            [
                _sources_table("By kind of source", audit.kinds),
                _sources_table("By source", audit.top_sources, of=audit.sources),
                _reasons_table(audit),
            ],
        ),
        Section(
            "samples",
            "Captions, kept and dropped",
            "Chosen by a hash, not for being good; whatever a rule takes away can be looked at here.",
            [*_quotes(audit)],
        ),
        *facts.gallery,
        Section(
            "web",
            "Hosts and languages",
            f"Pairs came from {audit.domains:,} hosts, and were kept from {audit.domains_kept:,}.",
            [_domains_table(audit), _languages_table(audit), *_pii(audit)],
        ),
        Section(
            "captions",
            "How long the captions are",
            "The number below a bar is where its bin begins; bins are half open and differ in width.",
            [histogram("Characters", audit.caption_chars), histogram("Words", audit.caption_words)],
        ),
        *([_queries_section(facts.queries)] if facts.queries else []),
        Section(
            "datasheet", "Datasheet", "What the workflow itself knows; a person should add to it.", _datasheet(facts)
        ),
        Section(
            "provenance",
            "Where it came from",
            "The same inputs and configuration give the same bytes.",
            [_origin(facts)],
        ),
    ]


def _funnel_table(funnel: Sequence[FunnelStage]) -> Table:
    rows = [(stage.stage.replace("_", " "), stage.rows_in, stage.dropped, stage.rows_kept) for stage in funnel]
    bars = [(stage.rows_in, stage.rows_kept) for stage in funnel]
    return Table("", ("stage", "rows in", "dropped, by reason", "kept"), rows, bars=bars)


def _sources_table(title: str, sources: Sequence[SourceRow], of: int | None = None) -> Table:
    """Sources, or kinds of them (`of` is None: the number of sources is a column)."""
    rows: list[tuple[Cell, ...]] = [
        (
            row.source_kind if of is None else row.source,
            *([row.sources] if of is None else []),
            row.rows_in,
            row.dropped,
            row.rows_kept,
            row.rows_kept / row.rows_in,
        )
        for row in sources
    ]
    columns = ("kind", "sources") if of is None else ("source",)
    note = (
        f"The {len(sources):,} with the most rows of {of:,}; all are in sources.parquet."
        if of and of > len(rows)
        else ""
    )
    return Table(title, (*columns, "rows in", "dropped, by reason", "kept", "share kept"), rows, note)


def _reasons_table(audit: Audit) -> Table:
    ordered = sorted(audit.dropped.items(), key=lambda item: (-item[1], item[0]))
    rows = [(reason.replace("_", " "), count, count / audit.rows_in) for reason, count in ordered]
    return Table("By reason", ("dropped because", "rows", "of all rows"), rows, "" if rows else "No row was dropped.")


def _quotes(audit: Audit) -> Iterable[Quotes | Prose]:
    by_reason: dict[str | None, list[SampleRow]] = {None: []}
    for sample in audit.samples:
        by_reason.setdefault(sample.drop_reason, []).append(sample)
    for reason, rows in [(None, audit.rows_kept), *audit.dropped.items()]:
        title = f"Dropped: {reason.replace('_', ' ')}" if reason else "Kept"
        if reason in audit.withheld_reasons:
            yield Prose(title, [f"{rows:,} pairs. Captions of this kind are not shown."])
            continue
        items = [
            (row.caption, " · ".join(filter(None, (row.host or "no host", reason and row.decided_by))))
            for row in by_reason.get(reason, [])
        ]
        yield Quotes(title, items, f"{len(items):,} of {rows:,}")


def _domains_table(audit: Audit) -> Table:
    rows = [(row.host, row.rows, row.kept, row.kept / max(1, audit.rows_kept)) for row in audit.top_domains]
    note = f"The {len(rows):,} with the most kept pairs." if len(rows) < audit.domains else ""
    return Table("Hosts of the images", ("host", "rows", "kept", "of all kept"), rows, note)


def _languages_table(audit: Audit) -> Table:
    rows = [(row.lang or "not found", row.rows, row.kept, row.mean_score) for row in audit.languages]
    return Table(
        "Languages of the captions",
        ("language", "rows", "kept", "mean certainty"),
        rows,
        "ISO 639 codes by a language detector, which errs on short captions.",
    )


def _pii(audit: Audit) -> Iterable[Table | Prose]:
    title = "Personal data in captions"
    if not audit.pii:
        yield Prose(title, ["No caption is marked as holding any."])
        return
    rows = [(row.kind.replace("_", " "), row.rows, row.kept) for row in audit.pii]
    yield Table(
        title, ("kind", "rows", "kept"), rows, "Recognised by patterns and masked; a caption may have several kinds."
    )


def _queries_section(queries: QueryAudit) -> Section:
    numbers: list[tuple[Cell, ...]] = [
        ("queries", queries.queries),
        ("without a pair", queries.without_pair),
        (f"with more than t = {queries.t:,} pairs", queries.over_t),
        ("matches", queries.matches),
        ("matches left at most, with t of each query", queries.balanced_matches),
        ("tail share: matches on queries with fewer than t pairs", queries.tail_share),
    ]
    top = [(point.query, point.pairs, point.cumulative_share) for point in queries.top_queries if point.pairs]
    return Section(
        "queries",
        "How even the queries are",
        "The entry-count curve: queries in the order of their pairs. MetaCLIP has a tail share of 6\u00a0% at t = 20,000 "
        "(arXiv 2309.16671).",
        [
            Chart("Pairs of each query", curve_svg(queries), curve_mermaid(queries), _curve_note(queries)),
            Table("In numbers", ("", "count"), numbers),
            Table("The most frequent queries", ("query", "pairs", "of all matches, so far"), top),
        ],
    )


def _curve_note(queries: QueryAudit) -> str:
    if queries.t <= queries.most_pairs:
        return f"The dashed line is t = {queries.t:,}: balancing takes away about what lies above it."
    return f"No query has more than t = {queries.t:,} pairs, so balancing takes nothing away."


def _datasheet(facts: Facts) -> list[Prose]:
    audit, images = facts.audit, facts.config.download
    kinds = ", ".join(
        f"{row.source_kind} ({row.rows_in:,} rows, {row.sources:,} of its sources)" for row in audit.kinds
    )
    samples = ", ".join(f"{count:,} {split}" for split, count in facts.samples.items())
    spoken = ", ".join(facts.languages[:LANGUAGES_TOLD]) or "none"
    more = f", and {len(facts.languages) - LANGUAGES_TOLD} more" if len(facts.languages) > LANGUAGES_TOLD else ""
    pii = ", ".join(f"{row.kind} in {row.kept:,}" for row in audit.pii or ())
    sets = len(facts.config.images.evaluation_sets)
    taken_down = (facts.manifest or {}).get("taken_down", 0)
    blurred = ((facts.manifest or {}).get("face_boxes") or {}).get("samples", 0)
    text = {
        "Motivation": [
            "Images with captions from the web, for learning images from language (CLIP, arXiv 2103.00020, section 2.2).",
        ],
        "Composition": [
            "An instance is an image, its captions, its URL and the page it stood on.",
            f"Images in the shards: {samples}." if samples else "No image is in it yet: the pairs are a list.",
            f"Languages of kept captions, most frequent first: {spoken}{more}.",
            f"Personal data was recognised by patterns and masked in kept captions: {pii}."
            if pii
            else "No caption is marked as holding personal data; that is no proof that none does.",
            "Neither captions nor images were judged by a person: expect errors, offence and bias.",
        ],
        "Collection": [
            f"Found by: {kinds or 'no source gave a row'}.",
            "Captions are words that the web set beside the images; nobody was asked to write them.",
        ],
        "Preprocessing": [
            f"Rules kept {audit.rows_kept:,} of {audit.rows_in:,} rows; each dropped row has one reason, counted above.",
            f"Images are JPEG (quality {images.jpeg_quality}), their short side {images.short_side_px} pixels at most.",
            f"Images with the bytes of {sets} evaluation sets were taken out."
            if sets
            else "No evaluation set was named, so none of their images was taken out.",
            f"Faces were blurred in {blurred:,} images, by boxes that a file gave."
            if blurred
            else "No faces were blurred: no file of boxes was given, or none fitted.",
        ],
        "Uses": [
            "For research on models of images and text.",
            "Not for recognising persons, nor for a product without tests of its own.",
        ],
        "Distribution": [LICENCE, "Pass on the list of URLs and captions rather than the images."],
        "Maintenance": [
            "A build from the same inputs has the same digest.",
            "A pair is named by its pair_id; wit why tells its way, from the page to the shard.",
            f"Taken down on request so far: {taken_down:,} images; wit takedown takes addresses, hosts, checksums and pair_ids.",
        ],
    }
    return [Prose(title, sentences) for title, sentences in text.items()]


def _origin(facts: Facts) -> Table:
    manifest = facts.manifest or {}
    rows = [("name", facts.config.name), ("rules", facts.audit.preset or "as configured")]
    for split, entry in manifest.get("splits", {}).items():
        size = sum(shard["size_bytes"] for shard in entry["shards"])
        rows.append(
            (f"{split} split", f"samples: {entry['samples']:,}, shards: {len(entry['shards']):,}, bytes: {size:,}")
        )
    rows += [("digest of the shards", manifest["digest"])] if manifest else [("shards", "none yet")]
    rows += sorted(manifest.get("tools", {}).items())
    return Table("", ("what", "value"), rows)
