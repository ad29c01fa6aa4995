"""Which Wikipedia titles people look up: the hourly page view dumps, one file a part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from upath import UPath

from pipeline.queries.candidates import CANDIDATES_FILE, BatchWriter, LineReader
from pipeline.queries.config import PageviewsConfig
from pipeline.queries.given import entry_reason
from pipeline.query import query_rows, query_to_parquet
from pipeline.stage import Counts, Stage

HOURLY_FILE = "hourly_views.parquet"
HOURLY_SCHEMA = pa.schema([("title", pa.string()), ("views", pa.int64())])
MAX_LINE_BYTES = 10_000
MAX_TITLE_CHARS = 255  # MediaWiki's own bound, in bytes


def _hourly_views(sources: Sequence[UPath], out: Path, config: PageviewsConfig) -> Counts:
    """`sources` is one dump of lines `project title views bytes`; only the lines of our project are counted."""
    (path,) = sources
    rows, dropped = 0, Counter[str]()
    ours = f"{config.project} "
    lines = LineReader(path, MAX_LINE_BYTES)
    with BatchWriter(out / HOURLY_FILE, HOURLY_SCHEMA) as writer:
        for line, problem in lines:
            if line is not None and not line.startswith(ours):
                continue
            rows += 1
            title, views, reason = _parse("" if line is None else line, config)
            if problem or reason:
                dropped[problem or reason] += 1
            else:
                writer.append(title, views)
    rows += lines.is_cut
    dropped["unreadable_rest"] += lines.is_cut
    dropped = +dropped
    return Counts(rows_in=rows, rows_kept=rows - dropped.total(), dropped=dict(sorted(dropped.items())))


def _parse(line: str, config: PageviewsConfig) -> tuple[str, int, str]:
    """(title, views, reason to drop the line or "")."""
    fields = line.split(" ")
    if len(fields) != 4 or not fields[2].isdecimal():
        return "", 0, "malformed_line"
    title, views = " ".join(fields[1].replace("_", " ").split()), int(fields[2])
    if views < config.min_hourly_views:
        return title, views, "few_views"
    if ":" in title:
        return title, views, "colon_in_title"
    return title, views, entry_reason(title, MAX_TITLE_CHARS) or ""


def _title_candidates(sources: Sequence[UPath], out: Path, config: PageviewsConfig) -> Counts:
    """`sources` are all parts of HOURLY_VIEWS."""
    hourly = [part / HOURLY_FILE for part in sources]
    kept = query_to_parquet(
        "query_titles", out / CANDIDATES_FILE, config.query, hourly=hourly, min_views=config.min_views
    )
    (row,) = query_rows("query_title_rows", config.query, hourly=hourly)
    titles = row["titles"]
    return Counts(rows_in=titles, rows_kept=kept, dropped={"few_views": titles - kept} if titles > kept else {})


HOURLY_VIEWS = Stage("hourly_views", _hourly_views)
TITLE_CANDIDATES = Stage("title_candidates", _title_candidates, sql=("query_titles", "query_title_rows"))
