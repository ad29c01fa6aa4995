"""The card of a data set: what is in it, what was left out and why, as `card.md` and as `card.html`.

Both are drawn from one list of sections. What the web wrote (captions, hosts, queries) is cut, its control and direction
marks are made visible, and it is escaped; card.html is one file without scripts that a content policy forbids to load
anything. The headings of the datasheet are those of Gebru et al., Datasheets for Datasets (arXiv 1803.09010).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from upath import UPath

from pipeline.audit import Audit, read_audit, read_query_audit
from pipeline.card_gallery import gallery
from pipeline.card_pages import front_matter, markdown, page
from pipeline.card_sections import Facts
from pipeline.config import BuildDatasetConfig
from pipeline.errors import InputError
from pipeline.query import query_rows
from pipeline.settings import Settings
from pipeline.shards import MANIFEST_FILE
from pipeline.stage import Counts, FunnelStage, Stage, read_record
from pipeline.tombstones import TAKEN_DOWN_FILE

MARKDOWN_FILE = "card.md"
HTML_FILE = "card.html"
OTHER_SOURCES = ("query_audit", "taken_down", "shards", "pictures")  # stages, beside the audit


class CardConfig(Settings):
    """What the card tells beside the audit."""

    config: BuildDatasetConfig
    funnel: tuple[FunnelStage, ...] = ()


def _card(sources: Sequence[UPath], out: Path, config: CardConfig) -> Counts:
    """`sources` is the folder of AUDIT and, where they exist, those of OTHER_SOURCES, in any order."""
    found = {record.stage: folder for folder in sources if (record := read_record(folder)) is not None}
    unknown = sorted(found.keys() - {"audit", *OTHER_SOURCES})
    if "audit" not in found or len(found) < len(sources) or unknown:
        raise InputError(
            f"card: needs the finished folder of audit, and may have one of each of {', '.join(OTHER_SOURCES)}; got "
            f"{', '.join(map(str, sources)) or 'none'}"
        )
    manifest = json.loads((found["shards"] / MANIFEST_FILE).read_bytes()) if "shards" in found else None
    audit = read_audit(found["audit"])
    if "taken_down" in found:
        audit = _without(audit, found["taken_down"])
    facts = Facts(
        config=config.config,
        funnel=config.funnel or _funnel_of(manifest, audit),
        audit=audit,
        queries=read_query_audit(found["query_audit"]) if "query_audit" in found else None,
        manifest=manifest,
        gallery=gallery(found["pictures"]) if "pictures" in found else [],
    )
    (out / MARKDOWN_FILE).write_text(front_matter(facts) + markdown(facts), encoding="utf-8")
    (out / HTML_FILE).write_text(page(facts), encoding="utf-8")
    return Counts(rows_in=audit.rows_in, rows_kept=audit.rows_kept, dropped=audit.dropped)


CARD = Stage("card", _card)


def _without(audit: Audit, taken_down: UPath) -> Audit:
    """The audit without the captions of pairs that were taken down; its numbers stay."""
    wanted = [row.pair_id for row in audit.samples]
    hits = query_rows("taken_down_among", taken_down=taken_down / TAKEN_DOWN_FILE, pair_ids=wanted)
    gone = {row["pair_id"] for row in hits}
    return audit.model_copy(update={"samples": tuple(row for row in audit.samples if row.pair_id not in gone)})


def _funnel_of(manifest: Mapping[str, Any] | None, audit: Audit) -> list[FunnelStage]:
    if manifest is not None and manifest["funnel"]:
        return [FunnelStage.model_validate(stage) for stage in manifest["funnel"]]
    return [FunnelStage(stage="rules", rows_in=audit.rows_in, rows_kept=audit.rows_kept, dropped=audit.dropped)]


def read_markdown(folder: UPath) -> str:
    """The card that CARD wrote, without the YAML header, as a UI shows it."""
    text: str = (folder / MARKDOWN_FILE).read_text(encoding="utf-8")
    return text.split("\n---\n", 1)[1].lstrip()
