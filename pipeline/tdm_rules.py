"""Reservations of text and data mining that a host tells (W3C community group report "TDM Reservation Protocol", 2024)."""

from __future__ import annotations

import json
import re
import string
from typing import Any
from urllib.parse import urlsplit

MAX_TDM_BYTES = 1 << 20
TDM_FILE = ".well-known/tdmrep.json"
TDM_HEADER = "tdm-reservation"
TDM_RESERVED = "1"
_UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")
_TO_MEND = re.compile(r"%[0-9A-Fa-f]{2}|[^\x21-\x7e]")


class TdmRules:
    """The tdmrep.json of one origin. A file that is no JSON array of rules reserves nothing."""

    def __init__(self, body: bytes) -> None:
        try:
            rules = json.loads(body)
        except (ValueError, RecursionError):
            rules = []
        self._rules = [(_plain(rule["location"]), rule) for rule in rules if _is_rule(rule)] if _is_list(rules) else []

    def reserves(self, url: str) -> bool:
        """Whether the rights on a URL of this origin are reserved: the first rule whose location matches decides."""
        parts = urlsplit(url)
        path = _plain((parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        first = next((rule for location, rule in self._rules if _matches(location, path)), None)
        return first is not None and str(first.get(TDM_HEADER)) == TDM_RESERVED


def _is_list(rules: Any) -> bool:
    return isinstance(rules, list)


def _is_rule(rule: Any) -> bool:
    return isinstance(rule, dict) and isinstance(rule.get("location"), str)


def _matches(location: str, path: str) -> bool:
    """As robots.txt does it: from the start, `*` is any characters, `$` at the end is the end of the path.

    Piece after piece, each at its first place: never slower than the lengths multiplied, as a regular expression would be.
    """
    first, *others = location.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    position = len(first)
    if location.endswith("$"):
        if not others:
            return path == first
        last = others.pop()
        if not path.endswith(last):
            return False
        path = path[: len(path) - len(last)]
    for piece in others:
        position = path.find(piece, position)
        if position < 0:
            return False
        position += len(piece)
    return position <= len(path)


def _plain(text: str) -> str:
    """`text` in the normal form of percent-encoding (RFC 3986, 6.2.2): decoded where it may be, else in capitals."""
    return _TO_MEND.sub(_plain_one, text)


def _plain_one(match: re.Match[str]) -> str:
    text = match[0]
    if len(text) == 1:
        return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))
    char = chr(int(text[1:], 16))
    return char if char in _UNRESERVED else text.upper()


NO_TDM_RULES = TdmRules(b"[]")
