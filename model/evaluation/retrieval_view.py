"""Retrieval as the report shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from model.evaluation import story
from model.evaluation.charts import Bar, bars
from model.evaluation.pictures import data_uri
from model.evaluation.results import Query, RetrievalResult
from model.evaluation.set_view import Picture
from model.evaluation.shards import Pair, Shards, first_pairs


@dataclass(frozen=True)
class ImageQuery:
    """An image, its own captions, and the texts found for it."""

    picture: Picture
    captions: Sequence[str]
    query: Query


@dataclass(frozen=True)
class TextQuery:
    """A text and the images found for it."""

    query: Query
    pictures: list[Picture]


def retrieval_chart(found: RetrievalResult) -> Markup:
    """Recall both ways, or nothing if it was skipped."""
    rows = [
        Bar(
            f"{direction}, among the first {recall.k}",
            recall.share.value,
            recall.share.low,
            recall.share.high,
            recall.chance,
        )
        for direction, recalls in (("image to text", found.image_to_text), ("text to image", found.text_to_image))
        for recall in recalls
    ]
    spoken = "; ".join(f"{row.label}: {story.percent(row.value)}, chance {story.percent(row.chance)}" for row in rows)
    return bars("retrieval-bars", f"Recall with its interval. {spoken}", rows) if rows else Markup("")


def retrieval_queries(found: RetrievalResult, shards: Shards) -> tuple[list[ImageQuery], list[TextQuery]]:
    """The queries that were chosen as examples, with their pictures."""
    if found.status == "skipped":
        return [], []
    limit = found.images + len(found.unreadable)
    pairs = {pair.key: pair for pair in first_pairs(shards, "val", limit)}
    shown = {pair_key: _picture(pairs[pair_key]) for pair_key in _shown_keys(found.image_queries, found.text_queries)}
    images = [ImageQuery(shown[query.query], pairs[query.query].captions, query) for query in found.image_queries]
    texts = [TextQuery(query, [shown[entry.answer] for entry in query.found]) for query in found.text_queries]
    return images, texts


def _shown_keys(image_queries: Sequence[Query], text_queries: Sequence[Query]) -> set[str]:
    return {query.query for query in image_queries} | {entry.answer for query in text_queries for entry in query.found}


def _picture(pair: Pair) -> Picture:
    return Picture(data_uri(pair.image), pair.captions[0])
