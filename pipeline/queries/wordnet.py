"""Lemmas of WordNet's synsets, from the dictionary files of Princeton and Debian (wndb(5WN)), or from any word list."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from upath import UPath

from pipeline.queries.candidates import CANDIDATES_FILE, CANDIDATES_SCHEMA, BatchWriter, LineReader
from pipeline.queries.config import WordnetConfig
from pipeline.queries.given import entry_reason, write_entries
from pipeline.stage import Counts, Stage, total

MAX_LINE_BYTES = 100_000  # the longest line of WordNet 3.1 has about 15,000
DICTIONARY_FILE = re.compile(
    r"(?:data|index)\.(?:noun|verb|adj|adv)(?:\.gz|\.bz2)?"
)  # index.sense, too, lies beside them
SYNTACTIC_MARKER = re.compile(r"\((?:a|p|ip)\)$")  # where an adjective may stand


def _wordnet_lemmas(sources: Sequence[UPath], out: Path, config: WordnetConfig) -> Counts:
    """`sources` are all `data.*` (or all `index.*`) files of a dictionary, else word lists, one entry a line."""
    data_files = [path for path in sources if DICTIONARY_FILE.fullmatch(path.name)]
    if not data_files:
        return write_entries(sources, out, "wordnet", config.max_chars)
    dropped, kept = Counter[str](), 0
    with BatchWriter(out / CANDIDATES_FILE, CANDIDATES_SCHEMA) as writer:
        for path in data_files:
            for lemma, problem in _lemmas(path, config):
                reason = problem or entry_reason(lemma, config.max_chars)
                if reason:
                    dropped[reason] += 1
                else:
                    writer.append(lemma, "wordnet", None, None, None)
                    kept += 1
    lemmas = Counts(rows_in=kept + dropped.total(), rows_kept=kept, dropped=dict(sorted(dropped.items())))
    others = [path for path in sources if path not in data_files]
    unread = Counts(rows_in=len(others), rows_kept=0, dropped={"not_a_dictionary_file": len(others)} if others else {})
    return total([lemmas, unread])


def _lemmas(path: UPath, config: WordnetConfig) -> Iterator[tuple[str, str]]:
    """(lemma, "") or ("", reason) for all lines but those of the licence, which begin with two blanks."""
    lines = LineReader(path, MAX_LINE_BYTES)
    lemmas_of = _index_lemmas if path.name.startswith("index.") else _synset_lemmas
    for line, problem in lines:
        if line is None:
            yield "", problem
        elif not line.startswith("  "):
            found = lemmas_of(line.split(" "))
            if not found:
                yield "", "malformed_line"
            for lemma in found[: 1 if config.lemmas == "first" else None]:
                yield lemma, ""
    if lines.is_cut:
        yield "", "unreadable_rest"


def _index_lemmas(fields: list[str]) -> list[str]:
    """`lemma pos synset_cnt ...`"""
    return [_plain(fields[0])] if len(fields) > 3 and fields[0] else []


def _synset_lemmas(fields: list[str]) -> list[str]:
    """`synset_offset lex_filenum ss_type w_cnt word lex_id [word lex_id ...] p_cnt ...`; w_cnt is hexadecimal."""
    if len(fields) < 6 or not re.fullmatch("[0-9a-f]{2}", fields[3]):
        return []
    words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
    return [_plain(word) for word in words if word]


def _plain(word: str) -> str:
    # In lower case, as the names of synsets are: MetaCLIP found cased ones worse (appendix A.7).
    return " ".join(SYNTACTIC_MARKER.sub("", word).replace("_", " ").lower().split())


WORDNET_LEMMAS = Stage("wordnet_lemmas", _wordnet_lemmas)
