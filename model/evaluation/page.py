"""How pages are made: one environment for all templates, in which everything is escaped."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from model.evaluation import story


def environment() -> Environment:
    """Templates of `templates/`; an unknown name in one is an error."""
    found = Environment(
        loader=PackageLoader("model.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"percent": story.percent, "points": story.points, "level": story.level}
    return found
