"""Tombstones: what a workspace was asked to take down, and which pairs of a data set that hits.

The table only grows, so what was once taken down stays out of every later build. It is applied where shards are packed: each
sample has a place of its own there, so that only the shards concerned change and nothing is downloaded again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from pipeline.block_entries import ListName
from pipeline.block_lines import LINES_SCHEMA, BlockFile, check_format, write_lines
from pipeline.curate import rows_of
from pipeline.errors import InputError
from pipeline.images import IMAGE_VERDICTS_FILE
from pipeline.query import QueryConfig, query_to_parquet
from pipeline.scratch import scratch_folder
from pipeline.selection import SELECTED_FILE
from pipeline.settings import Settings
from pipeline.sources.files import expand, sha256_file
from pipeline.sources.rows import TableWriter
from pipeline.stage import Counts, Stage, replace_file

TAKEN_DOWN_FILE = "taken_down.parquet"
TOMBSTONES_SCHEMA = pa.schema(
    {
        "list": pa.string(),
        "key": pa.string(),
        "value": pa.string(),
        "score": pa.float64(),
        "drop_reason": pa.string(),
    }
)


class TombstoneFile(BlockFile):
    """One file of a list, named at the command line."""

    @property
    def option(self) -> str:
        return f"--{self.name}"


def tombstone_files(lists: Mapping[ListName, Sequence[str]]) -> list[TombstoneFile]:
    """The files of the lists; `*` matches many. Raises InputError if one is absent or of a format that its list does not take."""
    files = []
    for name, patterns in lists.items():
        for path in dict.fromkeys(path for pattern in patterns for path in expand(pattern, f"--{name}")):
            check_format(name, path, f"--{name}")
            files.append(TombstoneFile(name=name, path=path, sha256=sha256_file(path, f"--{name}")))
    return files


def add_tombstones(files: Sequence[TombstoneFile], table: UPath, query: QueryConfig) -> int:
    """Add the entries of lists to the workspace's table, which is replaced as a whole. Returns how many are new.

    Raises InputError if a file cannot be read, or holds lines but no entry.
    """
    with scratch_folder("tombstones") as folder:
        lines, lists, none, merged = (Path(folder) / name for name in ("lines", "lists", "none", "merged"))
        with TableWriter(lines, LINES_SCHEMA) as writer:
            for file in files:
                write_lines(file, "", writer)
        query_to_parquet("block_lists", lists, query, lines=lines)
        pq.write_table(TOMBSTONES_SCHEMA.empty_table(), none)
        known = [table] if table.exists() else []
        rows = query_to_parquet("tombstones", merged, query, known=[none, *known], lists=lists)
        new = rows - sum(map(rows_of, known))
        if new:
            replace_file(merged, table)
        return new


class TakenDownConfig(Settings):
    """How the pairs to take down are found."""

    query: QueryConfig = QueryConfig()


def _taken_down(sources: Sequence[UPath], out: Path, config: TakenDownConfig) -> Counts:
    """`sources` is the folder of image verdicts, that of the selection and, where there is one, the table of tombstones."""
    verdicts, selected, *tables = sources
    with scratch_folder("taken-down") as folder:
        pairs, hits, none = (Path(folder) / name for name in ("pairs", "hits", "none"))
        pq.write_table(TOMBSTONES_SCHEMA.empty_table(), none)
        tombstones = tables[0] if tables else none
        query_to_parquet("takedown_pairs", pairs, config.query, selected=selected / SELECTED_FILE)
        unscored = {"min_score": None, "scores_required": False}
        query_to_parquet("blocked_pairs", hits, config.query, pairs=pairs, lists=tombstones, **unscored)
        gone = query_to_parquet(
            "taken_down",
            out / TAKEN_DOWN_FILE,
            config.query,
            pairs=pairs,
            hits=hits,
            tombstones=tombstones,
            verdicts=verdicts / IMAGE_VERDICTS_FILE,
        )
    rows = rows_of(verdicts / IMAGE_VERDICTS_FILE)
    if rows != (found := rows_of(selected / SELECTED_FILE)):
        raise InputError(
            f"{verdicts}: verdicts on {rows:,} pairs, but {found:,} are selected; build the data set again"
        )
    return Counts(rows_in=rows, rows_kept=rows - gone, dropped={"tombstone": gone} if gone else {})


TAKEN_DOWN = Stage("taken_down", _taken_down, sql=("takedown_pairs", "blocked_pairs", "taken_down"))
