"""What the query list is made of: the thresholds of the CLIP paper and, where it gives none, of MetaCLIP."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.query import SPEED_ONLY, QueryConfig
from pipeline.settings import Settings

Source = Literal["given", "number", "wordnet", "unigram", "bigram", "title"]


class WikipediaConfig(Settings):
    """Text of an encyclopaedia, counted as words and pairs of neighbouring words."""

    max_word_chars: int = Field(50, ge=1, description="A longer run of letters is no word, in characters")
    max_page_chars: int = Field(5_000_000, ge=1_000, description="A longer page is dropped, in characters of wikitext")
    min_unigram_count: int = Field(
        100,
        ge=1,
        description="Fewest occurrences of a word that is a query (CLIP 2.2: at least 100 in English Wikipedia)",
    )
    min_bigram_pmi: float = Field(
        30.0,
        description="Least pointwise mutual information of a bi-gram that is a query, in bits (MetaCLIP: 30). It cannot "
        "exceed log2 of the words counted, so a text of less than 2^30 words needs a smaller one",
    )
    min_bigram_count: int = Field(1, ge=1, description="Fewest occurrences of a bi-gram that is a query (MetaCLIP: 1)")
    query: QueryConfig = Field(QueryConfig(), description="Bounds of one statement", json_schema_extra=SPEED_ONLY)


class PageviewsConfig(Settings):
    """Which article titles people look up, from the hourly dumps `pageviews-YYYYMMDD-HH0000.gz`."""

    project: str = Field(
        "en", min_length=1, description="First column of the lines that count (en = English Wikipedia)"
    )
    min_hourly_views: int = Field(
        50, ge=1, description="Smaller counts of one hour are dropped, in views (MetaCLIP: 50)"
    )
    min_views: int = Field(
        70, ge=1, description="Fewest views over all files of a title that is a query (MetaCLIP: 70)"
    )
    query: QueryConfig = Field(QueryConfig(), description="Bounds of one statement", json_schema_extra=SPEED_ONLY)


class WordnetConfig(Settings):
    """Lemmas of a WordNet dictionary (`data.noun` ..., `index.noun` ...) or the lines of a word list."""

    lemmas: Literal["first", "all"] = Field(
        "first", description="Of each synset of a data file the first lemma (MetaCLIP) or all of them"
    )
    max_chars: int = Field(200, ge=1, description="A longer entry is dropped, in characters")


class GivenConfig(Settings):
    """A query list that somebody wrote: a text file, one query a line."""

    max_chars: int = Field(200, ge=1, description="A longer query is dropped, in characters")


class QueryListConfig(Settings):
    """How the sources become one list. A query of several sources belongs to the first in `preference`."""

    max_queries: int = Field(500_000, ge=1, description="Queries of the list at most (CLIP 2.2: 500,000)")
    preference: tuple[Source, ...] = Field(
        ("given", "number", "wordnet", "unigram", "bigram", "title"),
        description="Sources in the order in which they fill the list (MetaCLIP adds WordNet, words, bi-grams, titles)",
    )
    max_unigrams: int = Field(
        251_465, ge=0, description="Words at most, the most frequent (MetaCLIP, Table 1: 251,465)"
    )
    max_bigrams: int = Field(100_646, ge=0, description="Bi-grams at most, of highest PMI (MetaCLIP, Table 1: 100,646)")
    max_titles: int = Field(61_235, ge=0, description="Titles at most, the most viewed (MetaCLIP, Table 1: 61,235)")
    numbers: bool = Field(True, description='Add "0" to "99", as MetaCLIP\'s code does')
    query: QueryConfig = Field(QueryConfig(), description="Bounds of one statement", json_schema_extra=SPEED_ONLY)


class BuildQueriesConfig(Settings):
    """A query list and where it comes from; any of the sources will do, the paper's list wants all but the given one."""

    name: str = Field(
        "clip", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the query list and of its folder"
    )
    given_paths: tuple[str, ...] = Field(
        (), description="Lists that somebody wrote, one query a line; local, http(s):// or s3://, * matches many"
    )
    wordnet_paths: tuple[str, ...] = Field(
        (), description="WordNet's data.noun, data.verb, data.adj and data.adv (or its index files), or word lists"
    )
    wikipedia_paths: tuple[str, ...] = Field(
        (), description="Dumps, *-pages-articles.xml.bz2, or text files, one article or paragraph a line"
    )
    pageviews_paths: tuple[str, ...] = Field(
        (), description="Hourly counts, pageviews-YYYYMMDD-HH0000.gz (MetaCLIP: those of 25 days of 2018-2022)"
    )
    given: GivenConfig = GivenConfig()
    wordnet: WordnetConfig = WordnetConfig()
    wikipedia: WikipediaConfig = WikipediaConfig()
    pageviews: PageviewsConfig = PageviewsConfig()
    query_list: QueryListConfig = QueryListConfig()
