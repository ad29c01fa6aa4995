"""A part of a source that could not be read: no rows, one loss that is counted.

It lies where the part's rows would, under another name of stage: the next run finds the part not done and tries it again,
and as long as it fails with the same words, what follows stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field
from upath import UPath

from pipeline.settings import Settings
from pipeline.sources.rows import RowsWriter
from pipeline.stage import Counts, Stage

REASON = "failed_part"


class FailedPart(Settings):
    """Why a part is empty."""

    error: str = Field(description="What reading it said")


def _write_nothing(sources: Sequence[UPath], out: Path, part: FailedPart) -> Counts:
    with RowsWriter(out, source=""):
        pass
    return Counts(rows_in=1, rows_kept=0, dropped={REASON: 1})


FAILED_PART = Stage("failed_part", _write_nothing)
