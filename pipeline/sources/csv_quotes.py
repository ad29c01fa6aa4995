"""The quotes of a CSV file: one that is never closed swallows the rows after it, and no parser says so."""

from __future__ import annotations

import re
from typing import IO

from pipeline.errors import InputError

SHOWN_BYTES = 40
# Elsewhere in a field without quotes a quote is a character like any other. (The quote comes first, for speed.)
_OPENING = re.compile(rb'"(?<=[,\r\n]")')
_CLOSING = re.compile(rb'[^"]*+(?:""[^"]*+)*+"(?=[^"])')
_FIELD_ENDS = b",\r\n"


class QuoteWatch:
    """A stream of CSV that passes on what it reads.

    `read` raises InputError, naming the line, where a quoted field has no end by RFC 4180: none before the end of the file,
    none within `max_field_bytes`, or only a quote with more text behind it after the line's end, which belongs to
    another row. (Such a quote in the same line, as in `"Yes" she said`, costs no row and is let pass.)
    """

    def __init__(self, file: IO[bytes], path: str, max_field_bytes: int) -> None:
        self._file = file
        self._path = path
        self._max_field_bytes = max_field_bytes
        self._lines = 0  # ended before _rest
        self._rest = b"\n"  # what is not decided yet; a field may start where the file does

    @property
    def closed(self) -> bool:
        return self._file.closed

    def close(self) -> None:
        self._file.close()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._watch(data)
        return data

    def _watch(self, data: bytes) -> None:
        text = self._rest + (data or b"\n")  # the end of the file ends its last field
        at = 0
        while opening := _OPENING.search(text, at):
            start = opening.end()
            closing = _CLOSING.match(text, start)
            if closing is None:
                if not data or len(text) - start > self._max_field_bytes:
                    raise self._unclosed(text, start)
                return self._keep(text, start - 2)  # with the character before the quote
            at = closing.end()
            if text[at] not in _FIELD_ENDS and (b"\n" in closing[0] or b"\r" in closing[0]):
                raise self._unclosed(text, start)
        return self._keep(text, len(text) - 1)

    def _keep(self, text: bytes, start: int) -> None:
        self._lines += text.count(b"\n", 0, start)
        self._rest = text[start:]

    def _unclosed(self, text: bytes, start: int) -> InputError:
        line = self._lines + text.count(b"\n", 0, start)
        shown = text[start - 1 : start + SHOWN_BYTES].splitlines()[0].decode("utf-8", "replace")
        return InputError(
            f"{self._path}: line {line}: the quote before {shown[1:]!r} is not closed before a comma or the line's end, so it "
            "swallows the rows after it; close it, or write quotes that belong to a text twice (RFC 4180)"
        )
