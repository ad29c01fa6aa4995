"""A query list that is simply given, and the rules by which a line is a query."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from upath import UPath

from pipeline.queries.candidates import CANDIDATES_FILE, CANDIDATES_SCHEMA, BatchWriter, LineReader
from pipeline.queries.config import GivenConfig, Source
from pipeline.stage import Counts, Stage

MOST_BYTES_PER_CHAR = 4


def entry_reason(entry: str, max_chars: int) -> str | None:
    """Why `entry`, stripped of blanks at its ends, cannot be a query; None if it can."""
    if not entry:
        return "empty"
    if len(entry) > max_chars:
        return "long_line"
    if not any(unicodedata.category(character)[0] in "LN" for character in entry):
        return "no_letter_or_digit"
    return None


def write_entries(
    paths: Sequence[UPath], out: Path, source: Source, max_chars: int, of: Callable[[str], str] = str
) -> Counts:
    """Write the lines of `paths`, each through `of`, as candidates of `source` into the folder `out`."""
    rows, dropped = 0, Counter[str]()
    with BatchWriter(out / CANDIDATES_FILE, CANDIDATES_SCHEMA) as writer:
        for path in paths:
            lines = LineReader(path, max_chars * MOST_BYTES_PER_CHAR)
            for line, problem in lines:
                entry = "" if line is None else " ".join(of(line).split())
                reason = problem or entry_reason(entry, max_chars)
                rows += 1
                if reason:
                    dropped[reason] += 1
                else:
                    writer.append(entry, source, None, None, None)
            rows += lines.is_cut
            dropped["unreadable_rest"] += lines.is_cut
    dropped = +dropped
    return Counts(rows_in=rows, rows_kept=rows - dropped.total(), dropped=dict(sorted(dropped.items())))


def _given_queries(sources: Sequence[UPath], out: Path, config: GivenConfig) -> Counts:
    """`sources` are text files, UTF-8, one query a line, packed or not."""
    return write_entries(sources, out, "given", config.max_chars, lambda line: line.removeprefix("\ufeff"))


GIVEN_QUERIES = Stage("given_queries", _given_queries)
