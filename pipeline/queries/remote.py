"""Remote source files, copied before they are read: a connection that breaks must never look like a file that ends."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import fsspec
from upath import UPath

from pipeline.errors import InputError
from pipeline.sources.files import is_remote

COPIES_AT_ONCE = 2  # dumps.wikimedia.org refuses more connections of one address
CONNECT_TIMEOUT_S = 30
READ_TIMEOUT_S = 120  # without a byte
NOT_FOUND_STATUS = (401, 403, 404, 410)

_copies = threading.BoundedSemaphore(COPIES_AT_ONCE)


def local_copy(path: str, cache: Path, field: str) -> UPath:
    """The file itself if it is local, else its copy below `cache`, of the name that the stages judge it by.

    It is fetched once per version, by size and ETag or date; anew each time from a server that tells neither. Raises InputError,
    which names `field`, if there is no such file.
    """
    if not is_remote(path):
        return UPath(path)
    with _copies:
        try:
            filesystem, inner = fsspec.core.url_to_fs(path, **_patience(path))
            details = filesystem.info(inner)
            version = _version(path, details)
            copy = cache / (version or hashlib.sha256(path.encode()).hexdigest()[:32]) / _name(path)
            if version is None or not copy.exists():
                _fetch(filesystem, inner, details.get("size"), copy)
        except FileNotFoundError as error:
            raise _not_found(path, field, error) from error
        except PermissionError as error:
            raise InputError(f"{path}: {error}; check {field} and your credentials") from error
        except ImportError as error:
            raise InputError(f"{path}: {error}; for http(s):// and s3:// install webimagetext[s3]") from error
        except ValueError as error:  # a protocol that nobody knows
            raise InputError(f"{path}: {error}; check {field}") from error
    return UPath(copy)


def _patience(path: str) -> dict[str, Any]:
    """Options of a connection that may take hours as long as bytes come; aiohttp's own default is five minutes in all."""
    if not path.startswith(("http://", "https://")):
        return {}
    from aiohttp import ClientTimeout  # there if fsspec speaks HTTP

    timeout = ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S)
    return {"client_kwargs": {"timeout": timeout}}


def _version(path: str, details: dict[str, Any]) -> str | None:
    """Digest of what the server says of the file's content; None if it says nothing of use."""
    marks = [str(details[key]) for key in ("ETag", "Last-Modified", "LastModified") if details.get(key)]
    if not marks:
        return None
    return hashlib.sha256("\n".join([path, str(details.get("size")), *marks]).encode()).hexdigest()[:32]


def _name(path: str) -> str:
    return PurePosixPath(urlsplit(path).path).name or "file"


def _fetch(filesystem: Any, inner: str, size: int | None, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=copy.parent, prefix=".partial-") as scratch:
        partial = Path(scratch) / copy.name
        filesystem.get_file(inner, str(partial))
        fetched = partial.stat().st_size
        if size is not None and fetched != size:
            raise OSError(f"{inner}: {fetched:,} of {size:,} bytes came; the connection broke")
        partial.replace(copy)


def _not_found(path: str, field: str, error: FileNotFoundError) -> Exception:
    """fsspec says `not found` of everything that ails a server; what may pass is no person's mistake."""
    cause = error.__cause__
    status = getattr(cause, "status", None)
    if status is not None and status not in NOT_FOUND_STATUS:
        return OSError(f"{path}: {cause}")
    return InputError(f"{path}: {cause or 'no such file'}; check {field}")
