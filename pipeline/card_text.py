"""Words of the web on a card: cut, made visible and escaped, for a page and for Markdown."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from markupsafe import Markup

from pipeline.card_blocks import Cell

SHOWN_CHARS = 200
# Marks that turn the direction of the text around them, and those that nobody sees.
_DIRECTION = frozenset("\u061c\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff")
# What Markdown, GitHub or a template could read as more than a mark within a line; www. and :// would become links.
_MARKDOWN = re.compile(r"[&<>*\[\]\\`|#@$~^{}]|(?<=:)/|(?<![^\W_])_|_(?![^\W_])|(?<=www)\.", re.IGNORECASE)


def shown(text: str, most: int = SHOWN_CHARS) -> str:
    """Words of the web in one line: cut to `most` characters, with control, direction and unseen marks made visible."""
    cut = text[:most] + ("…" if len(text) > most else "")
    return "".join(f"‹{ord(mark):04X}›" if _is_hidden(mark) else mark for mark in cut)


def _is_hidden(mark: str) -> bool:
    return mark in _DIRECTION or unicodedata.category(mark) in ("Cc", "Cs", "Zl", "Zp")


def markdown_text(text: str, most: int = SHOWN_CHARS) -> str:
    """Words of the web within a line or a table of Markdown: marks that mean something there as character references."""
    return _MARKDOWN.sub(lambda mark: f"&#{ord(mark.group())};", shown(text, most))


def html_text(text: str | None) -> Markup:
    # <bdi> keeps the direction of its text to itself.
    return Markup("<bdi>{}</bdi>").format(shown(text)) if text else Markup('<span class="muted">none</span>')


def html_cell(cell: Cell) -> Markup:
    if isinstance(cell, Mapping):
        items = Markup("").join(
            Markup("<li><span>{}</span><span>{:,}</span></li>").format(reason.replace("_", " "), rows)
            for reason, rows in cell.items()
        )
        return Markup('<ul class="reasons">{}</ul>').format(items) if cell else html_text(None)
    return html_text(cell) if isinstance(cell, str) else Markup(number_text(cell))


def markdown_cell(cell: Cell) -> str:
    if isinstance(cell, Mapping):
        return (
            ", ".join(f"{markdown_text(reason.replace('_', ' '))} {rows:,}" for reason, rows in cell.items()) or "none"
        )
    return markdown_text(cell) if isinstance(cell, str) else number_text(cell)


def number_text(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{100 * value:.1f}\u00a0%"


def is_number(cell: Cell) -> bool:
    return cell is None or isinstance(cell, (int, float))
