"""What a card is made of: sections of tables, charts, captions and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

Cell = str | int | float | Mapping[str, int] | None  # a float is a share; a mapping is reasons with their rows


@dataclass(frozen=True)
class Table:
    """A table; with `bars`, each row has one below its first cell."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]
    note: str = ""
    bars: Sequence[tuple[int, int]] = ()  # per row: all, and the kept part of them


@dataclass(frozen=True)
class Chart:
    """A chart, drawn and as a mermaid block; the legend is that of kept and dropped."""

    title: str
    svg: Markup
    mermaid: str
    note: str = ""
    legend: bool = False


@dataclass(frozen=True)
class Quotes:
    """Captions, each with a remark."""

    title: str
    items: Sequence[tuple[str | None, str]]
    note: str = ""


@dataclass(frozen=True)
class Thumbnail:
    """A picture with its caption and a remark; `source` is a data: address."""

    source: str
    caption: str
    remark: str


@dataclass(frozen=True)
class Gallery:
    """Pictures in rows of one or, side by side, more; Markdown tells only how many."""

    title: str
    rows: Sequence[tuple[Thumbnail, ...]]
    note: str = ""


@dataclass(frozen=True)
class Prose:
    """Sentences under a heading."""

    title: str
    sentences: Sequence[str]


@dataclass(frozen=True)
class Section:
    """A part of the card."""

    anchor: str
    title: str
    intro: str
    blocks: Sequence[Table | Chart | Quotes | Gallery | Prose]
