"""What each downloaded image looks like: one row per image of a part, each decoded once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from pipeline.download import OK, RESULTS_FILE
from pipeline.errors import InputError
from pipeline.parquet import read_parquet
from pipeline.perceptual import contrast, entropy_bits, perceptual_hash, read_colours
from pipeline.settings import Settings
from pipeline.stage import Counts, Stage

FACTS_FILE = "image_facts.parquet"
READ_COLUMNS = ("pair_id", "sha256", "width_px", "height_px", "stored_bytes", "tar", "image_offset")
# img2dataset stores each image as a JPEG that it has shrunk: what it looks like is that picture's, and format, animation and
# EXIF of the original are gone with it. sha256 is the one fact of the bytes as downloaded.
FACTS_SCHEMA = pa.schema(
    {
        "pair_id": pa.string(),
        "sha256": pa.string(),  # of the bytes as downloaded
        "width_px": pa.int32(),  # as stored, like the columns below
        "height_px": pa.int32(),
        "stored_bytes": pa.int64(),
        "contrast": pa.float64(),  # standard deviation of the colours; 0 is one colour
        "entropy_bits": pa.float64(),  # of the grey levels, 0 to 8
        "perceptual_hash": pa.int64(),  # 64 bits, signed; null without structure (pipeline/perceptual.py)
    }
)


def _image_facts(sources: Sequence[UPath], out: Path, config: Settings) -> Counts:
    """`sources` is one part of the downloads; `out` gets one row per image that it holds, in the order of pair_id."""
    (download,) = sources
    facts = sorted(_facts(download), key=lambda row: str(row["pair_id"]))
    pq.write_table(pa.Table.from_pylist(facts, schema=FACTS_SCHEMA), out / FACTS_FILE)
    return Counts(rows_in=len(facts), rows_kept=len(facts))


IMAGE_FACTS = Stage("image_facts", _image_facts)


def _facts(download: UPath) -> Iterator[dict[str, Any]]:
    results = read_parquet(download / RESULTS_FILE, [*READ_COLUMNS, "status"]).to_pylist()
    rows = [row for row in results if row["status"] == OK]
    for tar in sorted({row["tar"] for row in rows}):
        try:
            with (download / tar).open("rb") as file:
                in_tar = (row for row in rows if row["tar"] == tar)
                for row in sorted(in_tar, key=lambda row: int(row["image_offset"])):
                    file.seek(row["image_offset"])
                    yield _fact(row, file.read(row["stored_bytes"]), download / tar)
        except FileNotFoundError as error:
            raise InputError(f"{download / tar} is gone; delete {download} and run again") from error


def _fact(row: dict[str, Any], stored: bytes, tar: UPath) -> dict[str, Any]:
    try:
        colours_HW3 = read_colours(stored)
    except ValueError as error:
        raise InputError(
            f"{tar} at byte {row['image_offset']}: expected the JPEG of pair {row['pair_id']}, found {error}; "
            f"delete {tar.parent} and run again"
        ) from error
    kept = {name: row[name] for name in FACTS_SCHEMA.names if name in row}
    grey_HW = colours_HW3[..., 0]
    return {
        **kept,
        "contrast": contrast(colours_HW3),
        "entropy_bits": entropy_bits(grey_HW),
        "perceptual_hash": perceptual_hash(grey_HW),
    }
