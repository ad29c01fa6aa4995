"""A card as Markdown, for Hugging Face and Prefect's UI, and as one HTML page without scripts."""

from __future__ import annotations

import json

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.card_blocks import Table
from pipeline.card_sections import Facts, sections
from pipeline.card_text import html_cell, html_text, is_number, markdown_cell, markdown_text, shown
from pipeline.croissant import LICENCE
from pipeline.stage import deciding_settings

MARKDOWN_ROWS = 20  # of a table in card.md; card.html scrolls


def front_matter(facts: Facts) -> str:
    """The YAML header of a Hugging Face data set card; JSON values are YAML values."""
    splits = {"train": "train", "val": "validation"}
    values = {
        "pretty_name": facts.config.name,
        "license": "other",
        "license_name": "urls-and-captions",
        "license_details": LICENCE,
        "language": facts.languages,
        "size_categories": [size_category(facts.size)],
        "task_categories": ["zero-shot-image-classification", "image-to-text", "text-to-image"],
        "tags": ["webdataset", "image-text", *sorted(row.source_kind for row in facts.audit.kinds)],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": splits[name], "path": f"{name}/*.tar"} for name in facts.samples],
            }
        ],
    }
    if not facts.samples:
        del values["configs"]
    return "---\n" + "".join(f"{name}: {json.dumps(value)}\n" for name, value in values.items()) + "---\n\n"


def size_category(size: int) -> str:
    """The name that Hugging Face has for a number of samples: `1K<n<10K`."""
    names = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
    reached = sum(size >= 1_000 * 10**power for power in range(len(names)))
    if reached == 0:
        return "n<1K"
    return f"{names[reached - 1]}<n<{names[reached]}" if reached < len(names) else "n>1T"


def markdown(facts: Facts) -> str:
    """The card without its header, as Markdown with tables and mermaid charts."""
    return _render("card.md.j2", facts, autoescape=False)


def page(facts: Facts) -> str:
    """The card as one HTML page; the same facts give the same text."""
    return _render("card.html.j2", facts, autoescape=True)


def _render(template: str, facts: Facts, *, autoescape: bool) -> str:
    environment = Environment(
        loader=PackageLoader("pipeline"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "html_cell": html_cell,
        "html_text": html_text,
        "bar": _bar,
        "css_class": lambda cell: Markup(' class="number"') if is_number(cell) else "",
        "markdown_cell": markdown_cell,
        "markdown_text": markdown_text,
        "shown": shown,
        "rule": lambda cell: "---:" if is_number(cell) else "---",
        "kind": lambda block: type(block).__name__,
    }
    return environment.get_template(template).render(
        name=facts.config.name,
        size=f"{facts.size:,}",
        facts=facts,
        licence=LICENCE,
        sections=sections(facts),
        settings=json.dumps(deciding_settings(facts.config), indent=2, sort_keys=True, ensure_ascii=False),
        markdown_rows=MARKDOWN_ROWS,
    )


def _bar(table: Table, row: int) -> Markup:
    if not table.bars:
        return Markup("")
    longest = max(entered for entered, _ in table.bars) or 1
    entered, kept = table.bars[row]
    return Markup(
        f'<div class="flow" aria-hidden="true"><span style="width:{100 * entered / longest:.2f}%"></span>'
        f'<span class="kept" style="width:{100 * kept / longest:.2f}%"></span></div>'
    )
