"""A matplotlib figure as SVG that lives inside a page: its colours are CSS variables, its text in the page's font."""

from __future__ import annotations

import io
import re
from html import escape

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

# Colours that stand for a CSS variable until the figure is written; no chart uses them as real colours.
INK = "#010203"
MUTED = "#010204"
LINE = "#010205"
ACCENT = "#010206"
SECOND = "#010207"
HEAT = "#010208"
HEAT_WRONG = "#010209"
VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    LINE: "line",
    ACCENT: "accent",
    SECOND: "second",
    HEAT: "heat",
    HEAT_WRONG: "heat-wrong",
}

STYLE: dict[str, object] = {
    "svg.fonttype": "none",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
}


def inline_svg(figure: Figure, name: str, description: str) -> Markup:
    """The figure as an `<svg>` element with `description` as its text alternative; same figure, same bytes.

    `name` keeps the identifiers of two figures on one page apart.
    """
    buffer = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, bbox_inches="tight", pad_inches=0.04)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    # Inside HTML the namespaces are known, and the size is the page's affair.
    opening = rf'<svg \1 role="img" aria-label="{_attribute(description)}">'
    text = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', opening, text, count=1)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    text = re.sub(r"font-family: [^;\"]*;?|<style.*?</style>", "", text, flags=re.DOTALL)
    return Markup(re.sub(r"\n\s*", "\n", text).strip())


def _attribute(text: str) -> str:
    # A backslash would be read as a group reference by the substitution.
    return escape(text, quote=True).replace("\\", "&#92;")
