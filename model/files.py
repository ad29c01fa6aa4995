"""Files that are whole or absent, and what a person is told when a disk is full."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from model.errors import InputError


def write_text(path: Path, text: str) -> None:
    """Write a file that is either whole or absent, and the folders it lies in. Raises InputError if it cannot be written."""
    partial = path.with_name(f".{path.name}.partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        to_disk(partial)
        partial.replace(path)


def to_disk(path: Path) -> None:
    """A rename must not overtake the bytes it names when the power fails."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def sha256_file(path: Path) -> str:
    """The digest of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise InputError where what is done inside cannot write; `path` is the file or folder that a person is told."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        # safetensors tells in words alone what the system said; there it is nearly always a full disk.
        is_full = not isinstance(error, OSError) or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None)
        remedy = "free space there" if is_full else "make that a place to write to, or name another"
        raise InputError(
            f"{path}: cannot be written ({error}); {remedy}, then run the same command to go on"
        ) from error
