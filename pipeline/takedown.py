"""Taking samples out of a finished folder of shards: only the tars concerned are written anew, all other bytes stay.

What comes out is, byte for byte, what the stage `shards` would pack from the same downloads and tombstones, and its marker says
so: the next build finds the work done. The new files are written into a scratch folder within the shards; once that is whole, and
says so, they are moved over the old ones. Killed before that, the old shards are whole; killed after it, there is no manifest, so
that nobody reads a mixture, and the next take-down goes on with the moves.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from shutil import copyfileobj
from typing import IO, Any

import pyarrow.parquet as pq
from upath import UPath

from pipeline.errors import InputError
from pipeline.images import IMAGE_VERDICTS_FILE, OVERLAP_FILE
from pipeline.parquet import read_parquet
from pipeline.query import QueryConfig, query_rows, query_to_parquet
from pipeline.scratch import scratch_folder
from pipeline.shards import MANIFEST_FILE, SAMPLES_FILE, SHARDS, write_manifest, write_overlap
from pipeline.stage import (
    MARKER,
    Counts,
    changed_record,
    describe_files,
    input_digest,
    is_local,
    read_record,
)
from pipeline.tars import ShardWriter
from pipeline.tombstones import TAKEN_DOWN, TAKEN_DOWN_FILE

SCRATCH = ".takedown"
READY = "ready"  # in the scratch folder: all of it is there
CHUNK_BYTES = 1 << 20
VERDICTS_INPUT, TAKEN_DOWN_INPUT = "0", "1"  # of the stage `shards`, by its sources
BUILD_AGAIN = "run wit build-dataset, which leaves out what was taken down"

Row = dict[str, Any]


@dataclass(frozen=True)
class TakenDown:
    """What a take-down changed."""

    samples: int
    shards: int


def take_down(shards: UPath, verdicts: UPath, taken_down: UPath, query: QueryConfig) -> TakenDown:
    """Take pairs out of the shards. `verdicts` and `taken_down` are the folders of IMAGE_VERDICTS and TAKEN_DOWN.

    Raises InputError if there are no finished shards, if they were packed from other verdicts or in another way than now, or
    if a tar is not as the manifest says.
    """
    finish(shards)
    record = read_record(shards)
    if record is None:
        raise InputError(f"{shards}: no finished shards to take anything out of; {BUILD_AGAIN}")
    if record.version != SHARDS.version or record.inputs[VERDICTS_INPUT] != input_digest(verdicts):
        raise InputError(f"{shards}: packed from other image verdicts, or by another version; {BUILD_AGAIN}")
    inputs = record.inputs | {TAKEN_DOWN_INPUT: input_digest(taken_down)}
    if inputs == record.inputs:
        return TakenDown(0, 0)
    tables = {"verdicts": verdicts / IMAGE_VERDICTS_FILE, "taken_down": taken_down / TAKEN_DOWN_FILE}
    (wanted,) = query_rows("taken_down_samples", query, **tables)
    with _scratch(shards) as scratch:
        done = _rewrite(shards, verdicts, taken_down, scratch, query)
        rows_in, rows_kept = record.counts.rows_in, record.counts.rows_kept - done.samples
        gone = rows_in - rows_kept
        if gone != wanted["samples"]:
            raise InputError(f"{shards}: lacks samples that no tombstone speaks of any more; {BUILD_AGAIN}")
        counts = Counts(rows_in=rows_in, rows_kept=rows_kept, dropped={TAKEN_DOWN.name: gone} if gone else {})
        record = changed_record(record, inputs, counts, record.outputs | describe_files(scratch))
        (scratch / MARKER).write_text(record.model_dump_json(indent=2))
    finish(shards)
    return done


def finish(shards: UPath) -> None:
    """Move what a take-down has ready over the old files, manifest and marker last; one that was not ready is forgotten."""
    scratch = shards / SCRATCH
    if (scratch / READY).exists():
        for name in (MARKER, MANIFEST_FILE):
            if (scratch / name).exists():
                (shards / name).unlink(missing_ok=True)
        for name in sorted(
            _names_below(scratch) - {READY}, key=lambda name: (name == MARKER, name == MANIFEST_FILE, name)
        ):
            scratch.fs.mv((scratch / name).path, (shards / name).path)
        (scratch / READY).unlink()
    if scratch.exists():
        scratch.fs.rm(scratch.path, recursive=True)


def _names_below(folder: UPath) -> set[str]:
    root = folder.path.rstrip("/") + "/"
    return {path.removeprefix(root) for path in folder.fs.find(folder.path)}


@contextmanager
def _scratch(shards: UPath) -> Iterator[Path]:
    """A local folder; after the block its files lie in the scratch folder of the shards, which says that it is ready."""
    target = shards / SCRATCH
    if is_local(shards):
        local = Path(target.path)
        local.mkdir()
        yield local
    else:
        with scratch_folder("takedown") as folder:
            local = Path(folder)
            yield local
            for name in describe_files(local):
                target.fs.put_file(str(local / name), (target / name).path)
    (target / READY).write_bytes(b"")


def _rewrite(shards: UPath, verdicts: UPath, taken_down: UPath, scratch: Path, query: QueryConfig) -> TakenDown:
    """Write the changed files below `scratch`."""
    manifest = json.loads((shards / MANIFEST_FILE).read_bytes())
    splits: dict[str, list[Row]] = {split: entry["shards"] for split, entry in manifest["splits"].items()}
    gone = taken_down / TAKEN_DOWN_FILE
    done = TakenDown(0, 0)
    for split, entries in splits.items():
        samples, leaving = shards / split / SAMPLES_FILE, scratch / ".leaving.parquet"
        query_to_parquet("leaving_samples", leaving, query, samples=samples, taken_down=gone)
        (scratch / split).mkdir()
        places = {entry["file"]: place for place, entry in enumerate(entries)}
        for file, keys in _keys_by_shard(leaving):
            entries[places[file]] = _without(shards, entries[places[file]], keys, scratch)
            done = TakenDown(done.samples + len(keys), done.shards + 1)
        query_to_parquet("remaining_samples", scratch / split / SAMPLES_FILE, query, samples=samples, taken_down=gone)
        leaving.unlink()
    if not any(shard["samples"] for shard in splits["train"]):
        raise InputError(f"{shards}: no sample would be left to train on; delete the folder instead")
    write_overlap(scratch / OVERLAP_FILE, verdicts, taken_down, query)
    write_manifest(scratch, manifest, splits, manifest["taken_down"] + done.samples)
    return done


def _keys_by_shard(leaving: Path) -> Iterator[tuple[str, set[str]]]:
    rows = itertools.chain.from_iterable(batch.to_pylist() for batch in pq.ParquetFile(leaving).iter_batches())
    for file, group in itertools.groupby(rows, key=itemgetter("shard")):
        yield file, {row["key"] for row in group}


def _without(shards: UPath, entry: Row, keys: set[str], scratch: Path) -> Row:
    """Write a shard without some of its samples. Returns the manifest's entry of it."""
    places = read_parquet(shards / entry["index"]).to_pylist()
    with _checked(shards, entry) as tar, ShardWriter(scratch, entry["file"]) as shard:
        for place in places:
            if place["key"] not in keys:
                image, text, extra = (_member(tar, place, name) for name in ("image", "text", "json"))
                shard.add(place["key"], image, text, extra)
    return shard.entry


def _member(tar: IO[bytes], place: Row, name: str) -> bytes:
    tar.seek(place[f"{name}_offset"])
    return tar.read(place[f"{name}_size"])


@contextmanager
def _checked(shards: UPath, entry: Row) -> Iterator[IO[bytes]]:
    """The tar of a shard, as a local file. Raises InputError if it is not as the manifest says: a copy would hide that."""
    with ExitStack() as stack:
        tar: IO[bytes] = stack.enter_context((shards / entry["file"]).open("rb"))
        if not is_local(shards):
            copy = stack.enter_context(tempfile.TemporaryFile())
            copyfileobj(tar, copy, CHUNK_BYTES)
            copy.seek(0)
            tar = copy
        if _sha256(tar) != entry["sha256"]:
            raise InputError(
                f"{shards / entry['file']}: its checksum is not that of the manifest; look with wit verify, then delete {shards} "
                "and run wit build-dataset"
            )
        yield tar


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()
