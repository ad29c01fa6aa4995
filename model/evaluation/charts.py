"""The charts of the report: narrow enough to be read on a phone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from model.evaluation.svg import ACCENT, HEAT, HEAT_WRONG, INK, LINE, MUTED, SECOND, STYLE, inline_svg

WIDTH_IN = 4.5
"""At 72 points an inch."""
SMALLEST_TEXT = 4.5
"""In points; a cell too small for it stays empty."""


@dataclass(frozen=True)
class Bar:
    """A share, its interval, and what guessing would give."""

    label: str
    value: float
    low: float
    high: float
    chance: float


@dataclass(frozen=True)
class Series:
    """A line of a curve."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    is_second: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell of a heat map; `strength` from 0 to 1, `text` is printed in it."""

    row: int
    column: int
    strength: float
    text: str
    is_good: bool = True


def bars(name: str, description: str, rows: Sequence[Bar]) -> Markup:
    """Horizontal bars with whiskers for the intervals and a tick for chance; the label stands above its bar."""
    figure, axes = figure_of(0.5 * len(rows) + 0.45)
    for index, row in enumerate(rows):
        axes.barh(index, row.value, height=0.34, color=ACCENT)
        axes.plot([row.low, row.high], [index, index], color=INK, linewidth=1.2, marker="|", markersize=7)
        axes.plot([row.chance, row.chance], [index - 0.26, index + 0.26], color=SECOND, linewidth=2.4)
        axes.text(0, index - 0.28, short(row.label, 44), va="bottom", color=INK)
        axes.text(1.0, index - 0.28, f"{100 * row.value:.1f} %", va="bottom", ha="right", color=INK, weight="bold")
    axes.set_ylim(len(rows) - 0.6, -0.75)
    axes.set_yticks([])
    _percent_axis(axes)
    return inline_svg(figure, name, description)


def class_bars(name: str, description: str, rows: Sequence[Bar]) -> Markup:
    """Slim bars, one a class, the label to the left; one line for chance through all."""
    figure, axes = figure_of(0.215 * len(rows) + 0.4)
    for index, row in enumerate(rows):
        axes.barh(index, row.value, height=0.6, color=ACCENT, alpha=0.85)
        axes.plot([row.low, row.high], [index, index], color=INK, linewidth=0.9, alpha=0.7)
    if rows:
        axes.axvline(rows[0].chance, color=SECOND, linewidth=1.6)
    axes.set_yticks(range(len(rows)), [short(row.label, 26) for row in rows], color=INK)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    _percent_axis(axes)
    return inline_svg(figure, name, description)


def curve(name: str, description: str, series: Sequence[Series], y_label: str, is_share: bool = False) -> Markup:
    """Lines over the steps of training."""
    figure, axes = figure_of(2.45)
    for line in series:
        is_sparse = len(line.x) < 40
        axes.plot(
            line.x,
            line.y,
            color=SECOND if line.is_second else ACCENT,
            linestyle="--" if line.is_second else "-",
            marker="o" if is_sparse else None,
            markersize=3.2,
            label=line.label,
        )
    axes.set_xlabel("step")
    axes.set_title(y_label, loc="left", fontsize=9.5, color=MUTED)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if is_share:
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    if len(series) > 1:
        axes.legend(loc="best", labelcolor=INK, frameon=False)
    return inline_svg(figure, name, description)


def heat_map(
    name: str,
    description: str,
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Sequence[Cell],
    axis_labels: tuple[str, str],
) -> Markup:
    """Rows by columns; the strength of a cell is its opacity, so that it follows the theme.

    A cell that is not good has the second colour.
    """
    side = min(0.44, 3.5 / max(len(columns), 1))
    margin_x_in, margin_y_in = (0.3 + 0.075 * max(len(short(text, 22)) for text in texts) for texts in (rows, columns))
    figure, axes = figure_of(side * len(rows) + margin_y_in, width_in=max(side * len(columns) + margin_x_in, 2.5))
    axes.grid(False)
    axes.add_patch(Rectangle((-0.5, -0.5), len(columns), len(rows), facecolor="none", edgecolor=LINE, linewidth=0.8))
    font_size = min(9.0, 72 * side / 3.0)
    for cell in cells:
        corner = (cell.column - 0.5 + 0.03, cell.row - 0.5 + 0.03)
        colour, alpha = HEAT if cell.is_good else HEAT_WRONG, round(0.1 + 0.9 * cell.strength, 3)
        axes.add_patch(Rectangle(corner, 0.94, 0.94, facecolor=colour, alpha=alpha, linewidth=0))
        if cell.text and font_size >= SMALLEST_TEXT:
            axes.text(cell.column, cell.row, cell.text, ha="center", va="center", fontsize=font_size, color=INK)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_aspect("equal")
    label_size = 9.5 if side > 0.3 else max(6.0, 72 * side * 0.62)
    axes.set_xticks(
        range(len(columns)), [short(text, 22) for text in columns], rotation=90, fontsize=label_size, color=INK
    )
    axes.set_yticks(range(len(rows)), [short(text, 22) for text in rows], fontsize=label_size, color=INK)
    axes.set_ylabel(axis_labels[0])
    axes.set_xlabel(axis_labels[1])
    return inline_svg(figure, name, description)


def figure_of(height_in: float, width_in: float = WIDTH_IN) -> tuple[Figure, Axes]:
    """An empty figure in the style of the page."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        return figure, figure.add_subplot()


def _percent_axis(axes: Axes) -> None:
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)


def short(text: str, chars: int) -> str:
    """A label of so many characters at most, to be taken literally."""
    # matplotlib reads a pair of dollar signs as mathematics.
    text = text.replace("$", r"\$")
    return text if len(text) <= chars else text[: chars - 1] + "…"
