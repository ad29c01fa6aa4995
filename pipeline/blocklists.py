"""Block lists: what must not be in a data set, whatever its rules say. Hosts, addresses, words, take-downs and scores.

`block_lists` reads the lists a person gives and brings them into one table and one form; `blocked` says of each part of pairs
which rows they hit. Whoever takes a pair down gives its pair_id or its URL, and every later build leaves it out.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from upath import UPath

from pipeline.block_entries import ListName
from pipeline.block_lines import LINES_SCHEMA, BlockFile, check_format, option_of, write_lines
from pipeline.query import QueryConfig, query_rows, query_to_parquet
from pipeline.settings import Settings
from pipeline.sources.files import expand, sha256_file
from pipeline.sources.rows import TableWriter
from pipeline.stage import Counts, Stage

# The lists of BlockConfig; hashes are asked where the bytes are (pipeline/blocked_hashes.py).
LISTS: tuple[ListName, ...] = ("hosts", "urls", "words", "tombstones", "scores")
LISTS_FILE = "block_lists.parquet"
BLOCKED_FILE = "blocked.parquet"
PAIRS_FILE = "pairs.parquet"


class BlockConfig(Settings):
    """Lists of what must not be in the data set. Text lists hold one entry a line; # starts a comment."""

    hosts: tuple[str, ...] = Field(
        (), description="Text files of hosts whose images are left out, with all their subdomains; * matches many files"
    )
    urls: tuple[str, ...] = Field((), description="Text files of image URLs, compared in normal form")
    words: tuple[str, ...] = Field(
        (), description="Text files of words and phrases; a caption that holds one, in any case, is left out"
    )
    tombstones: tuple[str, ...] = Field(
        (),
        description="Pairs to take down: pair_ids or image URLs (which outlast a new caption), as text, or as Parquet or CSV "
        "with a column pair_id or url",
    )
    scores: tuple[str, ...] = Field(
        (), description="Parquet files with a column pair_id or url and a score of the pair or the image"
    )
    score_column: str = Field("score", min_length=1, description="Column of the score; a higher one is better")
    min_score: float | None = Field(None, description="Least score kept; needed with scores")
    scores_required: bool = Field(False, description="Leave out pairs that no file of scores knows")

    @property
    def is_empty(self) -> bool:
        """Whether no list is given, so that there is nothing to do."""
        return not any(getattr(self, name) for name in LISTS)

    @model_validator(mode="after")
    def _scores_are_whole(self) -> Self:
        if self.scores and (self.min_score is None or not math.isfinite(self.min_score)):
            raise ValueError("scores are given without a bound; set min_score to the least score kept")
        if not self.scores and (self.min_score is not None or self.scores_required):
            raise ValueError("min_score or scores_required is set, but no file of scores is given; set scores")
        return self


class BlockListsConfig(Settings):
    """What the table of the block lists depends on."""

    files: tuple[BlockFile, ...]
    score_column: str = "score"
    query: QueryConfig


class BlockedConfig(Settings):
    """What the hits of the block lists depend on, beside the lists."""

    min_score: float | None
    scores_required: bool
    query: QueryConfig

    @classmethod
    def of(cls, block: BlockConfig, query: QueryConfig) -> Self:
        """The settings of the stage `blocked`."""
        return cls(min_score=block.min_score, scores_required=block.scores_required, query=query)


def plan(config: BlockConfig, query: QueryConfig) -> BlockListsConfig:
    """The files of all lists in order, each read once for its checksum.

    Raises InputError if one is absent or of a format that its list does not take.
    """
    files = []
    for name in LISTS:
        files += find_files(name, getattr(config, name))
    return BlockListsConfig(files=tuple(files), score_column=config.score_column, query=query)


def find_files(name: ListName, patterns: Sequence[str]) -> list[BlockFile]:
    """The files of one list in order, each read once for its checksum. Raises InputError as `plan` does."""
    option = option_of(name)
    files = []
    for path in dict.fromkeys(path for pattern in patterns for path in expand(pattern, option)):
        check_format(name, path, option)
        files.append(BlockFile(name=name, path=path, sha256=sha256_file(path, option)))
    return files


def read_block_lists(sources: Sequence[UPath], out: Path, config: BlockListsConfig) -> Counts:
    """Write `block_lists.parquet`: every line of the files, in normal form, with the reason why it is not in use, if so.

    `sources` is empty: the configuration names the files and holds their checksums.
    """
    with tempfile.TemporaryDirectory(dir=out, prefix="lines-") as folder:
        lines = Path(folder) / "lines.parquet"
        with TableWriter(lines, LINES_SCHEMA) as writer:
            for file in config.files:
                write_lines(file, config.score_column, writer)
        query_to_parquet("block_lists", out / LISTS_FILE, config.query, lines=lines)
    rows = {row["drop_reason"]: row["rows"] for row in query_rows("drop_counts", verdicts=out / LISTS_FILE)}
    kept = rows.pop(None, 0)
    return Counts(rows_in=kept + sum(rows.values()), rows_kept=kept, dropped=rows)


def find_blocked(sources: Sequence[UPath], out: Path, config: BlockedConfig) -> Counts:
    """Write `blocked.parquet`, the rows of one part that a list hits. `sources` is the part of pairs, then the block lists."""
    part, lists = sources
    pairs, blocked = part / PAIRS_FILE, out / BLOCKED_FILE
    query_to_parquet(
        "blocked_pairs",
        blocked,
        config.query,
        pairs=pairs,
        lists=lists / LISTS_FILE,
        min_score=config.min_score,
        scores_required=config.scores_required,
    )
    rows = {row["block_reason"]: row["rows"] for row in query_rows("block_counts", pairs=pairs, blocked=blocked)}
    kept = rows.pop(None, 0)
    return Counts(rows_in=kept + sum(rows.values()), rows_kept=kept, dropped=rows)


BLOCK_LISTS = Stage("block_lists", read_block_lists, sql=("block_lists", "drop_counts"))
BLOCKED = Stage("blocked", find_blocked, sql=("blocked_pairs", "block_counts"))
