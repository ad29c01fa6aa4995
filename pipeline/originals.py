"""What is noted of an image as it came over the network: the downloader stores it in another size and format."""

from __future__ import annotations

import hashlib
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import pyarrow as pa

from pipeline.file_opt_out import file_opt_out

ORIGINALS_SCHEMA = pa.schema(
    {"sha256": pa.string(), "original_bytes": pa.int64(), "original_format": pa.string(), "file_opt_out": pa.string()}
)
FILES = "originals-*.txt"
UNKNOWN = "unknown"
NONE = "-"  # in a line
# First bytes of a file, and where they stand.
_FORMATS = (
    ("jpeg", 0, b"\xff\xd8\xff"),
    ("png", 0, b"\x89PNG\r\n\x1a\n"),
    ("gif", 0, b"GIF8"),
    ("webp", 8, b"WEBP"),
    ("avif", 4, b"ftypavif"),
    ("bmp", 0, b"BM"),
    ("tiff", 0, b"II*\0"),
    ("tiff", 0, b"MM\0*"),
    ("jpeg2000", 4, b"jP  \r\n\x87\n"),
)


def image_format(body: bytes) -> str:
    """The format of an image by its first bytes, in lower case."""
    return next((name for name, at, mark in _FORMATS if body.startswith(mark, at)), UNKNOWN)


class Original(NamedTuple):
    """What is noted of one image; the fields are the columns of ORIGINALS_SCHEMA."""

    sha256: str
    original_bytes: int
    original_format: str
    file_opt_out: str | None


def original_of(body: bytes) -> Original:
    """What is noted of the image in `body`."""
    return Original(hashlib.sha256(body).hexdigest(), len(body), image_format(body), file_opt_out(body))


class OriginalsLog:
    """Notes images as they come, from any number of threads of one process.

    Nothing is held back: a pool ends its workers by a signal.
    """

    def __init__(self, folder: Path, process_id: int) -> None:
        self._file = (folder / FILES.replace("*", str(process_id))).open("ab", buffering=0)
        self._lock = Lock()

    def add(self, original: Original) -> None:
        line = " ".join(NONE if value is None else str(value) for value in original).encode() + b"\n"
        with self._lock:
            self._file.write(line)


def read_originals(folder: Path) -> pa.Table:
    """All that the processes of a part noted, each image once, in no order."""
    lines = {line for file in folder.glob(FILES) for line in file.read_text(encoding="ascii").splitlines()}
    columns = zip(*(line.split() for line in lines), strict=True) if lines else ((), (), (), ())
    digests, sizes, formats, opt_outs = columns
    told = [None if value == NONE else value for value in opt_outs]
    return pa.table([digests, [int(size) for size in sizes], formats, told], schema=ORIGINALS_SCHEMA)
