"""Files that a source reads, local, http(s):// or s3://: found, opened and identified, with errors that help."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from shutil import copyfileobj
from typing import IO

import fsspec

from pipeline.errors import InputError

CHUNK_BYTES = 1 << 20


def expand(pattern: str, field: str) -> list[str]:
    """The files that a path with `*` matches, sorted; the path itself without one. `field` is the setting it is of."""
    if "*" not in pattern:
        return [pattern]
    with _readable(pattern, field):
        filesystem, inner = fsspec.core.url_to_fs(pattern)
        found = sorted(filesystem.unstrip_protocol(path) for path in filesystem.glob(inner))
    if not found:
        raise InputError(f"{pattern}: matches no file; check {field}")
    return [path.removeprefix("file://") for path in found]


def is_remote(path: str) -> bool:
    """Whether a path names no file of this machine."""
    return "://" in path and not path.startswith("file://")


def sha256_file(path: str, field: str) -> str:
    """The checksum of a file's bytes, which are read once."""
    digest = hashlib.sha256()
    with _readable(path, field), fsspec.open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def open_stream(path: str, field: str) -> Iterator[IO[bytes]]:
    """The file from its start, decompressed if its ending says that it is compressed (.gz .bz2 .xz .zst .zip)."""
    with _readable(path, field):
        opened = fsspec.open(path, "rb", compression="infer")
        file = opened.open()
    with file:
        yield file


@contextmanager
def open_seekable(path: str, field: str) -> Iterator[IO[bytes]]:
    """The file as it is, to read and seek in; where a server gives no ranges it is copied to a temporary file first."""
    with _readable(path, field):
        file = fsspec.open(path, "rb").open()
    with file:
        if getattr(file, "size", 0) is not None:
            yield file
            return
        with tempfile.TemporaryFile() as copy:
            copyfileobj(file, copy, CHUNK_BYTES)
            copy.seek(0)
            yield copy


@contextmanager
def _readable(path: str, field: str) -> Iterator[None]:
    """Say what a person can do where a file cannot be opened."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise InputError(f"{path}: {reason}; check {field}") from error
    except ImportError as error:
        raise InputError(f"{path}: {error}; for s3:// install webimagetext[s3]") from error
    except ValueError as error:  # a protocol that nobody knows
        raise InputError(f"{path}: {error}; check {field}") from error
