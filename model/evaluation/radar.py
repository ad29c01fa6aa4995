"""A radar: one spoke for each domain, shares from the middle outwards, ours against another's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes

from model.evaluation.charts import figure_of, short
from model.evaluation.svg import ACCENT, INK, LINE, MUTED, SECOND, STYLE, inline_svg

RINGS = (0.25, 0.5, 0.75, 1.0)
LABELS_AT = 1.1


@dataclass(frozen=True)
class Spoke:
    """Three shares on one spoke."""

    label: str
    ours: float
    paper: float
    chance: float


def radar(name: str, description: str, spokes: Sequence[Spoke], paper_label: str) -> Markup:
    """Three closed lines over the spokes, the first at the top and then clockwise: ours filled, the paper's dashed, chance
    dotted.
    """
    figure, axes = figure_of(3.9)
    axes.set_aspect("equal")
    axes.set_axis_off()
    angles = [math.pi / 2 - 2 * math.pi * number / len(spokes) for number in range(len(spokes))]
    _web(axes, angles)
    axes.fill(*_at(angles, [spoke.ours for spoke in spokes]), color=ACCENT, alpha=0.16, linewidth=0)
    _line(axes, angles, [spoke.chance for spoke in spokes], MUTED, ":", "chance", marker=None)
    _line(axes, angles, [spoke.paper for spoke in spokes], SECOND, "--", paper_label, marker="o")
    _line(axes, angles, [spoke.ours for spoke in spokes], ACCENT, "-", "this run", marker="o", is_filled=True)
    for angle, spoke in zip(angles, spokes, strict=True):
        x, y = LABELS_AT * math.cos(angle), LABELS_AT * math.sin(angle)
        side = "center" if abs(x) < 0.2 else "left" if x > 0 else "right"
        height = "center" if abs(y) < 0.9 else "bottom" if y > 0 else "top"
        text = f"{short(spoke.label, 14)}\n{100 * spoke.ours:.0f} %"
        axes.text(x, y, text, ha=side, va=height, fontsize=9, color=INK, linespacing=1.15)
    axes.set_xlim(-1.6, 1.6)
    axes.set_ylim(-1.25, 1.3)
    with mpl.rc_context(STYLE):
        figure.legend(loc="outside lower center", ncols=3, labelcolor=INK, frameon=False, fontsize=9)
    return inline_svg(figure, name, description)


def _web(axes: Axes, angles: Sequence[float]) -> None:
    for ring in RINGS:
        axes.plot(*_at(angles, [ring] * len(angles)), color=LINE, linewidth=0.8)
        axes.text(0.02, ring - 0.02, f"{100 * ring:.0f} %", ha="left", va="top", fontsize=7, color=MUTED)
    for angle in angles:
        axes.plot([0, math.cos(angle)], [0, math.sin(angle)], color=LINE, linewidth=0.8)


def _line(
    axes: Axes,
    angles: Sequence[float],
    shares: Sequence[float],
    colour: str,
    style: str,
    label: str,
    marker: str | None,
    is_filled: bool = False,
) -> None:
    axes.plot(
        *_at(angles, shares),
        color=colour,
        linestyle=style,
        linewidth=1.2 if marker is None else 1.8,
        marker=marker,
        markersize=4.5,
        markerfacecolor=colour if is_filled else "none",
        label=short(label, 20),
    )


def _at(angles: Sequence[float], shares: Sequence[float]) -> tuple[list[float], list[float]]:
    """The corners of a closed line."""
    closed = [*zip(angles, shares, strict=True)]
    closed.append(closed[0])
    return [share * math.cos(angle) for angle, share in closed], [share * math.sin(angle) for angle, share in closed]
