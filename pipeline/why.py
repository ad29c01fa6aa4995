"""What became of a pair, from the page it was found on to the shard it lies in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from upath import UPath

from pipeline.balancing import BALANCED_FILE
from pipeline.errors import InputError
from pipeline.query import query_rows
from pipeline.stage import read_record
from pipeline.urls import normalise_url

MOST_PAIRS = 50


def explain(
    wanted: str,
    *,
    pairs: Sequence[UPath],
    verdicts: Sequence[UPath],
    balanced: Sequence[UPath] = (),
    image_verdicts: UPath,
    shards: UPath,
) -> Iterator[str]:
    """Lines that tell the way of every pair that `wanted`, a URL, page URL or pair_id, stands for.

    `pairs` and `verdicts` are the parts of those stages, `balanced` those of the balancing (none: there was none); the others
    are stage folders, which may not exist yet.
    Raises InputError if no pair is known by it.
    """
    if not verdicts:
        raise InputError(f"{shards.parent}: no verdicts yet; build the data set first")
    found = query_rows(
        "why_pairs",
        pairs=[part / "pairs.parquet" for part in pairs],
        verdicts=[part / "verdicts.parquet" for part in verdicts],
        wanted=wanted,
        wanted_norm=normalise_url(wanted),
    )
    if not found:
        raise InputError(
            f"{wanted}: no pair has this URL, page or pair_id; nothing that was crawled or listed mentions it"
        )
    for pair in found[:MOST_PAIRS]:
        yield from _one_pair(pair, balanced, image_verdicts, shards)
    if len(found) > MOST_PAIRS:
        yield f"... and {len(found) - MOST_PAIRS:,} more pairs"


def _one_pair(pair: dict[str, Any], balanced: Sequence[UPath], image_verdicts: UPath, shards: UPath) -> Iterator[str]:
    yield f"pair {pair['pair_id'] or '(none: the URL is not valid)'}"
    yield f"  found     {pair['source']} row {pair['row']}, {pair['text_key']}" + (
        f" on {pair['page_url']}" if pair["page_url"] else ""
    )
    yield f"  url       {pair['url']}"
    yield f"  caption   {(pair['caption_raw'] or '(none)')[:200]}"
    if pair["drop_reason"]:
        yield f"  rules     dropped: {_reason(pair['drop_reason'], pair['decided_by'])}"
        return
    yield "  rules     kept"
    if balanced:
        files = [part / BALANCED_FILE for part in balanced]
        match = query_rows("why_balanced", balanced=files, pair_id=pair["pair_id"])
        yield f"  balance   {_balance(match[0] if match else None)}"
        if not match or not match[0]["kept"]:
            return
    yield from _download(pair["pair_id"], image_verdicts, shards)


def _balance(match: dict[str, Any] | None) -> str:
    if match is None:
        return "dropped: no_match (no query of the list is in its caption)"
    told = (
        f"{match['query']!r} with {match['query_pairs']:,} pairs, kept with probability {match['keep_probability']:.4g}"
    )
    return f"{'kept' if match['kept'] else 'dropped: over_represented'} ({told}; queries in it: {match['queries']})"


def _download(pair_id: str, image_verdicts: UPath, shards: UPath) -> Iterator[str]:
    if read_record(image_verdicts) is None:
        yield "  image     not downloaded yet"
        return
    images = query_rows("why_images", image_verdicts=image_verdicts / "image_verdicts.parquet", pair_id=pair_id)
    if not images:
        yield "  image     not selected for download: curate.max_pairs was reached"
        return
    (image,) = images
    if image["drop_reason"]:
        yield f"  image     dropped: {_reason(image['drop_reason'], image['decided_by'])}"
        return
    yield f"  image     kept, {image['original_width_px']}x{image['original_height_px']} pixels, sha256 {image['sha256'][:16]}..."
    splits = [shards / split / "samples.parquet" for split in ("train", "val")]
    samples = [path for path in splits if path.exists()]
    rows = query_rows("why_samples", samples=samples, pair_id=pair_id) if samples else []
    for row in rows:
        yield f"  shard     {row['shard']} sample {row['key']}"
    if samples and not rows:
        yield "  shard     taken down"


def _reason(reason: str, decided_by: str | None) -> str:
    return f"{reason} ({decided_by})" if decided_by else reason
