"""The audit against plain Python, and the card: every reason in it, hostile captions harmless, the same bytes twice."""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from made_pairs import judge
from markdown_it import MarkdownIt
from upath import UPath

from pipeline.audit import (
    AUDIT,
    CHAR_EDGES,
    QUERY_AUDIT,
    WORD_EDGES,
    Audit,
    AuditConfig,
    LengthBin,
    QueryAuditConfig,
    log_spaced,
    read_audit,
    read_query_audit,
)
from pipeline.balancing import BALANCE_THRESHOLD, BalanceConfig
from pipeline.card import CARD, CardConfig, read_markdown
from pipeline.card_pages import size_category
from pipeline.card_text import markdown_text, shown
from pipeline.config import BuildDatasetConfig
from pipeline.errors import InputError
from pipeline.pairs import describe
from pipeline.query import QueryConfig
from pipeline.settings import Settings
from pipeline.sources.rows import ROWS_SCHEMA
from pipeline.stage import Counts, FunnelStage, Stage, StageResult, read_record, total

BOUNDS = QueryConfig(threads=1)
CONFIG = BuildDatasetConfig(name="made")
RIGHT_TO_LEFT = "\u202e"
HOSTILE = (
    "A dog <script>alert(1)</script> <img src=x onerror=alert(2)> | `x` **b** [l](javascript:0) "
    f"{RIGHT_TO_LEFT} {{{{ 7*7 }}}}"
)
VOID = {"meta", "path", "rect", "polyline"}


def write(name: str, file: str, table: pa.Table, folder: Path) -> UPath:
    """A finished stage that holds one table."""

    def work(_sources: Sequence[UPath], out: Path, _config: Settings) -> Counts:
        pq.write_table(table, out / file)
        return Counts(rows_in=table.num_rows, rows_kept=table.num_rows)

    return Stage(name, work).run((), UPath(folder), Settings()).out


def rows_of(source: str, pairs: Sequence[tuple[str | None, str | None]], opt_out: str | None = None) -> pa.Table:
    """Candidate rows of one source: URL and text."""
    rows = [
        {"source": source, "row": number, "url": url, "caption_raw": text, "text_key": "alt", "page_opt_out": opt_out}
        for number, (url, text) in enumerate(pairs)
    ]
    return pa.Table.from_pylist(rows, schema=ROWS_SCHEMA)


def judged(folder: Path, tables: Sequence[pa.Table], without: Sequence[str] = ()) -> tuple[list[UPath], list[UPath]]:
    """The verdicts on the parts `tables`, and the parts, `without` some columns."""
    parts = []
    for number, rows in enumerate(tables):
        table = describe(rows, part=number).drop_columns(list(without))
        parts.append(write("pairs", "pairs.parquet", table, folder / f"pairs-{number}"))
    return [part.out for part in judge(folder, parts, CONFIG.curate, BOUNDS)], parts


def made_rows() -> list[pa.Table]:
    """Three parts of two kinds, in which every common rule finds something."""
    first: list[tuple[str | None, str | None]] = [
        (f"https://a.example/{n}.jpg", f"A red circle on a beach, number {n}") for n in range(40)
    ]
    first += [
        (None, "An image without an address"),
        ("data:image/png;base64,AA", "An image in the page itself"),
        ("https://a.example/none.jpg", None),
        ("https://a.example/short.jpg", "ab"),
        ("https://a.example/long.jpg", HOSTILE + " word" * 300),  # of a rare reason, so it is surely shown
        ("https://a.example/name.jpg", "IMG_1234.JPG"),
        ("https://a.example/huge.jpg", "<b>&" * 250_000),
        ("https://a.example/0.jpg", "A red circle on a beach, number 0"),
        ("https://a.example/german.jpg", "Ein roter Kreis auf einem Strand am Meer bei gutem Wetter"),
        ("https://a.example/mail.jpg", "Write to someone@mail.example or call +44 20 7946 0958 for the picture"),
    ]
    second = [(f"https://b.example/{n}.jpg", f"The small boat number {n} in the old harbour") for n in range(12)]
    third = [(f"https://c{n}.example/x.jpg", f"A photograph of house number {n} in the street") for n in range(9)]
    return [
        rows_of("site_crawl:a.example", first),
        rows_of("site_crawl:b.example", second, opt_out="noai"),
        rows_of("url_list:pairs:1.tsv", third),
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[UPath], list[UPath]]:
    return judged(tmp_path_factory.mktemp("made"), made_rows())


@pytest.fixture(scope="module")
def audited(made: tuple[list[UPath], list[UPath]], tmp_path_factory: pytest.TempPathFactory) -> StageResult:
    verdicts, parts = made
    config = AuditConfig(preset="webimagetext", top=5, query=BOUNDS)
    return AUDIT.run([*verdicts, *parts], UPath(tmp_path_factory.mktemp("audit") / "audit"), config)


@pytest.fixture(scope="module")
def audit(audited: StageResult) -> Audit:
    return read_audit(audited.out)


@pytest.fixture(scope="module")
def judged_rows(made: tuple[list[UPath], list[UPath]]) -> list[dict[str, Any]]:
    """Every pair with its verdict, as Python sees it."""
    verdicts, parts = made
    pairs = [row for part in parts for row in pq.read_table(part / "pairs.parquet").to_pylist()]
    judgements = [row for part in verdicts for row in pq.read_table(part / "verdicts.parquet").to_pylist()]
    found = {(row["part"], row["row"]): row for row in judgements}
    return [{**pair, **found[pair["part"], pair["row"]]} for pair in pairs]


def counted(rows: Sequence[dict[str, Any]], key: str) -> dict[Any, tuple[int, int]]:
    """Rows and kept ones by the value of a column."""
    entered, kept = Counter(row[key] for row in rows), Counter(row[key] for row in rows if not row["drop_reason"])
    return {value: (count, kept[value]) for value, count in entered.items()}


def test_the_audit_counts_what_the_verdicts_count(audited: StageResult, audit: Audit, made: Any) -> None:
    counts = total(record.counts for record in map(read_record, made[0]) if record)
    assert audited.counts == counts
    assert Counts(rows_in=audit.rows_in, rows_kept=audit.rows_kept, dropped=audit.dropped) == counts
    assert len(counts.dropped) >= 7, "the made data set should have something for most rules"
    for rows in (audit.kinds, audit.top_sources):
        sums = total(Counts(rows_in=row.rows_in, rows_kept=row.rows_kept, dropped=row.dropped) for row in rows)
        assert sums == total([counts])


def test_sources_and_their_kinds(audit: Audit, audited: StageResult, judged_rows: list[dict[str, Any]]) -> None:
    expected = counted(judged_rows, "source")
    assert {row.source: (row.rows_in, row.rows_kept) for row in audit.top_sources} == expected
    assert {(row.source_kind, row.sources) for row in audit.kinds} == {("site_crawl", 2), ("url_list", 1)}
    assert audit.sources == 3
    (opted_out,) = [row for row in audit.top_sources if row.source == "site_crawl:b.example"]
    assert opted_out.dropped == {"opted_out": 12}
    table = pq.read_table(audited.out / "sources.parquet").to_pylist()
    reasons = Counter((row["source"], row["drop_reason"]) for row in judged_rows)
    assert {(row["source"], row["drop_reason"]): row["rows"] for row in table} == reasons
    assert {row["preset"] for row in table} == {"webimagetext"}


def test_domains_are_the_first_of_all(audit: Audit, judged_rows: list[dict[str, Any]]) -> None:
    hosts = counted([row for row in judged_rows if row["host"]], "host")
    ordered = sorted(hosts.items(), key=lambda item: (-item[1][1], -item[1][0], item[0]))
    assert [(row.host, (row.rows, row.kept)) for row in audit.top_domains] == ordered[:5]
    assert audit.domains == len(hosts) == 11
    assert audit.domains_kept == sum(kept > 0 for _, kept in hosts.values())


def test_languages_with_their_mean_score(audit: Audit, judged_rows: list[dict[str, Any]]) -> None:
    assert {row.lang: (row.rows, row.kept) for row in audit.languages} == counted(judged_rows, "lang")
    for language in audit.languages:
        scores = [row["lang_score"] for row in judged_rows if row["lang"] == language.lang and row["lang"]]
        assert language.mean_score == (pytest.approx(sum(scores) / len(scores), abs=1e-4) if scores else None)


@pytest.mark.parametrize(
    ("column", "edges", "field"), [("chars", CHAR_EDGES, "caption_chars"), ("words", WORD_EDGES, "caption_words")]
)
def test_every_caption_lies_in_one_bin(
    audit: Audit, judged_rows: list[dict[str, Any]], column: str, edges: Sequence[int], field: str
) -> None:
    bins: Sequence[LengthBin] = getattr(audit, field)
    assert [entry.low for entry in bins] == list(edges)
    for entry in bins:
        inside = [
            row
            for row in judged_rows
            if row[column] >= entry.low and (entry.below is None or row[column] < entry.below)
        ]
        assert (entry.rows, entry.kept) == (len(inside), sum(not row["drop_reason"] for row in inside))
    assert sum(entry.rows for entry in bins) == audit.rows_in


def test_personal_data_is_counted_by_kind_where_somebody_looked(
    audit: Audit, judged_rows: list[dict[str, Any]]
) -> None:
    kinds: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    for row in judged_rows:
        found = re.findall(r"\w+", row["pii"] or "")
        kinds.update(found)
        kept.update(found if not row["drop_reason"] else [])
    assert kinds["email"] == 1 and kinds["phone"] == 1 and audit.pii is not None
    assert {row.kind: (row.rows, row.kept) for row in audit.pii} == {kind: (kinds[kind], kept[kind]) for kind in kinds}


def test_pairs_that_nobody_searched_for_personal_data(tmp_path: Path) -> None:
    rows = rows_of("url_list:x", [("https://a.example/1.jpg", "A red circle on the beach")])
    verdicts, parts = judged(tmp_path, [rows], without=["pii"])
    result = AUDIT.run([*verdicts, *parts], UPath(tmp_path / "audit"), AuditConfig(query=BOUNDS))
    assert read_audit(result.out).pii is None
    card = CARD.run([result.out], UPath(tmp_path / "card"), CardConfig(config=CONFIG)).out
    assert "No caption is marked" in (card / "card.html").read_text()


def test_samples_are_of_their_reason_and_cut(audit: Audit, judged_rows: list[dict[str, Any]]) -> None:
    reasons = Counter(row["drop_reason"] for row in judged_rows)
    assert Counter(row.drop_reason for row in audit.samples) == {
        reason: min(10, rows) for reason, rows in reasons.items() if reason != "opted_out"
    }
    known = {
        (row["drop_reason"], row["pair_id"], row["source"], (row["caption"] or "")[:300] or None) for row in judged_rows
    }
    assert {(row.drop_reason, row.pair_id, row.source, row.caption) for row in audit.samples} <= known
    assert max(len(row.caption or "") for row in audit.samples) == 300


def test_copies_of_one_pair_do_not_crowd_out_the_others(tmp_path: Path) -> None:
    rows = [("https://a.example/1.jpg", "A red circle on the beach")] * 200
    rows += [(f"https://a.example/{n}.jpg", "A red circle on the beach") for n in (2, 3, 4) for _ in range(50)]
    verdicts, parts = judged(tmp_path, [rows_of("url_list:x", rows)])
    audit = read_audit(AUDIT.run([*verdicts, *parts], UPath(tmp_path / "audit"), AuditConfig(query=BOUNDS)).out)
    copies = [row.pair_id for row in audit.samples if row.drop_reason == "duplicate_pair"]
    assert len(copies) == 10 and len(set(copies)) > 1


def test_withheld_reasons_are_counted_but_not_shown(made: Any, tmp_path: Path) -> None:
    verdicts, parts = made
    config = AuditConfig(query=BOUNDS)
    result = AUDIT.run([*verdicts, *parts], UPath(tmp_path / "audit"), config)
    audit = read_audit(result.out)
    assert audit.withheld_reasons == ("opted_out",) and audit.dropped["opted_out"] == 12
    assert "opted_out" not in {row.drop_reason for row in audit.samples}
    card = CARD.run([result.out], UPath(tmp_path / "card"), CardConfig(config=CONFIG)).out
    text = (card / "card.html").read_text()
    assert "old harbour" not in text and "Dropped: opted out" in text and "are not shown" in text


def test_a_part_too_few_is_refused(made: Any, tmp_path: Path) -> None:
    verdicts, parts = made
    with pytest.raises(InputError, match="name every part"):
        AUDIT.run([*verdicts, *parts[:-1], parts[0]], UPath(tmp_path / "audit"), AuditConfig(query=BOUNDS))
    with pytest.raises(InputError, match="no part was given"):
        AUDIT.run([], UPath(tmp_path / "audit"), AuditConfig(query=BOUNDS))


def test_threads_and_repeats_do_not_change_a_byte(made: Any, audited: StageResult, tmp_path: Path) -> None:
    verdicts, parts = made
    config = AuditConfig(preset="webimagetext", top=5, query=QueryConfig(threads=2))
    again = AUDIT.run([*verdicts, *parts], UPath(tmp_path / "audit"), config)
    assert again.record.outputs == audited.record.outputs
    assert set(again.record.outputs) == {"audit.json", "sources.parquet"}


# -- queries

PAIRS_OF_QUERIES = [0] * 30 + [1] * 50 + [2] * 25 + [7] * 10 + [90, 40, 40, 12, 11, 10]


def match_counts(folder: Path, pairs: Sequence[int]) -> UPath:
    """A finished MATCH_COUNTS folder, its curve by plain Python."""
    rows: list[dict[str, Any]] = [
        {"query_id": n, "query": f"<query> {n}", "pairs": count} for n, count in enumerate(pairs)
    ]
    ranked = sorted(rows, key=lambda row: (-row["pairs"], row["query_id"]))
    matches, so_far, curve = sum(pairs), 0, list[dict[str, Any]]()
    for rank, row in enumerate(ranked, 1):
        so_far += row["pairs"]
        curve.append({"rank": rank, **row, "cumulative_share": so_far / matches if matches else 0.0})

    def work(_sources: Sequence[UPath], out: Path, _config: Settings) -> Counts:
        schema = pa.schema({"query_id": pa.int64(), "query": pa.string(), "pairs": pa.int64()})
        pq.write_table(pa.Table.from_pylist(rows, schema), out / "query_counts.parquet")
        schema = pa.schema([("rank", pa.int64()), *schema, ("cumulative_share", pa.float64())])
        pq.write_table(pa.Table.from_pylist(curve, schema), out / "query_curve.parquet")
        return Counts(rows_in=len(rows), rows_kept=len(rows))

    return Stage("match_counts", work).run((), UPath(folder), Settings()).out


def test_the_entry_count_curve_against_plain_python(tmp_path: Path) -> None:
    counts = match_counts(tmp_path / "counts", PAIRS_OF_QUERIES)
    threshold = BALANCE_THRESHOLD.run(
        [counts], UPath(tmp_path / "threshold"), BalanceConfig(pairs_per_query=11, query=BOUNDS)
    )
    result = QUERY_AUDIT.run(
        [counts, threshold.out], UPath(tmp_path / "queries"), QueryAuditConfig(points=9, top=3, query=BOUNDS)
    )
    found = read_query_audit(result.out)
    matches = sum(PAIRS_OF_QUERIES)
    assert (found.t, found.queries, found.without_pair, found.over_t) == (11, len(PAIRS_OF_QUERIES), 30, 4)
    assert (found.matches, found.most_pairs) == (matches, 90)
    assert found.balanced_matches == sum(min(count, 11) for count in PAIRS_OF_QUERIES)
    assert found.tail_share == pytest.approx(sum(count for count in PAIRS_OF_QUERIES if count < 11) / matches)
    ordered = sorted(PAIRS_OF_QUERIES, reverse=True)
    assert [point.rank for point in found.curve] == log_spaced(len(ordered), 9)
    assert [point.pairs for point in found.curve] == [ordered[point.rank - 1] for point in found.curve]
    assert [(point.rank, point.pairs) for point in found.top_queries] == [(1, 90), (2, 40), (3, 40)]
    assert found.curve[-1].cumulative_share == pytest.approx(1)


def test_without_balancing_the_threshold_is_the_papers(tmp_path: Path) -> None:
    result = QUERY_AUDIT.run([match_counts(tmp_path / "c", [3, 0])], UPath(tmp_path / "q"), QueryAuditConfig())
    found = read_query_audit(result.out)
    assert (found.t, found.over_t, found.tail_share) == (20_000, 0, 1.0)


@pytest.mark.parametrize("pairs", [[], [0, 0]])
def test_queries_that_match_nothing(tmp_path: Path, pairs: list[int]) -> None:
    found = read_query_audit(
        QUERY_AUDIT.run([match_counts(tmp_path / "c", pairs)], UPath(tmp_path / "q"), QueryAuditConfig()).out
    )
    assert (found.queries, found.without_pair, found.tail_share) == (len(pairs), len(pairs), None)


@pytest.mark.parametrize(
    ("last", "points", "ranks"),
    [(0, 100, []), (1, 5, [1]), (3, 100, [1, 2, 3]), (10_000, 5, [1, 10, 100, 1_000, 10_000])],
)
def test_log_spaced_ranks(last: int, points: int, ranks: list[int]) -> None:
    assert log_spaced(last, points) == ranks
    assert len(log_spaced(500_000, 100)) <= 100


# -- the card


class Page(HTMLParser):
    """The elements and words of a page, as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def made_shards(folder: Path) -> UPath:
    """A finished folder of shards, as far as the card reads it."""
    manifest = {
        "name": "made",
        "funnel": [{"stage": "pair_verdicts", "rows_in": 9, "rows_kept": 7, "dropped": {"short_caption": 2}}],
        "splits": {
            "train": {"samples": 1_234, "shards": [{"size_bytes": 5_000}, {"size_bytes": 500}]},
            "val": {"samples": 12, "shards": [{"size_bytes": 50}]},
        },
        "tools": {"duckdb": "2.0.1"},
        "digest": "d1gest",
    }

    def work(_sources: Sequence[UPath], out: Path, _config: Settings) -> Counts:
        (out / "manifest.json").write_text(json.dumps(manifest))
        return Counts(rows_in=0, rows_kept=0)

    return Stage("shards", work).run((), UPath(folder), Settings()).out


@pytest.fixture(scope="module")
def card(audited: StageResult, tmp_path_factory: pytest.TempPathFactory) -> UPath:
    folder = tmp_path_factory.mktemp("card")
    queries = QUERY_AUDIT.run(
        [match_counts(folder / "counts", PAIRS_OF_QUERIES)],
        UPath(folder / "queries"),
        QueryAuditConfig(pairs_per_query=11, query=BOUNDS),
    )
    sources = [made_shards(folder / "shards"), queries.out, audited.out]
    return CARD.run(sources, UPath(folder / "card"), CardConfig(config=CONFIG)).out


def test_both_cards_hold_every_reason_and_heading(card: UPath, audit: Audit) -> None:
    for text in (Page((card / "card.html").read_text()).text, (card / "card.md").read_text()):
        for reason in audit.dropped:
            assert f"Dropped: {reason.replace('_', ' ')}" in text
        headings = "Motivation Composition Collection Preprocessing Uses Distribution Maintenance"
        for heading in headings.split():
            assert heading in text
        for told in ("1,246", "a.example", "1,234 train, 12 val", "d1gest", "email", "Rules: webimagetext", "2.0.1"):
            assert told in text
        assert "old harbour" not in text  # they opted out


def test_the_page_is_one_file_and_hostile_captions_are_words(card: UPath) -> None:
    text = (card / "card.html").read_text()
    page = Page(text)
    assert not page.tags.keys() & {"script", "img", "link", "iframe", "b"}
    assert not {name for name in page.attributes if name.startswith("on")} and "src" not in page.attributes
    assert "<script>alert(1)</script>" in page.text and "{{ 7*7 }}" in page.text
    assert RIGHT_TO_LEFT not in text and "‹202E›" in text
    assert len(text) < 200_000, "a caption of a million characters was not cut"
    assert page.tags["svg"] == 3 and "default-src 'none'" in text


def test_in_markdown_hostile_captions_are_words_too(card: UPath) -> None:
    text = (card / "card.md").read_text()
    assert "<script" not in text and "<img" not in text and "](javascript" not in text and RIGHT_TO_LEFT not in text
    rendered = Page(MarkdownIt("commonmark").enable("table").render(read_markdown(card)))
    assert not rendered.tags.keys() & {"script", "img", "a", "b", "em"} and rendered.tags["strong"] == 1  # ours
    assert "<script>alert(1)</script>" in rendered.text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len(tables) > 30
    columns = 0
    for line in tables:
        if set(line) <= set("| -:"):
            assert line.count("|") == columns
        columns = line.count("|")
    assert text.count("```mermaid") == 3


def test_the_header_is_that_of_a_data_set_card(card: UPath, audit: Audit) -> None:
    text = (card / "card.md").read_text()
    header = yaml.safe_load(text.split("---\n")[1])
    assert header["pretty_name"] == "made" and header["size_categories"] == ["1K<n<10K"]
    assert header["language"] == ["en"] and header["license"] == "other"
    assert "belong to their owners" in header["license_details"]
    assert {"site_crawl", "url_list"} <= set(header["tags"])
    assert header["configs"][0]["data_files"] == [
        {"split": "train", "path": "train/*.tar"},
        {"split": "validation", "path": "val/*.tar"},
    ]
    body = read_markdown(card)
    assert body.startswith("# made") and text.endswith(body)


def test_the_card_before_there_are_shards_or_queries(audited: StageResult, tmp_path: Path) -> None:
    funnel = (FunnelStage(stage="sources", rows_in=99, rows_kept=98, dropped={"page_gone": 1}),)
    out = CARD.run([audited.out], UPath(tmp_path / "card"), CardConfig(config=CONFIG, funnel=funnel)).out
    page = Page((out / "card.html").read_text())
    assert "page gone" in page.text and "none yet" in page.text and "tail share" not in page.text
    assert "configs" not in yaml.safe_load((out / "card.md").read_text().split("---\n")[1])


def test_an_empty_data_set_has_a_card(tmp_path: Path) -> None:
    verdicts, parts = judged(tmp_path, [rows_of("url_list:none", [])])
    result = AUDIT.run([*verdicts, *parts], UPath(tmp_path / "audit"), AuditConfig(query=BOUNDS))
    audit = read_audit(result.out)
    assert (audit.rows_in, audit.sources, audit.domains, audit.samples) == (0, 0, 0, ())
    queries = QUERY_AUDIT.run([match_counts(tmp_path / "c", [])], UPath(tmp_path / "q"), QueryAuditConfig()).out
    out = CARD.run([result.out, queries], UPath(tmp_path / "card"), CardConfig(config=CONFIG)).out
    assert "0 pairs kept of 0 pairs found" in Page((out / "card.html").read_text()).text
    assert yaml.safe_load((out / "card.md").read_text().split("---\n")[1])["size_categories"] == ["n<1K"]


def test_the_same_facts_give_the_same_bytes(card: UPath, audited: StageResult, tmp_path: Path) -> None:
    outs = [CARD.run([audited.out], UPath(tmp_path / name), CardConfig(config=CONFIG)) for name in ("one", "two")]
    assert outs[0].record.outputs == outs[1].record.outputs


def test_other_sources_are_refused(audited: StageResult, made: Any, tmp_path: Path) -> None:
    for sources in ([], [made[0][0]], [audited.out, made[0][0]], [audited.out, audited.out]):
        with pytest.raises(InputError, match="card: needs"):
            CARD.run(sources, UPath(tmp_path / "card"), CardConfig(config=CONFIG))


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain words, don't", "plain words, don't"),
        ("a|b: 5", "a&#124;b: 5"),
        ("<b>", "&#60;b&#62;"),
        ("a_b _c_ d__e", "a_b &#95;c&#95; d&#95;&#95;e"),
        ("http://x.y", "http:&#47;/x.y"),
        ("WWW.x.y me@x.y", "WWW&#46;x.y me&#64;x.y"),
        ("a\x00b\nc\u2028d", "a‹0000›b‹000A›c‹2028›d"),
        ("\u0645\u0631\u062d\u0628\u0627", "\u0645\u0631\u062d\u0628\u0627"),
        ("\ufeff\u2066x", "‹FEFF›‹2066›x"),
    ],
)
def test_markdown_of_the_webs_words(text: str, safe: str) -> None:
    assert markdown_text(text) == safe


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text() | st.text("ab1 .:-_*`|<>&[]()!#@$~^{}/\\'\"=+", max_size=30))
def test_any_text_comes_out_of_markdown_as_it_is_shown(text: str) -> None:
    page = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    item = page.render(f"- “{markdown_text(text)}”\n")
    assert html.unescape(item) == f"<ul>\n<li>“{shown(text)}”</li>\n</ul>\n"
    table = page.render(f"| a |\n| --- |\n| {markdown_text(text)} |\n")
    (cell,) = re.findall(r"<td>(.*)</td>", table)
    assert html.unescape(cell).strip() == shown(text).strip()


def test_a_long_text_is_cut() -> None:
    assert shown("x" * 1_000_000) == "x" * 200 + "…"
    assert shown("x" * 200) == "x" * 200


@pytest.mark.parametrize(
    ("size", "name"),
    [(0, "n<1K"), (999, "n<1K"), (1_000, "1K<n<10K"), (400_000_000, "100M<n<1B"), (10**11, "100B<n<1T"), (10**12, "n>1T")],
)  # fmt: skip
def test_size_categories(size: int, name: str) -> None:
    assert size_category(size) == name
