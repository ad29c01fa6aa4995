from __future__ import annotations

import bz2
import gzip
import math
import re
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from pipeline.errors import InputError
from pipeline.queries.build import QUERIES_FILE, QUERY_LIST, VERDICTS_FILE
from pipeline.queries.config import GivenConfig, PageviewsConfig, QueryListConfig, WikipediaConfig, WordnetConfig
from pipeline.queries.counting import BIGRAMS_FILE, NGRAM_CANDIDATES, NGRAMS, UNIGRAMS_FILE
from pipeline.queries.given import GIVEN_QUERIES
from pipeline.queries.pageviews import HOURLY_VIEWS, TITLE_CANDIDATES
from pipeline.queries.wikipedia import LINES_FILE, WIKIPEDIA_TEXT
from pipeline.queries.wikitext import strip_wikitext
from pipeline.queries.wordnet import WORDNET_LEMMAS
from pipeline.query import QueryConfig
from pipeline.stage import StageResult

ONE_THREAD = QueryConfig(memory_limit_mb=500, threads=1)

DUMP = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="en">
  <siteinfo><sitename>Wikipedia</sitename></siteinfo>
  <page><title>St. Louis</title><ns>0</ns><id>1</id><revision><id>9</id><text bytes="9" xml:space="preserve">
{{Infobox settlement|name=Nowhere {{nested|deep}}}}'''St. Louis''' is a [[city]]
in [[Missouri (state)|Missouri]].&lt;ref name="a"&gt;Hidden
words&lt;/ref&gt;&lt;!-- never seen --&gt;
== Hidden heading ==
* The [[File:Arch.jpg|thumb|The [[Arch|arch]] hidden]] Gateway Arch &amp;amp; the [https://example.org/x river front].
{| class="wikitable"
| hidden cell
|}
[[Category:Hidden]]</text></revision></page>
  <page><title>Saint Louis</title><ns>0</ns><redirect title="St. Louis"/>
    <revision><text>#REDIRECT [[St. Louis]]</text></revision></page>
  <page><title>Talk:St. Louis</title><ns>1</ns><revision><text>hidden talk</text></revision></page>
  <page><title>Empty</title><ns>0</ns><revision><text>{{stub}}</text></revision></page>
</mediawiki>
"""
VISIBLE = ["St. Louis is a city", "in Missouri.", "The Gateway Arch & the river front."]


def lines_of(result: StageResult) -> list[str]:
    return pq.read_table(result.out / LINES_FILE)["line"].to_pylist()  # type: ignore[no-any-return]


def read_text(tmp_path: Path, name: str, content: bytes) -> StageResult:
    (tmp_path / name).write_bytes(content)
    return WIKIPEDIA_TEXT.run([UPath(tmp_path / name)], UPath(tmp_path / f"{name}.lines"), WikipediaConfig())


@pytest.mark.parametrize(
    ("name", "pack"),
    [("a.xml", bytes), ("a.xml.bz2", bz2.compress), ("a.xml.gz", gzip.compress), ("a1.xml-p1p41242.bz2", bz2.compress)],
)
def test_dump_gives_the_lines_that_a_reader_sees(tmp_path: Path, name: str, pack: type[bytes]) -> None:
    result = read_text(tmp_path, name, pack(DUMP.encode()))
    assert lines_of(result) == VISIBLE
    assert result.counts.dropped == {"no_text": 1, "not_an_article": 1, "redirect": 1}
    assert result.counts.rows_in == 4


def test_multistream_dump_is_read_to_its_end(tmp_path: Path) -> None:
    half = DUMP.index("  <page><title>Talk")
    packed = bz2.compress(DUMP[:half].encode()) + bz2.compress(DUMP[half:].encode())
    assert read_text(tmp_path, "m.xml.bz2", packed).counts.rows_in == 4


def test_dump_that_breaks_off_keeps_what_came_before(tmp_path: Path) -> None:
    many = DUMP.replace("</mediawiki>", "".join(
        f"<page><title>P{i}</title><ns>0</ns><revision><text>page {i} of {i * 7919 % 10007}</text></revision></page>"
        for i in range(20_000)
    )) + "</mediawiki>"  # fmt: skip
    packed = bz2.compress(many.encode(), compresslevel=1)
    result = read_text(tmp_path, "cut.xml.bz2", packed[: len(packed) * 3 // 4])
    assert result.counts.dropped["unreadable_rest"] == 1
    assert lines_of(result)[:3] == VISIBLE
    assert len(lines_of(result)) > 1_000


@pytest.mark.parametrize("content", [b"", b"not a dump", bz2.compress(b"<mediawiki>")[:20]])
def test_unreadable_dump_names_the_file(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError, match=r"bad\.xml\.bz2"):
        read_text(tmp_path, "bad.xml.bz2", content)


def test_plain_text_is_one_article_or_paragraph_a_line(tmp_path: Path) -> None:
    result = read_text(
        tmp_path, "text.txt", b"first one\n\n  second\xc3\xa9 \nbad \xff line\n" + b"x" * 6_000_000 + b"\nlast"
    )
    assert lines_of(result) == ["first one", "secondé", "last"]
    assert result.counts.dropped == {"empty": 1, "invalid_utf8": 1, "long_line": 1}


@pytest.mark.parametrize(
    ("wikitext", "lines"),
    [
        ("a <ref name=x/> b", ["a b"]),
        ("a <ref>gone</ref> b <ref>never closed c", ["a b never closed c"]),
        ("a {{never closed b", ["a never closed b"]),
        ("a }} b ]] c", ["a b c"]),
        ("{{x|a={{y|[[z]]}}|}}after", ["after"]),
        ("[[:Category:Dogs]] and [[Dog#Breeds]] [[a|b|c]]", ["Category:Dogs and Dog c"]),
        ("''it'' '''bold''' dog's &nbsp;&lt;b&gt;", ["it bold dog's <b>"]),
        ("see https://example.org/a?b now __NOTOC__", ["see now"]),
        ("<div class='x'>kept</div><!-- open", ["kept"]),
        ("<math>x^2</math>\n----\n12 34", []),
    ],
)
def test_wikitext(wikitext: str, lines: list[str]) -> None:
    assert strip_wikitext(wikitext) == lines


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(["{{", "}}", "[[", "]]", "{|", "|}", "|", "<ref>", "</ref>", "<!--", "-->", "word", "\n", "="])
    )
)
def test_wikitext_of_any_nonsense_is_survived(pieces: list[str]) -> None:
    for line in strip_wikitext(" ".join(pieces)):
        assert line.strip() and "\n" not in line


@pytest.mark.parametrize(
    "piece", ["{{", "[[", "[[a|", "<!--", "<ref>", "{{}}", "[http://", "[[a]]", "<b ", "}}", "[[x|[[", "&#"]
)
def test_hostile_wikitext_takes_time_in_proportion(piece: str) -> None:
    started = time.process_time()
    strip_wikitext(piece * (1_000_000 // len(piece)))
    assert time.process_time() - started < 10


TEXT = [
    "The red dog saw the red dog. New York, New York!",
    "Dog: the well-known 'dog' of Zanzibar's Ouagadougou",
    "New York -- x",
]


def slow_ngrams(lines: list[str]) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    words, pairs = Counter[str](), Counter[tuple[str, str]]()
    for line in lines:
        for phrase in re.split(r"[^\w'’ \t-]", line):
            found = [word.strip("'’-") for word in phrase.split() if word.strip("'’-")]
            words.update(found)
            pairs.update(pairwise(found))
    return words, pairs


def count_text(tmp_path: Path, lines: list[str], parts: int, config: WikipediaConfig) -> StageResult:
    ngrams = []
    for part in range(parts):
        text = read_text(tmp_path, f"{parts}-{part}.txt", "\n".join(lines[part::parts]).encode())
        ngrams.append(NGRAMS.run([text.out], UPath(tmp_path / f"ngrams-{parts}-{part}"), config).out)
    return NGRAM_CANDIDATES.run(ngrams, UPath(tmp_path / f"candidates-{parts}"), config)


def test_counts_and_mutual_information_are_those_of_a_slow_count(tmp_path: Path) -> None:
    config = WikipediaConfig(min_unigram_count=1, min_bigram_pmi=-100, query=ONE_THREAD)
    answers = [count_text(tmp_path, TEXT, parts, config) for parts in (1, 3)]
    tables = [
        [pq.read_table(each.out / name).to_pylist() for name in (UNIGRAMS_FILE, BIGRAMS_FILE)] for each in answers
    ]
    assert tables[0] == tables[1]
    unigrams, bigrams = tables[0]
    words, pairs = slow_ngrams(TEXT)
    assert {row["query"]: row["count"] for row in unigrams} == dict(words)
    assert words["well-known"] == 1 and words["dog"] == 3 and words["Zanzibar's"] == 1
    assert {row["query"]: row["count"] for row in bigrams} == {f"{a} {b}": count for (a, b), count in pairs.items()}
    assert "dog New" not in {row["query"] for row in bigrams}
    for row in bigrams:
        a, b = row["query"].split(" ")
        assert row["pmi"] == pytest.approx(math.log2(row["count"] * words.total() / (words[a] * words[b])))


def test_thresholds_of_words_and_bigrams_hold_at_their_bounds(tmp_path: Path) -> None:
    lines = ["often"] * 100 + ["seldom"] * 99 + ["San Marino"] * 3 + ["the often"] * 2
    config = WikipediaConfig(min_bigram_pmi=math.log2(3 * 209 / 9), min_bigram_count=3, query=ONE_THREAD)
    result = count_text(tmp_path, lines, 1, config)
    assert pq.read_table(result.out / UNIGRAMS_FILE)["query"].to_pylist() == ["often"]
    assert pq.read_table(result.out / BIGRAMS_FILE)["query"].to_pylist() == ["San Marino"]
    assert result.counts.dropped == {"rare_word": 4, "weak_bigram": 1}


def test_titles_by_page_views(tmp_path: Path) -> None:
    hours = [
        b"en Saturn_V 60 0\nen Saturn_V 49 0\nen File:X.jpg 900 0\nde Saturn_V 500 0\nen.m Saturn_V 500 0\n"
        b"en broken\nen - 99 0\n",
        b"en Saturn_V 50 0\nen Once 69 0\nen Often 70 0\nen b\xff 80 0\n" + b"en " + b"y" * 20_000 + b" 80 0\n",
    ]
    parts = []
    for number, hour in enumerate(hours):
        path = tmp_path / f"pageviews-{number}.gz"
        path.write_bytes(gzip.compress(hour))
        parts.append(HOURLY_VIEWS.run([UPath(path)], UPath(tmp_path / f"hour-{number}"), PageviewsConfig()))
    assert parts[0].counts.dropped == {
        "colon_in_title": 1,
        "few_views": 1,
        "malformed_line": 1,
        "no_letter_or_digit": 1,
    }
    assert parts[1].counts.dropped == {"invalid_utf8": 1, "long_line": 1}
    config = PageviewsConfig(query=ONE_THREAD)
    result = TITLE_CANDIDATES.run([part.out for part in parts], UPath(tmp_path / "titles"), config)
    rows = pq.read_table(result.out / "candidates.parquet").to_pylist()
    assert [(row["query"], row["views"]) for row in rows] == [("Often", 70), ("Saturn V", 110)]
    assert result.counts.dropped == {"few_views": 1}


def test_truncated_page_views_keep_what_came_before(tmp_path: Path) -> None:
    packed = gzip.compress("".join(f"en Title_{i * 7919 % 10007} {50 + i} 0\n" for i in range(5_000)).encode())
    (tmp_path / "p.gz").write_bytes(packed[: len(packed) // 2])
    counts = HOURLY_VIEWS.run([UPath(tmp_path / "p.gz")], UPath(tmp_path / "hour"), PageviewsConfig()).counts
    assert counts.dropped == {"unreadable_rest": 1} and counts.rows_kept > 1_000
    (tmp_path / "q.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match=r"q\.gz"):
        HOURLY_VIEWS.run([UPath(tmp_path / "q.gz")], UPath(tmp_path / "none"), PageviewsConfig())


SYNSETS = """  1 This software and database is being provided to you, the LICENSEE, by Princeton University
  2 under the following license.
00001740 03 n 01 entity 0 003 ~ 00001930 n 0000 ~ 00002137 n 0000 ~ 04424418 n 0000 | that which is perceived
02084071 05 n 03 dog 0 domestic_dog 0 Canis_familiaris 0 002 @ 02083346 n 0000 @ 01317541 n 0000 | a member of a genus
00003131 00 a 0a galore(ip) 0 a 0 b 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 000 | in great numbers
nonsense
"""


@pytest.mark.parametrize(
    ("lemmas", "expected"),
    [
        ("first", ["entity", "dog", "galore"]),
        ("all", ["entity", "dog", "domestic dog", "canis familiaris", "galore", *"abcdefghi"]),
    ],
)
def test_wordnet_synsets(tmp_path: Path, lemmas: str, expected: list[str]) -> None:
    (tmp_path / "data.noun").write_text(SYNSETS)
    config = WordnetConfig(lemmas=lemmas)
    result = WORDNET_LEMMAS.run([UPath(tmp_path / "data.noun")], UPath(tmp_path / "lemmas"), config)
    assert pq.read_table(result.out / "candidates.parquet")["query"].to_pylist() == expected
    assert result.counts.dropped == {"malformed_line": 1}


def test_wordnet_index_and_word_lists(tmp_path: Path) -> None:
    (tmp_path / "index.noun").write_text("  1 licence\nhot_dog n 3 2 @ ~ 3 0 07676602 10187710 07692614  \n")
    (tmp_path / "words").write_text("Apple\nhot dog\n")
    for name, expected in [("index.noun", ["hot dog"]), ("words", ["Apple", "hot dog"])]:
        result = WORDNET_LEMMAS.run([UPath(tmp_path / name)], UPath(tmp_path / f"{name}.out"), WordnetConfig())
        assert pq.read_table(result.out / "candidates.parquet")["query"].to_pylist() == expected


def given_list(tmp_path: Path, content: bytes) -> StageResult:
    (tmp_path / "list.txt").write_bytes(content)
    return GIVEN_QUERIES.run([UPath(tmp_path / "list.txt")], UPath(tmp_path / "given"), GivenConfig())


def test_given_list_with_all_that_can_be_wrong_with_it(tmp_path: Path) -> None:
    content = (
        b"\xef\xbb\xbfdog\r\n\n  red   dog\t\n"
        + b"w" * 1_000_000
        + b"\nbad\xff\n!!!\ndog\n"
        + "東京\n".encode()
        + b"x" * 300
    )
    result = given_list(tmp_path, content)
    assert result.counts.rows_in == 9
    assert result.counts.dropped == {"empty": 1, "invalid_utf8": 1, "long_line": 2, "no_letter_or_digit": 1}
    config = QueryListConfig(numbers=False, query=ONE_THREAD)
    built = QUERY_LIST.run([result.out], UPath(tmp_path / "queries"), config)
    assert built.counts.dropped == {"duplicate": 1}
    rows = pq.read_table(built.out / QUERIES_FILE).to_pylist()
    nothing = {"count": None, "pmi": None, "views": None}
    assert rows == [
        {"query_id": number, "query": query, "sources": ["given"], **nothing}
        for number, query in enumerate(["dog", "red dog", "東京"])
    ]


def test_list_without_a_query_is_refused(tmp_path: Path) -> None:
    empty = given_list(tmp_path, b"\n!!!\n")
    with pytest.raises(InputError, match="query list is empty"):
        QUERY_LIST.run([empty.out], UPath(tmp_path / "queries"), QueryListConfig(numbers=False, query=ONE_THREAD))
    with pytest.raises(InputError, match="no source of queries"):
        QUERY_LIST.run([], UPath(tmp_path / "queries"), QueryListConfig(query=ONE_THREAD))
    with pytest.raises(InputError, match=r"nowhere\.txt"):
        GIVEN_QUERIES.run([UPath(tmp_path / "nowhere.txt")], UPath(tmp_path / "given2"), GivenConfig())


def all_sources(tmp_path: Path) -> list[UPath]:
    text = WikipediaConfig(min_unigram_count=2, min_bigram_pmi=1, min_bigram_count=2, query=ONE_THREAD)
    lines = ["dog"] * 9 + ["cat"] * 7 + ["Saturn V"] * 3 + ["7 cats"]
    (tmp_path / "data.noun").write_text(SYNSETS)
    (tmp_path / "views").write_text("en Saturn_V 80 0\nen dog 70 0\nen Zebra 99 0\n")
    hour = HOURLY_VIEWS.run([UPath(tmp_path / "views")], UPath(tmp_path / "hour"), PageviewsConfig())
    return [
        TITLE_CANDIDATES.run([hour.out], UPath(tmp_path / "titles"), PageviewsConfig(query=ONE_THREAD)).out,
        count_text(tmp_path, lines, 1, text).out,
        WORDNET_LEMMAS.run([UPath(tmp_path / "data.noun")], UPath(tmp_path / "lemmas"), WordnetConfig()).out,
    ]


def test_sources_are_merged_in_order_of_preference(tmp_path: Path) -> None:
    sources = all_sources(tmp_path)
    config = QueryListConfig(query=ONE_THREAD)
    result = QUERY_LIST.run(sources, UPath(tmp_path / "queries"), config)
    rows = pq.read_table(result.out / QUERIES_FILE).to_pylist()
    assert [row["query_id"] for row in rows] == list(range(len(rows)))
    assert {row["query"] for row in rows[:100]} == {str(number) for number in range(100)}
    assert [row["query"] for row in rows[100:]] == [
        "dog", "entity", "galore",  # wordnet
        "cat", "Saturn", "V",  # words, by count
        "Saturn V",  # bi-grams, by PMI
        "Zebra",  # titles, by views
    ]  # fmt: skip
    facts = {row["query"]: row for row in rows}
    assert facts["dog"] == {
        "query_id": 100, "query": "dog", "sources": ["wordnet", "unigram", "title"],
        "count": 9, "pmi": None, "views": 70,
    }  # fmt: skip
    assert facts["Saturn V"]["sources"] == ["bigram", "title"]
    assert facts["Saturn V"]["count"] == 3 and facts["Saturn V"]["views"] == 80
    assert result.counts.dropped == {"duplicate": 3}
    again = QUERY_LIST.run(list(reversed(sources)), UPath(tmp_path / "again"), config)
    assert (again.out / QUERIES_FILE).read_bytes() == (result.out / QUERIES_FILE).read_bytes()


def test_list_is_cut_per_source_and_in_all(tmp_path: Path) -> None:
    config = QueryListConfig(max_queries=4, max_unigrams=2, numbers=False, query=ONE_THREAD)
    result = QUERY_LIST.run(all_sources(tmp_path), UPath(tmp_path / "queries"), config)
    rows = pq.read_table(result.out / QUERIES_FILE).to_pylist()
    assert [row["query"] for row in rows] == ["dog", "entity", "galore", "cat"]
    assert result.counts.dropped == {"duplicate": 3, "over_limit": 3, "over_source_limit": 1}
    verdicts = pq.read_table(result.out / VERDICTS_FILE)
    assert verdicts.num_rows == result.counts.rows_in


def test_a_source_that_is_not_preferred_is_not_used(tmp_path: Path) -> None:
    config = QueryListConfig(preference=("title",), numbers=False, query=ONE_THREAD)
    result = QUERY_LIST.run(all_sources(tmp_path), UPath(tmp_path / "queries"), config)
    rows = pq.read_table(result.out / QUERIES_FILE).to_pylist()
    assert [(row["query"], row["sources"]) for row in rows] == [
        ("Zebra", ["title"]),
        ("Saturn V", ["title"]),
        ("dog", ["title"]),
    ]
    assert result.counts.dropped["source_not_used"] == 8
