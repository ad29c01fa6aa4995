"""The records of a WARC file, one after the other, with what is damaged left out, counted and said where.

FastWARC reads; when it stops at a damaged place this file finds the next record. A WARC is a row of gzip members, one
per record (or plain text), so a record that lies about its length, a flipped bit or a piece of another file costs
itself only.
"""

from __future__ import annotations

import io
import logging
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import IO, NamedTuple

from fastwarc.warc import ArchiveIterator, HeaderMap, WarcRecord, WarcRecordType

from pipeline.errors import InputError

CHUNK_BYTES = 1 << 16
GZIP_MAGIC = b"\x1f\x8b\x08"
HEAD_BYTES = 1 << 18  # of a record: FastWARC takes no longer header
MAX_DAMAGES = 1_000  # places of one file; beyond it is no WARC worth reading
MAX_TRIES = 100_000  # byte sequences that look like a record and are not, so that a hostile file ends

_PLAIN_START = re.compile(rb"\nWARC/1\.")
_CONTENT_LENGTH = re.compile(rb"(?im)^content-length:[ \t]*(\d{1,18})[ \t]*\r?$")
_RECORD_START = b"WARC/"

log = logging.getLogger(__name__)


class Record(NamedTuple):
    """A record, with the status and headers of its HTTP message if it holds one."""

    offset: int  # in the file, in bytes
    headers: HeaderMap
    http_status: int | None
    http_headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def url(self) -> str:
        """The address of the page that it is about, empty if it names none."""
        return self.headers.get("WARC-Target-URI") or ""

    @property
    def date(self) -> str:
        """When the record was made, as it says."""
        return self.headers.get("WARC-Date") or ""


class Losses:
    """What was lost of one file, by reason; the first of each reason are logged with their place."""

    LOGGED = 20

    def __init__(self, name: str) -> None:
        self.name = name
        self.counts: Counter[str] = Counter()

    def add(self, reason: str, offset: int, detail: str = "") -> None:
        """Count one loss at `offset`, in bytes from the start of the file."""
        self.counts[reason] += 1
        if self.counts[reason] <= self.LOGGED:
            more = "; further ones are only counted" if self.counts[reason] == self.LOGGED else ""
            log.warning("%s at byte %d: %s%s%s", self.name, offset, reason, detail and f" ({detail})", more)


class _Stream:
    """What FastWARC reads from: a network failure of the file is told apart from damage within it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            self.error = error
            raise

    def check(self, error: OSError) -> None:
        """Raise the failure of the file that is behind an error of FastWARC's, if there is one."""
        if self.error is not None:
            raise self.error from error

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def close(self) -> None:
        """Leave the file open: whoever opened it closes it."""


class _Damage(Exception):  # noqa: N818 - it never leaves this file
    """Reading stopped at `offset`; what comes before it was read."""

    def __init__(self, reason: str, offset: int, detail: str) -> None:
        super().__init__(reason)
        self.reason, self.offset, self.detail = reason, offset, detail


class _Member(NamedTuple):
    """A gzip member or, in a plain file, a record: how far it reaches and whether it is whole and one record only."""

    end: int | None  # where the next one starts; None if it is cut short or broken
    is_cut: bool
    is_sound: bool


def read_records(file: IO[bytes], kind: WarcRecordType, max_bytes: int, losses: Losses) -> Iterator[Record]:
    """The records of `kind` in the order of the (seekable, gzip or plain) file, in memory one at a time.

    A body longer than `max_bytes` is left out as `too_large`, a damaged record as `bad_record`, and a file that ends in
    the middle of a record gives what came before and counts `truncated_file`. Raises InputError if nothing in it is a
    record or too much is damaged, and OSError as the file raises it.
    """
    start: int | None = 0
    damages = 0
    has_records = False
    while start is not None:
        try:
            for record in _read_run(_Stream(file), start, kind, max_bytes):
                has_records = True
                if record is not None:
                    yield record
            break
        except _Damage as damage:
            member = _member_at(file, damage.offset)
            start = _next_start(file, damage.offset, member)
            is_end = member.is_cut and start is None
            losses.add("truncated_file" if is_end else damage.reason, damage.offset, damage.detail)
            damages += 1
            has_records = has_records or (damage.reason == "too_large" and not is_end)
        if damages > MAX_DAMAGES:
            raise InputError(f"{losses.name}: more than {MAX_DAMAGES} damaged places; fetch the file again")
    if not has_records:
        raise InputError(f"{losses.name}: holds no WARC record; it is empty, cut short or of another format")


def _read_run(stream: _Stream, start: int, kind: WarcRecordType, max_bytes: int) -> Iterator[Record | None]:
    """Records up to the first damage; None stands for one of another kind.

    Each is given when the next one was found: a record that lies about its length is known by what follows it.
    """
    stream.seek(start)
    last: int | None = None
    pending: Record | None = None
    detail = "bytes that are no record"
    has_stopped = False
    try:
        # Not `inplace`: in FastWARC 2.0.1 a record without Content-Length then has that of the one before.
        for record in ArchiveIterator(stream, parse_http=False, max_header_len=HEAD_BYTES):
            if last is not None:
                yield pending
            last, pending = record.stream_pos, None
            pending = _read(record, kind, max_bytes, stream)
    except OSError as error:
        stream.check(error)
        detail, has_stopped = str(error), True
    if last is None:
        if has_stopped or _has_bytes(stream, start):
            raise _Damage("bad_record", start, detail)
        return
    is_member = _starts_record(stream, last)  # not so where the whole file is one gzip member
    member = _member_at(stream, last if is_member else start)
    if member.is_cut or (is_member and not member.is_sound) or (has_stopped and not is_member):
        raise _Damage("bad_record", last if is_member else start, detail)
    yield pending
    if member.end is not None and _has_bytes(stream, member.end):
        raise _Damage("bad_record", member.end, detail)


def _read(record: WarcRecord, kind: WarcRecordType, max_bytes: int, stream: _Stream) -> Record | None:
    """The record read into memory, None if it is of another kind; raises _Damage where it is not what it says."""
    offset = record.stream_pos
    length = record.content_length
    if length == 0 and not (record.headers.get("Content-Length") or "").strip() == "0":
        raise _Damage("bad_record", offset, "no valid Content-Length")
    if length > max_bytes:
        raise _Damage("too_large", offset, f"{length} bytes")
    if not record.record_type & kind:
        return None
    try:
        if kind == WarcRecordType.response:
            record.parse_http(auto_decode="all")
            body = record.reader.read(max_bytes + 1)
        else:
            body = record.reader.read()
    except OSError as error:
        stream.check(error)
        raise _Damage("bad_record", offset, str(error)) from error
    if len(body) > max_bytes:  # it was compressed within
        raise _Damage("too_large", offset, f"more than {max_bytes} bytes when decompressed")
    if not record.is_http_parsed:
        return Record(offset, record.headers, None, (), body)
    http = record.http_headers
    return Record(offset, record.headers, http.status_code, http.to_tuples(), body)


def _has_bytes(file: IO[bytes] | _Stream, offset: int) -> bool:
    file.seek(offset)
    return bool(file.read(1))


def _member_at(file: IO[bytes] | _Stream, offset: int) -> _Member:
    """Measure what starts at `offset`, in constant memory."""
    file.seek(offset)
    magic = file.read(len(GZIP_MAGIC))
    file.seek(offset)
    if len(magic) < len(GZIP_MAGIC) and GZIP_MAGIC.startswith(magic):
        return _Member(None, True, False)
    return _gzip_member(file, offset) if magic == GZIP_MAGIC else _plain_record(file, offset)


def _gzip_member(file: IO[bytes] | _Stream, offset: int) -> _Member:
    inflater = zlib.decompressobj(31)
    head = b""
    at, inflated_bytes = offset, 0
    chunk = b""
    while not inflater.eof:
        if not chunk:
            chunk = file.read(CHUNK_BYTES)
            at += len(chunk)
            if not chunk:
                return _Member(None, True, False)
        try:
            data = inflater.decompress(chunk, 16 * CHUNK_BYTES)
        except zlib.error:
            return _Member(None, False, False)
        chunk = inflater.unconsumed_tail
        inflated_bytes += len(data)
        if len(head) < HEAD_BYTES:
            head += data[: HEAD_BYTES - len(head)]
    record_bytes = _record_bytes(head)
    # Behind the body stand two line ends, which some writers forget.
    is_sound = record_bytes is not None and record_bytes <= inflated_bytes <= record_bytes + 4
    return _Member(at - len(inflater.unused_data), False, is_sound)


def _plain_record(file: IO[bytes] | _Stream, offset: int) -> _Member:
    record_bytes = _record_bytes(file.read(HEAD_BYTES))
    if record_bytes is None:
        return _Member(None, False, False)
    size = file.seek(0, io.SEEK_END)
    end = offset + record_bytes
    if end > size:
        return _Member(None, True, False)
    file.seek(end)
    tail = file.read(4)
    end += len(tail) - len(tail.lstrip(b"\r\n"))
    is_sound = end == size or tail.startswith((b"\r\n", b"\n"))
    return _Member(end, False, is_sound)


def _record_bytes(head: bytes) -> int | None:
    """The length of the record that `head` begins, from its own header: of header and body."""
    end = re.search(rb"\r?\n\r?\n", head)
    if not head.startswith(_RECORD_START) or end is None:
        return None
    length = _CONTENT_LENGTH.search(head, 0, end.end())
    return end.end() + int(length[1]) if length else None


def _next_start(file: IO[bytes], offset: int, member: _Member) -> int | None:
    """Where the next record starts behind the damage at `offset`, or None."""
    if member.end is not None and _starts_record(file, member.end):
        return member.end
    file.seek(offset)
    is_gzip = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    # Within a whole gzip member nothing is to be found; within broken bytes and plain text all of it may be. One that seems to
    # reach beyond the end of the file may be a stub that has taken the next one's header for the rest of its own.
    return _search(file, member.end if is_gzip and member.end is not None else offset + 1)


def _search(file: IO[bytes], start: int) -> int | None:
    """The first place from `start` where a record begins."""
    file.seek(start)
    window = b""
    at, tries = start, 0
    while chunk := file.read(CHUNK_BYTES):
        window += chunk
        for found in re.finditer(rb"\x1f\x8b\x08|\nWARC/1\.", window):
            candidate = at + found.start() + (found[0][:1] == b"\n")
            tries += 1
            if tries > MAX_TRIES:
                return None
            if _starts_record(file, candidate):
                return candidate
        keep = len(_PLAIN_START.pattern)
        at += max(len(window) - keep, 0)
        window = window[-keep:]
        file.seek(at + len(window))
    return None


def _starts_record(file: IO[bytes] | _Stream, offset: int) -> bool:
    """Whether the bytes at `offset` begin a record, plain or compressed."""
    file.seek(offset)
    head = file.read(512)
    if head.startswith(GZIP_MAGIC):
        try:
            head = zlib.decompressobj(31).decompress(head, len(_RECORD_START))
        except zlib.error:
            return False
    return head.startswith(_RECORD_START)
