"""Selected parts and their downloads, written by hand: what the stages after the download read."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from pipeline.image_facts import FACTS_SCHEMA
from pipeline.settings import Settings
from pipeline.stage import Counts, Stage
from pipeline.tombstones import TAKEN_DOWN, TakenDownConfig

SELECTED_SCHEMA = pa.schema(
    {name: pa.string() for name in ("pair_id", "url", "url_norm", "host", "caption", "page_url", "text_key", "source")}
)
RESULTS_SCHEMA = pa.schema(
    {
        "pair_id": pa.string(),
        "status": pa.string(),
        "error": pa.string(),
        "width_px": pa.int32(),
        "height_px": pa.int32(),
        "original_width_px": pa.int32(),
        "original_height_px": pa.int32(),
        "original_bytes": pa.int64(),
        "original_format": pa.string(),
        "file_opt_out": pa.string(),
        "sha256": pa.string(),
        "tar": pa.string(),
        "key": pa.string(),
        "image_offset": pa.int64(),
        "stored_bytes": pa.int64(),
    }
)


@dataclass(frozen=True)
class Pair:
    """A selected pair and what its download gave."""

    pair_id: str
    caption: str = "a caption"
    image: bytes = b""
    original: str | bytes = ""
    """The original bytes, or a word that stands for them: pairs with the same are the same image; empty = one of its own."""
    status: str = "ok"
    error: str | None = None
    size_px: tuple[int, int] = (100, 100)
    original_size_px: tuple[int, int] = (200, 200)
    original_bytes: int = 10_000
    original_format: str = "jpeg"
    file_opt_out: str | None = None
    stored_bytes: int = 1_000
    contrast: float = 50.0
    looks: int | str | None = ""
    """Perceptual hash; "" = one of its own."""
    host: str = "a.example"

    @property
    def url(self) -> str:
        return f"http://{self.host}/{self.pair_id}.jpg"

    @property
    def sha256(self) -> str:
        original = self.original or self.pair_id
        return hashlib.sha256(original if isinstance(original, bytes) else original.encode()).hexdigest()

    @property
    def perceptual_hash(self) -> int | None:
        if isinstance(self.looks, str):
            return int.from_bytes(bytes.fromhex(self.sha256)[:8], "big", signed=True)
        return self.looks


def finished(folder: Path, files: dict[str, pa.Table | bytes]) -> UPath:
    """A folder of a finished stage that holds `files`."""

    def work(_: Sequence[UPath], out: Path, __: Settings) -> Counts:
        for name, content in files.items():
            if isinstance(content, bytes):
                (out / name).write_bytes(content)
            else:
                pq.write_table(content, out / name)
        return Counts(rows_in=0, rows_kept=0)

    return Stage(folder.name, work).run([], UPath(folder), Settings()).out


def write_part(root: Path, number: int, pairs: Sequence[Pair], tar_order: int = 1) -> tuple[UPath, UPath]:
    """The selected part and the download of `pairs`; `tar_order` -1 packs the tar in the other order."""
    ordered = sorted(pairs, key=lambda pair: pair.pair_id)
    selected = [
        {
            "pair_id": pair.pair_id,
            "url": pair.url,
            "url_norm": pair.url,
            "host": pair.host,
            "caption": pair.caption,
            "page_url": "http://a.example/",
            "text_key": "alt",
            "source": "a.example",
        }
        for pair in ordered
    ]
    tar, places = _write_tar([pair for pair in ordered if pair.image][::tar_order])
    results = [_result(pair, str(row), places.get(pair.pair_id)) for row, pair in enumerate(ordered)]
    part = f"part-{number:05d}"
    return (
        finished(
            root / "selected" / part,
            {"selected.parquet": pa.Table.from_pylist(selected, schema=SELECTED_SCHEMA)},
        ),
        finished(
            root / "downloads" / part,
            {"00000.tar": tar, "results.parquet": pa.Table.from_pylist(results, schema=RESULTS_SCHEMA)},
        ),
    )


def write_facts(root: Path, number: int, pairs: Sequence[Pair]) -> UPath:
    """What the images of `pairs` look like, as they say of themselves."""
    rows = [
        {
            "pair_id": pair.pair_id,
            "sha256": pair.sha256,
            "width_px": pair.size_px[0],
            "height_px": pair.size_px[1],
            "stored_bytes": len(pair.image) or pair.stored_bytes,
            "contrast": pair.contrast,
            "entropy_bits": 5.0,
            "perceptual_hash": pair.perceptual_hash,
        }
        for pair in sorted(pairs, key=lambda pair: pair.pair_id)
        if pair.status == "ok"
    ]
    table = pa.Table.from_pylist(rows, schema=FACTS_SCHEMA)
    return finished(root / "image_facts" / f"part-{number:05d}", {"image_facts.parquet": table})


def write_taken_down(root: Path, verdicts: UPath, selected: Sequence[UPath], tombstones: Sequence[UPath] = ()) -> UPath:
    """What the tombstones hit of the selected parts; the whole selection is written beside it."""
    tables = [pq.read_table(part / "selected.parquet") for part in selected]
    whole = finished(root / "selection", {"selected.parquet": pa.concat_tables(tables).sort_by("pair_id")})
    return TAKEN_DOWN.run([verdicts, whole, *tombstones], UPath(root / "taken_down"), TakenDownConfig()).out


def _result(pair: Pair, key: str, image_offset: int | None) -> dict[str, Any]:
    if pair.status != "ok":
        return {"pair_id": pair.pair_id, "status": pair.status, "error": pair.error, "key": key}
    return {
        "pair_id": pair.pair_id,
        "status": "ok",
        "width_px": pair.size_px[0],
        "height_px": pair.size_px[1],
        "original_width_px": pair.original_size_px[0],
        "original_height_px": pair.original_size_px[1],
        "original_bytes": pair.original_bytes,
        "original_format": pair.original_format,
        "file_opt_out": pair.file_opt_out,
        "sha256": pair.sha256,
        "tar": "00000.tar",
        "key": key,
        "image_offset": image_offset,
        "stored_bytes": len(pair.image) or pair.stored_bytes,
    }


def _write_tar(pairs: Sequence[Pair]) -> tuple[bytes, dict[str, int]]:
    buffer = io.BytesIO()
    places = {}
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for pair in pairs:
            member = tarfile.TarInfo(f"{pair.pair_id}.jpg")
            member.size = len(pair.image)
            places[pair.pair_id] = tar.offset + tarfile.BLOCKSIZE
            tar.addfile(member, io.BytesIO(pair.image))
    return buffer.getvalue(), places
