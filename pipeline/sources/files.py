"""Files that a source reads, local, http(s):// or s3://: found, opened and identified, with errors that help."""

from __future__ import annotations

import hashlib
import lzma
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from shutil import copyfileobj
from typing import IO, Any

import fsspec
import pyarrow as pa
from upath import UPath

from pipeline.errors import InputError, UnreachableError

CHUNK_BYTES = 1 << 20
ABSENT_STATUSES = (404, 410)  # of HTTP
REMEDY = "it may be cut short or damaged, or not be of the format that its name tells; fetch or write it again"


def expand(pattern: str, field: str) -> list[str]:
    """The files that a path with `*` matches, sorted; the path itself without one. `field` is the setting it is of.

    Raises InputError if there is none, one is a folder of this machine, or the protocol is unknown or needs what is not
    installed.
    """
    filesystem, inner = _located(pattern, field)
    paths = [pattern]
    if "*" in pattern:
        with readable(pattern, field):
            found = sorted(filesystem.unstrip_protocol(path) for path in filesystem.glob(inner))
        if not found:
            raise InputError(f"{pattern}: matches no file; check {field}")
        paths = [path.removeprefix("file://") for path in found]
    for path in paths:
        if not is_remote(path) and UPath(path).is_dir():
            raise InputError(f"{path}: is a folder; name its files in {field}, such as '{path.rstrip('/')}/*'")
    return paths


def is_remote(path: str) -> bool:
    """Whether a path names no file of this machine."""
    return "://" in path and not path.startswith("file://")


def sha256_file(path: str, field: str) -> str:
    """The checksum of a file's bytes, which are read once."""
    digest = hashlib.sha256()
    with readable(path, field), _open(path, field) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def open_stream(path: str, field: str) -> Iterator[IO[bytes]]:
    """The file from its start, decompressed if its ending says that it is compressed (.gz .bz2 .xz .zst .zip).

    Reading may raise what the compression raises; put `readable` round it to have it explained.
    """
    with _open(path, field, compression="infer") as file:
        yield file


@contextmanager
def open_seekable(path: str, field: str) -> Iterator[IO[bytes]]:
    """The file as it is, to read and seek in; where a server gives no ranges it is copied to a temporary file first."""
    with _open(path, field) as file:
        if getattr(file, "size", 0) is not None:
            yield file
            return
        with tempfile.TemporaryFile() as copy:
            copyfileobj(file, copy, CHUNK_BYTES)
            copy.seek(0)
            yield copy


@contextmanager
def readable(path: str, field: str, remedy: str = REMEDY) -> Iterator[None]:
    """Raise InputError with the file's name and a remedy where the block cannot open or read it.

    Nothing but reading belongs into the block: an error of writing would be taken for one of the file.
    """
    try:
        yield
    except FileNotFoundError as error:
        # fsspec says so of a server that cannot be reached or refuses, too, and keeps what happened as the cause.
        cause = error.__cause__
        if cause is None or isinstance(cause, FileNotFoundError) or getattr(cause, "status", None) in ABSENT_STATUSES:
            raise InputError(f"{path}: no such file; check {field}") from error
        raise _unfetched(path, field, cause) from error
    except (IsADirectoryError, PermissionError) as error:
        raise InputError(f"{path}: {error}; name a file that may be read, check {field}") from error
    except ImportError as error:
        raise InputError(f"{path}: {error}; for s3:// install webimagetext[s3]") from error
    except (ConnectionError, TimeoutError) + _loaded(_NETWORK_ERRORS) as error:
        raise _unfetched(path, field, error) from error
    except UnicodeError as error:
        raise InputError(f"{path}: is no UTF-8 text: {error}; save it as UTF-8, check {field}") from error
    except _DAMAGE_ERRORS + _loaded(_ZSTD_ERRORS) as error:
        raise InputError(f"{path}: cannot be read: {error}; {remedy}, or check {field}") from error


_DAMAGE_ERRORS: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)
# Modules and errors that are no OSError, of libraries that fsspec loads when it needs them.
_NETWORK_ERRORS = {"aiohttp": "ClientError", "botocore.exceptions": "BotoCoreError"}
_ZSTD_ERRORS = dict.fromkeys(("compression.zstd", "backports.zstd", "zstandard"), "ZstdError")


def _loaded(errors: dict[str, str]) -> tuple[type[Exception], ...]:
    """Those of the errors whose module is loaded: no other can have been raised."""
    return tuple(getattr(sys.modules[module], name) for module, name in errors.items() if module in sys.modules)


def _unfetched(path: str, field: str, cause: BaseException) -> UnreachableError:
    return UnreachableError(f"{path}: cannot be fetched: {cause}; check the network, the credentials and {field}")


def _located(path: str, field: str) -> tuple[Any, str]:
    """The file system of a path, and the path in it."""
    with readable(path, field):
        try:
            filesystem, inner = fsspec.core.url_to_fs(path)
        except ValueError as error:  # a protocol that nobody knows
            raise InputError(f"{path}: {error}; check {field}") from error
    return filesystem, inner


def _open(path: str, field: str, compression: str | None = None) -> IO[bytes]:
    _located(path, field)
    with readable(path, field):
        file: IO[bytes] = fsspec.open(path, "rb", compression=compression).open()
    return file
