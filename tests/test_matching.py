from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from upath import UPath

from pipeline.matching import (
    COUNTS_FILE,
    CURVE_FILE,
    MATCH_COUNTS,
    MATCHES,
    MATCHES_FILE,
    PREFIXES_FILE,
    QUERIES_FILE,
    QUERY_INDEX,
    VERDICTS_FILE,
    MatchConfig,
    index_queries,
    match_pairs,
)
from pipeline.queries.text import normalise, normalise_column
from pipeline.query import QueryConfig
from pipeline.stage import Counts, Stage

ONE_THREAD = QueryConfig(memory_limit_mb=500, threads=1)
EXACT = MatchConfig(mode="metaclip-exact", query=ONE_THREAD)
FIXED = MatchConfig(mode="fixed", query=ONE_THREAD)

# Few words, so that they meet; marks, blanks and controls in the places where they matter.
PIECES = [
    "a",
    "b",
    "St",
    "st",
    "É",
    "e\u0301",
    "ß",
    "SS",
    ".",
    ",",
    "'",
    " ",
    "  ",
    "\t",
    "\n",
    "-",
    "`",
    "!",
    "东",
    "🙂",
    "\u200d",
]
texts = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


def metaclip_spacing(text: str) -> str:
    text = f" {text} "
    for mark in ",.;:?!`":
        text = text.replace(mark, f" {mark} ")
    for blank in "\t\n\r":
        text = text.replace(blank, " ")
    return text


def write_queries(folder: Path, queries: Sequence[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / QUERIES_FILE
    ids = pa.array(range(len(queries)), pa.int32())
    pq.write_table(pa.table({"query_id": ids, "query": pa.array(queries, pa.string())}), path)
    return path


def write_pairs(path: Path, captions: Iterable[str | None], first: int = 0) -> Path:
    captions = list(captions)
    pair_ids = [f"{first + number:032x}" for number in range(len(captions))]
    pq.write_table(
        pa.table({"pair_id": pa.array(pair_ids, pa.string()), "caption": pa.array(captions, pa.string())}), path
    )
    return path


def matches_of(
    tmp_path: Path, captions: Sequence[str], queries: Sequence[str], config: MatchConfig
) -> set[tuple[int, str]]:
    index_queries(write_queries(tmp_path, queries), tmp_path, config)
    pairs = write_pairs(tmp_path / "pairs.parquet", captions)
    rows = match_pairs([pairs], tmp_path / PREFIXES_FILE, tmp_path / MATCHES_FILE, config)
    table = pq.read_table(tmp_path / MATCHES_FILE)
    found = [
        (int(pair, 16), queries[query])
        for pair, query in zip(*map(pa.ChunkedArray.to_pylist, table.columns), strict=True)
    ]
    assert rows == len(found) == len(set(found))
    return set(found)


anything = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@anything
@given(captions=st.lists(texts, min_size=1, max_size=30), queries=st.lists(texts, min_size=1, max_size=20, unique=True))
def test_exact_matching_is_the_substring_of_padded_text(
    tmp_path: Path, captions: list[str], queries: list[str]
) -> None:
    spaced = [metaclip_spacing(caption) for caption in captions]
    expected = {(i, query) for i, text in enumerate(spaced) for query in queries if f" {query} " in text}
    assert matches_of(tmp_path, captions, queries, EXACT) == expected


@anything
@given(captions=st.lists(texts, min_size=1, max_size=30), queries=st.lists(texts, min_size=1, max_size=20, unique=True))
def test_fixed_matching_is_the_substring_of_normal_forms(
    tmp_path: Path, captions: list[str], queries: list[str]
) -> None:
    expected = {
        (i, normalise(query))
        for i, caption in enumerate(captions)
        for query in queries
        if normalise(query) and f" {normalise(query)} " in f" {normalise(caption)} "
    }
    assert {(i, normalise(query)) for i, query in matches_of(tmp_path, captions, queries, FIXED)} == expected


@anything
@given(captions=st.lists(st.one_of(st.none(), texts, st.text(max_size=20)), max_size=20), skipped=st.integers(0, 3))
def test_normal_form_of_a_column_is_that_of_its_texts(captions: list[str | None], skipped: int) -> None:
    column = pa.array(captions, pa.string()).slice(skipped)
    assert normalise_column(column).to_pylist() == [
        None if text is None else normalise(text) for text in captions[skipped:]
    ]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("St. Louis", "st louis"),
        ("  ST\tLOUIS!", "st louis"),
        ("STRASSE straße", "strasse strasse"),
        ("ﬁne ① Ｆｕｌｌ", "fine 1 full"),
        ("cafe\u0301", "caf\u00e9"),
        ("co\u00adop", "coop"),
        ("हिन्दी", "हिन्दी"),
        ("🙂 ... \x00\x07", ""),
        ("dog's", "dog s"),
    ],
)
def test_normal_form(text: str, normal: str) -> None:
    assert normalise(text) == normal
    assert normalise_column(pa.array([text])).to_pylist() == [normal]


def test_modes_differ_where_metaclip_has_its_quirks(tmp_path: Path) -> None:
    captions = ["The St. Louis arch, at night", "a dog's bone", "Dog and dog"]
    queries = ["St. Louis", "arch", "dog", "Dog", "night"]
    exact = matches_of(tmp_path / "exact", captions, queries, EXACT)
    fixed = matches_of(tmp_path / "fixed", captions, queries, FIXED)
    assert exact == {(0, "arch"), (0, "night"), (2, "dog"), (2, "Dog")}
    assert fixed == {(0, "St. Louis"), (0, "arch"), (0, "night"), (1, "dog"), (2, "dog")}


def test_queries_of_any_length_match(tmp_path: Path) -> None:
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    queries = [" ".join(words[:length]) for length in range(1, 9)] + [
        "one two three four six",
        "two three four five six seven",
    ]
    found = matches_of(tmp_path, [" ".join(words), "one two three four six", "nothing"], queries, EXACT)
    assert {query for pair, query in found if pair == 0} == {*queries} - {"one two three four six"}
    assert {query for pair, query in found if pair == 1} == {*queries[:4], "one two three four six"}
    assert not {query for pair, query in found if pair == 2}


def test_queries_that_cannot_match_are_named(tmp_path: Path) -> None:
    queries = write_queries(tmp_path, ["U.S.", "dog", "Dog", "!!!", "a\tb", ",", "dog house"])
    exact = index_queries(queries, tmp_path, EXACT)
    assert (exact.rows_in, exact.rows_kept, exact.dropped) == (7, 4, {"never_matches": 3})
    fixed = index_queries(queries, tmp_path, FIXED)
    assert (fixed.rows_in, fixed.rows_kept, fixed.dropped) == (7, 4, {"no_words": 2, "same_normal_form": 1})
    verdicts = {row["query_id"]: row["drop_reason"] for row in pq.read_table(tmp_path / VERDICTS_FILE).to_pylist()}
    assert verdicts == {0: None, 1: None, 2: "same_normal_form", 3: "no_words", 4: None, 5: "no_words", 6: None}


HOSTILE: list[str | None] = [
    None,
    "",
    " ",
    "🙂🙂",
    "\x00\x01\x07",
    "x" * 1_000_000,
    "dog " * 5_000,
    "dog " * 5_001,
    "'; drop table pairs; --",
    "dog\u200d",
    "\ufeffdog",
    "dog",
]


@pytest.mark.parametrize(("config", "matched"), [(EXACT, {6, 11}), (FIXED, {6, 8, 9, 10, 11})])
def test_hostile_captions_are_matched_or_counted(tmp_path: Path, config: MatchConfig, matched: set[int]) -> None:
    queries = write_queries(tmp_path, ["dog", "-- drop", "🙂"])
    pairs = write_pairs(tmp_path / "pairs.parquet", HOSTILE)
    index_queries(queries, tmp_path, config)
    found = match_pairs([pairs], tmp_path / PREFIXES_FILE, tmp_path / MATCHES_FILE, config)
    table = pq.read_table(tmp_path / MATCHES_FILE)
    assert found == table.num_rows
    assert {int(pair, 16) for pair in table["pair_id"].to_pylist()} == matched


def finished_list(tmp_path: Path, queries: Sequence[str]) -> UPath:
    """A folder like that of the stage of the query list."""

    def write(sources: Sequence[UPath], out: Path, config: MatchConfig) -> Counts:
        write_queries(out, queries)
        return Counts(rows_in=len(queries), rows_kept=len(queries))

    return Stage("queries_of_a_test", write).run([], UPath(tmp_path / "list"), EXACT).out


def test_any_cut_into_parts_gives_the_same_matches_and_counts(tmp_path: Path) -> None:
    captions = [f"a {'red' if i % 2 else 'blue'} dog number {i % 7}" for i in range(60)]
    queries = finished_list(tmp_path, ["red dog", "blue dog", "dog", "number 3", "cat", "a red dog number 5"])
    index = QUERY_INDEX.run([queries], UPath(tmp_path / "index"), EXACT).out
    answers = []
    for parts in (1, 3, 7):
        outs, size = [], -(-len(captions) // parts)
        for part, first in enumerate(range(0, len(captions), size)):
            pairs = write_pairs(tmp_path / f"pairs-{parts}-{part}.parquet", captions[first : first + size], first)
            result = MATCHES.run([index, UPath(pairs)], UPath(tmp_path / f"matches-{parts}-{part}"), EXACT)
            assert result.counts.rows_kept == result.counts.rows_in
            outs.append(result.out)
        counted = MATCH_COUNTS.run([queries, *outs], UPath(tmp_path / f"counts-{parts}"), EXACT)
        assert counted.counts.dropped == {"no_pair": 1}
        rows = pq.read_table([str(out / MATCHES_FILE) for out in outs]).to_pylist()
        answers.append((rows, pq.read_table(counted.out / COUNTS_FILE).to_pylist()))
    assert answers[0] == answers[1] == answers[2]
    counts = {row["query"]: row["pairs"] for row in answers[0][1]}
    assert counts == {"red dog": 30, "blue dog": 30, "dog": 60, "number 3": 9, "cat": 0, "a red dog number 5": 4}
    curve = pq.read_table(tmp_path / "counts-1" / CURVE_FILE).to_pylist()
    assert [row["query"] for row in curve] == ["dog", "red dog", "blue dog", "number 3", "a red dog number 5", "cat"]
    assert curve[0]["cumulative_share"] == 60 / 133 and curve[-1]["cumulative_share"] == 1


def test_every_row_of_a_part_is_accounted_for(tmp_path: Path) -> None:
    index = QUERY_INDEX.run([finished_list(tmp_path, ["dog"])], UPath(tmp_path / "index"), FIXED).out
    pairs = pa.table(
        {
            "pair_id": pa.array(["a", "a", "b", "c", None, "d", "e", "f"]),
            "caption": pa.array(["dog", "dog", "cat", None, "dog", "Dog!", "", "dog " * 9_999]),
        }
    )
    pq.write_table(pairs, tmp_path / "pairs.parquet")
    counts = MATCHES.run([index, UPath(tmp_path / "pairs.parquet")], UPath(tmp_path / "matches"), FIXED).counts
    assert (counts.rows_in, counts.rows_kept) == (8, 2)
    assert counts.dropped == {"no_pair_id": 1, "duplicate_pair": 1, "no_caption": 1, "long_caption": 1, "no_match": 2}


def test_same_matches_as_an_aho_corasick_automaton(tmp_path: Path) -> None:
    ahocorasick = pytest.importorskip("ahocorasick", reason="pyahocorasick is of the extra `bench`")
    draws = random.Random(0)
    words = [
        f"{first}{second}{third}" for first in "Abcdf" for second in "aeiou" for third in ("", "n", "st", "r.", "-x")
    ]

    def phrase(longest: int) -> str:
        return " ".join(words[int(len(words) ** draws.random()) - 1] for _ in range(draws.randint(1, longest)))

    queries = sorted({phrase(5) for _ in range(3_000)})
    captions = [phrase(14) + draws.choice(["", ",", "!", "\n"]) for _ in range(10_000)]
    automaton = ahocorasick.Automaton()
    for query in queries:
        automaton.add_word(f" {query} ", query)
    automaton.make_automaton()
    expected = {(i, query) for i, text in enumerate(captions) for _, query in automaton.iter(metaclip_spacing(text))}
    found = matches_of(tmp_path, captions, queries, EXACT)
    assert found == expected
    assert len({query for _, query in found}) > 500
