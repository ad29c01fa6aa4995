"""The paper's figures, redrawn with a run in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator, PercentFormatter

from model.evaluation.charts import figure_of, short
from model.evaluation.svg import ACCENT, INK, LINE, MUTED, SECOND, inline_svg

SIDE_IN = 4.2
NAMED_LINES = 6
"""More names than these would lie over each other."""


@dataclass(frozen=True)
class Difference:
    """A difference of shares; `mark` is the paper's, `low` and `high` an interval, each None if there is none."""

    label: str
    value: float
    mark: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Point:
    """A place in a scatter, both axes in shares; `is_ours` tells this run from the paper."""

    x: float
    y: float
    label: str = ""
    is_ours: bool = True


@dataclass(frozen=True)
class Shots:
    """Values by number of examples of each class; 0 examples is zero-shot."""

    label: str
    examples: Sequence[int]
    values: Sequence[float]
    is_mean: bool = False


@dataclass(frozen=True)
class Size:
    """A model: the work of its image tower for one image in GFLOP, and a mean error."""

    gflop: float
    error: float
    label: str
    is_ours: bool


def differences(name: str, description: str, rows: Sequence[Difference]) -> Markup:
    """Bars to both sides of 0, in points, the largest first; a tick for the paper's."""
    ordered = sorted(rows, key=lambda row: (-row.value, row.label))
    figure, axes = figure_of(0.26 * len(ordered) + 0.5)
    for index, row in enumerate(ordered):
        axes.barh(index, 100 * row.value, height=0.62, color=ACCENT if row.value >= 0 else SECOND, alpha=0.85)
        if row.low is not None and row.high is not None:
            axes.plot([100 * row.low, 100 * row.high], [index, index], color=INK, linewidth=1.0)
        if row.mark is not None:
            axes.plot([100 * row.mark] * 2, [index - 0.36, index + 0.36], color=INK, linewidth=2.2)
    axes.axvline(0, color=MUTED, linewidth=1.0)
    axes.set_yticks(range(len(ordered)), [short(row.label, 26) for row in ordered], color=INK)
    axes.set_ylim(len(ordered) - 0.4, -0.6)
    axes.set_xlabel("points")
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:+g}".replace("-", "\u2212") if value else "0")
    )
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    return inline_svg(figure, name, description)


def scatter(name: str, description: str, points: Sequence[Point], axis_labels: tuple[str, str]) -> Markup:
    """Shares against shares with the line where both are equal; this run filled, the paper in rings."""
    figure, axes = figure_of(SIDE_IN, SIDE_IN)
    axes.plot([0, 1], [0, 1], color=LINE, linewidth=1.2)
    for point in points:
        face = ACCENT if point.is_ours else "none"
        axes.plot(
            point.x,
            point.y,
            "o",
            markersize=6,
            markerfacecolor=face,
            markeredgecolor=ACCENT if point.is_ours else SECOND,
        )
    named: list[Point] = []
    for point in (point for point in points if point.is_ours and point.label):
        # A name that would lie over another is left to the text alternative.
        if any(abs(point.y - other.y) < 0.05 and abs(point.x - other.x) < 0.4 for other in named):
            continue
        named.append(point)
        is_right = point.x > 0.6
        axes.annotate(
            short(point.label, 22),
            (point.x, point.y),
            xytext=(-7 if is_right else 7, -3),
            textcoords="offset points",
            ha="right" if is_right else "left",
            fontsize=8.5,
            color=INK,
        )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_aspect("equal")
    axes.grid(True, axis="both")
    axes.set_xlabel(axis_labels[0])
    axes.set_ylabel(axis_labels[1])
    return inline_svg(figure, name, description)


def shots(name: str, description: str, lines: Sequence[Shots], y_label: str) -> Markup:
    """Values over examples of each class, doubling to the right; zero-shot is a star at 0."""
    figure, axes = figure_of(3.0)
    counts = sorted({count for line in lines for count in line.examples if count})
    place = {count: index + 1 for index, count in enumerate(counts)} | {0: 0}
    for line in lines:
        colour, width, alpha = (ACCENT, 2.4, 1.0) if line.is_mean else (MUTED, 1.0, 0.55)
        known = [(place[count], value) for count, value in zip(line.examples, line.values, strict=True) if count]
        zero = [value for count, value in zip(line.examples, line.values, strict=True) if not count]
        axes.plot(*zip(*known, strict=True), color=colour, linewidth=width, alpha=alpha, marker="o", markersize=3.4)
        if len(lines) <= NAMED_LINES and not line.is_mean:
            end = (known or [(0, zero[0])])[-1]
            axes.annotate(
                short(line.label, 16), end, xytext=(6, -3), textcoords="offset points", fontsize=8, color=MUTED
            )
        for value in zero:
            axes.plot(
                0,
                value,
                "*",
                color=SECOND if line.is_mean else MUTED,
                markersize=13 if line.is_mean else 8,
                alpha=alpha,
            )
        if zero and line.is_mean:
            axes.axhline(zero[0], color=SECOND, linewidth=1.0, linestyle=":")
    axes.set_xticks(range(len(counts) + 1), ["zero-shot", *map(str, counts)])
    axes.set_xlim(-0.45, len(counts) + (1.3 if len(lines) <= NAMED_LINES else 0.2))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("examples of each class")
    axes.set_title(y_label, loc="left", fontsize=9.5, color=MUTED)
    return inline_svg(figure, name, description)


def scaling(name: str, description: str, sizes: Sequence[Size], y_label: str) -> Markup:
    """Error over the work of the image tower, both in logarithms (figure 9)."""
    figure, axes = figure_of(3.4)
    for number, size in enumerate(sizes):
        colour = ACCENT if size.is_ours else SECOND
        face = colour if size.is_ours else "none"
        axes.plot(size.gflop, size.error, "o", markersize=6.5, color=colour, markerfacecolor=face)
        # Runs of one tower stand at one place: their names one above the other. The paper's go above and below in turn.
        up = 7 + 10 * (number % 4) if size.is_ours else (7, -14)[number % 2]
        axes.annotate(
            short(size.label, 18),
            (size.gflop, size.error),
            xytext=(0, up),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=INK if size.is_ours else MUTED,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(0.16, 0.2)
    _plain_logs(axes)
    axes.set_xlabel("GFLOP for one image")
    axes.set_title(y_label, loc="left", fontsize=9.5, color=MUTED)
    return inline_svg(figure, name, description)


def reliability(name: str, description: str, points: Sequence[tuple[float, float, float]]) -> Markup:
    """How often it is right by how sure it is: (certainty, accuracy, share of the images), the share as the area of a point."""
    figure, axes = figure_of(3.4, 3.6)
    axes.plot([0, 1], [0, 1], color=LINE, linewidth=1.2)
    axes.plot([x for x, _, _ in points], [y for _, y, _ in points], color=ACCENT, linewidth=1.2, alpha=0.6)
    for x, y, share in points:
        axes.plot([x, x], [x, y], color=SECOND, linewidth=1.2)
        axes.plot(x, y, "o", color=ACCENT, markersize=3 + 9 * share**0.5)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_aspect("equal")
    axes.set_xlabel("how sure it is")
    axes.set_ylabel("how often it is right")
    return inline_svg(figure, name, description)


def _plain_logs(axes: Axes) -> None:
    """Whole tens, or steps between them where there are less than two."""
    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        axis.set_major_locator(LogLocator(10, subs=(1.0,) if high > 100 * low else (1.0, 2.0, 5.0), numticks=12))
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(True, axis="both")
