"""The contract between the download of a part and the process that fetches for it, whichever backend that is."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from pipeline.config import DownloadConfig

# Of the Parquet files that it writes beside its tars, one row per request; img2dataset's have more columns.
FETCHED_SCHEMA = pa.schema(
    {
        "pair_id": pa.string(),
        "key": pa.string(),
        "status": pa.string(),
        "error_message": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "original_width": pa.int32(),
        "original_height": pa.int32(),
        "sha256": pa.string(),
    }
)


class FetchSpec(BaseModel):
    """What one process is asked to do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: Path  # Parquet with the columns url and pair_id
    rows: int
    out: Path  # a folder that does not exist yet
    config: DownloadConfig
    block_hashes: Path | None = None  # what the stage BLOCK_HASHES wrote
    cache: Path  # of the native backend: a file, which may hold outcomes of an earlier try
    parent_pid: int
    ends_at: float  # on the monotonic clock, which all processes share: when this one is killed
