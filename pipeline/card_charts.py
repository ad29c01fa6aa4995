"""The charts of a card, each as SVG for the page and as a mermaid block for Markdown."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from pipeline.audit import LengthBin, QueryAudit
from pipeline.card_blocks import Chart

MERMAID_POINTS = 30
# The UI puts charts on black, and mermaid's own first colour is nearly white.
MERMAID = '%%{init: {"themeVariables": {"xyChart": {"backgroundColor": "#ffffff", "plotColorPalette": "#2459d4"}}}}%%'


def histogram(title: str, bins: Sequence[LengthBin]) -> Chart:
    labels = ", ".join(f'"{entry.low}"' for entry in bins)
    mermaid = _mermaid(f"Kept captions by {title.lower()}", f"x-axis [{labels}]", "bar", [entry.kept for entry in bins])
    return Chart(title, _histogram_svg(title, bins), mermaid, legend=True)


def _histogram_svg(title: str, bins: Sequence[LengthBin]) -> Markup:
    width, height = 520, 200
    step = width / len(bins)
    scale = (height - 10) / max(1, *(entry.rows for entry in bins))
    parts = []
    for number, entry in enumerate(bins):
        x, bar = (number + 0.1) * step, step * 0.8
        for rows, name in ((entry.rows, "all"), (entry.kept, "kept")):
            y, tall = height - rows * scale, rows * scale
            parts.append(f'<rect class="{name}" x="{x:.1f}" y="{y:.1f}" width="{bar:.1f}" height="{tall:.1f}"/>')
        parts.append(_label(x + bar / 2, height + 16, f"{entry.low:,}"))
    spoken = "; ".join(f"from {entry.low:,}: {entry.rows:,} captions, {entry.kept:,} kept" for entry in bins)
    return _svg(f"{title}. {spoken}", width, height + 22, parts)


def curve_svg(queries: QueryAudit) -> Markup:
    """Log-log: rank from left to right, pairs upwards; queries without a pair have no place on it."""
    points = [point for point in queries.curve if point.pairs]
    if not points:
        return Markup("")
    width, height, left = 520, 240, 60
    decades_x, decades_y = math.log10(max(10, points[-1].rank)), math.log10(max(10, queries.most_pairs))

    def x_of(rank: float) -> float:
        return round(left + (width - left - 12) * math.log10(rank) / decades_x, 1)

    def y_of(pairs: float) -> float:
        return round(height - (height - 12) * math.log10(pairs) / decades_y, 1)

    parts = []
    for pairs in (10**decade for decade in range(int(decades_y) + 1)):
        parts.append(f'<path class="grid" d="M{left} {y_of(pairs)}H{width}"/>')
        parts.append(_label(left - 8, y_of(pairs) + 4, f"{pairs:,}", "end"))
    parts += [_label(x_of(10**decade), height + 18, f"{10**decade:,}") for decade in range(int(decades_x) + 1)]
    line = " ".join(f"{x_of(point.rank)},{y_of(point.pairs)}" for point in points)
    parts.append(f'<polyline class="line" points="{line}"/>')
    if queries.t <= queries.most_pairs:
        parts.append(f'<path class="limit" d="M{left} {y_of(queries.t)}H{width}"/>')
    parts.append(_label((left + width) / 2, height + 36, "rank of the query"))
    first, last = points[0], points[-1]
    spoken = f"Pairs by rank: the first query has {first.pairs:,}, query {last.rank:,} has {last.pairs:,}."
    return _svg(spoken, width, height + 42, parts)


def _label(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def curve_mermaid(queries: QueryAudit) -> str:
    if not queries.matches:
        return ""
    decades = math.log10(max(10, queries.queries))
    heights = []
    for number in range(MERMAID_POINTS):
        rank = 10 ** (decades * number / (MERMAID_POINTS - 1))
        reached = [point for point in queries.curve if point.rank <= rank + 0.5]
        heights.append(math.log10(max(1, reached[-1].pairs)))
    return _mermaid("log10 of pairs", f'x-axis "log10 of rank" 0 --> {decades:.3g}', "line", heights)


def _svg(spoken: str, width: int, height: int, parts: Iterable[str]) -> Markup:
    opening = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(spoken)}">'
    return Markup(opening + "".join(parts) + "</svg>")


def _mermaid(title: str, axis: str, kind: str, values: Sequence[float]) -> str:
    numbers = ", ".join(f"{value:.6g}" for value in values)
    highest = max(values, default=0) * 1.05 or 1
    return (
        f'```mermaid\n{MERMAID}\nxychart-beta\n  title "{title}"\n  {axis}\n'
        f'  y-axis "{title}" 0 --> {highest:.6g}\n  {kind} [{numbers}]\n```'
    )
