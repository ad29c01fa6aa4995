"""Samples of remote shards, kept on a local disk that all processes of a machine share.

For each tar there is a file of holes, named by the tar's sha256, into which samples are written at their place as they are
fetched. Samples are read in random order, so a whole tar would be fetched for one sample of it, and a run would begin with
nothing but fetching. Each sample has a checksum in the shard's index: a hole, a write that was cut off, a damaged
disk all fail it, and the sample is fetched again. So writers need no lock: whoever writes, writes the same bytes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from model.errors import InputError

BLOCK_BYTES = 512  # the unit of st_blocks
UNCHECKED_SHARE = 1 / 64
"""How much of the bound a process writes before it looks at all again: below what eviction leaves free, for eight processes."""
FILLED_SHARE = 7 / 8
"""What eviction leaves of the bound."""


class CacheError(InputError):
    """The folder of the cache cannot be used."""


class SampleCache:
    """At most `limit_bytes` on disk below `folder`; tars that were not read for the longest time go first.

    Raises CacheError if the folder cannot be written.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self._unchecked_bytes = 0
        self._counting = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._evict()
        except OSError as error:
            raise self._unusable(error) from error

    def read(
        self, tar_sha256: str, start: int, size: int, is_whole: Callable[[bytes], bool], fetch: Callable[[], bytes]
    ) -> bytes:
        """Bytes [start, start + size) of a tar: from the disk if they are there and `is_whole`, else as `fetch` brings them,
        which are kept if they are whole. May be called from many threads.
        """
        path = self.folder / f"{tar_sha256}.tar"
        try:
            kept = _read(path, start, size)
        except OSError as error:
            raise self._unusable(error) from error
        if is_whole(kept):
            return kept
        fetched = fetch()
        if is_whole(fetched):
            try:
                self._keep(path, start, fetched)
            except OSError as error:
                raise self._unusable(error) from error
        return fetched

    def _keep(self, path: Path, start: int, data: bytes) -> None:
        file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(file, data, start)
        finally:
            os.close(file)
        with self._counting:
            self._unchecked_bytes += len(data)
            is_due = self._unchecked_bytes > self.limit_bytes * UNCHECKED_SHARE
            if is_due:
                self._unchecked_bytes = 0
        if is_due:
            self._evict()

    def _evict(self) -> None:
        with FileLock(self.folder / ".evicting.lock"):
            found = [(path.stat(), path) for path in self.folder.glob("*.tar")]
            used = sum(stat.st_blocks for stat, _ in found) * BLOCK_BYTES
            if used <= self.limit_bytes * FILLED_SHARE:
                return
            for stat, path in sorted(found, key=lambda entry: entry[0].st_mtime_ns):
                path.unlink()
                used -= stat.st_blocks * BLOCK_BYTES
                if used <= self.limit_bytes * FILLED_SHARE:
                    return

    def _unusable(self, error: OSError) -> CacheError:
        return CacheError(
            f"data.cache_folder {self.folder}: cannot be used ({error}); free space there, lower data.cache_gb, or name another "
            "folder"
        )


def _read(path: Path, start: int, size: int) -> bytes:
    """What the file has there, nothing if there is no file; it counts as read now."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return b""
    try:
        os.utime(file)
        return os.pread(file, size, start)
    finally:
        os.close(file)
