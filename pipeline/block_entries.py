"""What an entry of each block list means: its text in normal form, or None where it is no such entry."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Literal

from pipeline.urls import normalise_url

ListName = Literal["hosts", "urls", "words", "tombstones", "scores", "sha256", "hashes"]
HASH_DIGITS = {32: "md5", 64: "sha256"}  # hex digits of each

Normal = tuple[str, str]  # key and value
# What block lists in the form of a hosts file send their hosts to.
_SINKS = ("0.0.0.0", "127.0.0.1", "::", "::1")
_HOST = re.compile(r"\[[0-9A-Fa-f:.]+\]|[^\s/?#@\\:\[\]]+")
_PAIR_ID = re.compile(r"[0-9a-fA-F]{32}")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def _host(text: str) -> Normal | None:
    """`example.com`, `.example.com`, `*.example.com` or, as in a hosts file, `0.0.0.0 example.com`."""
    fields = text.split()
    if len(fields) == 2 and fields[0] in _SINKS:
        text = fields[1]
    host = text.removeprefix("*").removeprefix(".")
    host = f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host
    url = normalise_url(f"http://{host}/") if _HOST.fullmatch(host) else None
    return None if url is None else ("host", url.removeprefix("http://").removesuffix("/"))


def _url(text: str) -> Normal | None:
    url = normalise_url(text)
    return None if url is None else ("url", url)


def _word(text: str) -> Normal | None:
    """As pairs.caption_key has it; block_lists.sql cuts it into words."""
    return "word", unicodedata.normalize("NFC", text).casefold()


def _pair_id_or_url(text: str) -> Normal | None:
    return ("pair_id", text.lower()) if _PAIR_ID.fullmatch(text) else _url(text)


def _sha256(text: str) -> Normal | None:
    return ("sha256", text.lower()) if _SHA256.fullmatch(text) else None


def _hash(text: str) -> Normal | None:
    algorithm = HASH_DIGITS.get(len(text))
    return (algorithm, text.lower()) if algorithm and _HEX.fullmatch(text) else None


_HEX = re.compile(r"[0-9a-fA-F]+")
NORMAL: dict[ListName, Callable[[str], Normal | None]] = {
    "hosts": _host,
    "urls": _url,
    "words": _word,
    "tombstones": _pair_id_or_url,
    "scores": _pair_id_or_url,
    "sha256": _sha256,
    "hashes": _hash,
}
