"""Images that must not be kept, known by the hash of their bytes as they come over the network (download.block_hashes).

Lists of such hashes hold millions of entries, so they are sorted once and mapped into the memory that all processes share.
"""

from __future__ import annotations

import bisect
import hashlib
import mmap
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
from upath import UPath

from pipeline.block_entries import HASH_DIGITS
from pipeline.blocklists import BLOCK_LISTS, LISTS_FILE, BlockListsConfig, find_files, read_block_lists
from pipeline.query import QueryConfig
from pipeline.stage import Counts, Stage, is_local

DIGEST_BYTES = {algorithm: digits // 2 for digits, algorithm in HASH_DIGITS.items()}


def plan_hashes(patterns: Sequence[str], query: QueryConfig) -> BlockListsConfig:
    """The files of hashes, each read once for its checksum. Raises InputError if one is absent or is no text."""
    return BlockListsConfig(files=tuple(find_files("hashes", patterns)), query=query)


def _sort_hashes(sources: Sequence[UPath], out: Path, config: BlockListsConfig) -> Counts:
    """Write `md5.bin` and `sha256.bin`, the digests of the lists, sorted, without anything between them.

    Nothing of the lists' names is kept, so that a list may be moved without a new download.
    """
    with tempfile.TemporaryDirectory(dir=out, prefix="lists-") as folder:
        counts = read_block_lists(sources, Path(folder), config)
        files = {algorithm: (out / f"{algorithm}.bin").open("wb") for algorithm in DIGEST_BYTES}
        columns = ["key", "value", "drop_reason"]
        for batch in pq.ParquetFile(Path(folder) / LISTS_FILE).iter_batches(columns=columns):
            for row in batch.to_pylist():
                if row["drop_reason"] is None:
                    files[row["key"]].write(bytes.fromhex(row["value"]))
        for file in files.values():
            file.close()
    return counts


BLOCK_HASHES = Stage("block_hashes", _sort_hashes, sql=BLOCK_LISTS.sql)


def local_hashes(folder: UPath, scratch: Path) -> Path:
    """A folder of this machine with what BLOCK_HASHES wrote: `folder` itself, or a copy below `scratch`."""
    if is_local(folder):
        return Path(folder.path)
    copy = scratch / "block_hashes"
    copy.mkdir()
    for algorithm in DIGEST_BYTES:
        folder.fs.get_file((folder / f"{algorithm}.bin").path, str(copy / f"{algorithm}.bin"))
    return copy


class BlockedHashes:
    """What BLOCK_HASHES wrote, to be asked by any number of threads."""

    def __init__(self, folder: Path) -> None:
        self._digests = {algorithm: _map(folder / f"{algorithm}.bin") for algorithm in DIGEST_BYTES}

    def holds(self, body: bytes) -> bool:
        """Whether a hash of `body` is on a list."""
        return any(
            digests and _is_in(digests, hashlib.new(algorithm, body, usedforsecurity=False).digest())
            for algorithm, digests in self._digests.items()
        )


def _map(file: Path) -> mmap.mmap | bytes:
    with file.open("rb") as stream:
        # An empty file cannot be mapped.
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if file.stat().st_size else b""


def _is_in(digests: mmap.mmap | bytes, digest: bytes) -> bool:
    size = len(digest)
    count = len(digests) // size
    at = bisect.bisect_left(range(count), digest, key=lambda number: digests[number * size : (number + 1) * size])
    return at < count and digests[at * size : (at + 1) * size] == digest
