"""Image-text retrieval: R@k both ways.

Axes: Q queries, G gallery entries, D dimensions of the shared space.

Rules, so that the figures mean the same on any data set:
- Texts that are the same to the model (the same tokens) are one text: one query, and every image that carries it is a
  right answer.
- An image may carry several captions: it is found if any of them is among the first k.
- Ties count against the model: a wrong answer of the same similarity stands before the right one. So a model that maps
  everything to one point scores 0, not by luck of the order.
- Chance is that of a random order, given how many right answers each query has.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from model.evaluation.intervals import share_of, share_of_clustered
from model.evaluation.results import Found, Query, Recall, RetrievalResult, Unreadable

RECALL_AT = (1, 5, 10)
EXAMPLES = 8
FOUND_SHOWN = 5
QUERIES_AT_ONCE = 512


@dataclass(frozen=True)
class Relevance:
    """Which distinct text belongs to which image, by number."""

    texts: list[str]
    texts_of_image: list[list[int]]
    images_of_text: list[list[int]]


def relevance(captions: Sequence[Sequence[str]], identity: Callable[[str], Hashable]) -> Relevance:
    """Number the distinct texts of `captions` (one list per image) in the order of their first appearance."""
    number: dict[Hashable, int] = {}
    texts: list[str] = []
    texts_of_image: list[list[int]] = []
    images_of_text: list[list[int]] = []
    for image, own in enumerate(captions):
        mine: dict[int, None] = {}
        for text in own:
            key = identity(text)
            if key not in number:
                number[key] = len(texts)
                texts.append(text)
                images_of_text.append([])
            mine[number[key]] = None
        texts_of_image.append(list(mine))
        for found in mine:
            images_of_text[found].append(image)
    return Relevance(texts, texts_of_image, images_of_text)


def first_hit_ranks(queries_QD: Tensor, gallery_GD: Tensor, relevant: Sequence[Sequence[int]]) -> list[int]:
    """The place of the first right answer of each query, from 1. Both sides are normalised."""
    ranks: list[int] = []
    for start in range(0, len(relevant), QUERIES_AT_ONCE):
        part = relevant[start : start + QUERIES_AT_ONCE]
        similarity_QG = queries_QD[start : start + QUERIES_AT_ONCE] @ gallery_GD.T
        is_right_QG = torch.zeros_like(similarity_QG, dtype=torch.bool)
        for row, answers in enumerate(part):
            is_right_QG[row, list(answers)] = True
        best_Q1 = similarity_QG.masked_fill(~is_right_QG, -math.inf).amax(dim=1, keepdim=True)
        ranks += (1 + ((similarity_QG >= best_Q1) & ~is_right_QG).sum(dim=1)).tolist()
    return ranks


def chance(relevant: Sequence[Sequence[int]], gallery: int, k: int) -> float:
    """Expected R@k of a random order: 1 - C(gallery - right, k) / C(gallery, k), mean over the queries."""
    misses = [
        math.comb(gallery - len(answers), k) / math.comb(gallery, k) if k <= gallery else 0.0 for answers in relevant
    ]
    return 1 - sum(misses) / len(misses)


def measure_retrieval(
    keys: Sequence[str],
    images_ND: Tensor,
    texts_MD: Tensor,
    pairs: Relevance,
    unreadable: Sequence[Unreadable],
    confidence: float,
) -> RetrievalResult:
    """R@1, 5 and 10 both ways; `keys` name the images of `images_ND`, `texts_MD` are the texts of `pairs`."""
    images_ND, texts_MD = functional.normalize(images_ND, dim=-1), functional.normalize(texts_MD, dim=-1)
    image_ranks = first_hit_ranks(images_ND, texts_MD, pairs.texts_of_image)
    text_ranks = first_hit_ranks(texts_MD, images_ND, pairs.images_of_text)
    # The texts of one image are asked of the same pixels, so they are one cluster.
    cluster_of_text = [images[0] for images in pairs.images_of_text]
    return RetrievalResult(
        status="measured",
        images=len(keys),
        texts=len(pairs.texts),
        unreadable=list(unreadable),
        image_to_text=[
            Recall(
                k=k,
                share=share_of(sum(rank <= k for rank in image_ranks), len(keys), confidence),
                chance=chance(pairs.texts_of_image, len(pairs.texts), k),
            )
            for k in RECALL_AT
        ],
        text_to_image=[
            Recall(
                k=k,
                share=share_of_clustered([rank <= k for rank in text_ranks], cluster_of_text, confidence),
                chance=chance(pairs.images_of_text, len(keys), k),
            )
            for k in RECALL_AT
        ],
        image_queries=_examples(keys, pairs.texts, images_ND, texts_MD, pairs.texts_of_image, image_ranks),
        text_queries=_examples(pairs.texts, keys, texts_MD, images_ND, pairs.images_of_text, text_ranks),
    )


def _examples(
    queries: Sequence[str],
    answers: Sequence[str],
    queries_QD: Tensor,
    gallery_GD: Tensor,
    relevant: Sequence[Sequence[int]],
    ranks: Sequence[int],
) -> list[Query]:
    """Queries chosen by the hash of their name, good or bad, so that the gallery is an honest sample."""
    chosen = sorted(range(len(queries)), key=lambda index: hashlib.sha256(queries[index].encode()).digest())[:EXAMPLES]
    similarity_EG = queries_QD[chosen] @ gallery_GD.T
    order_EG = similarity_EG.argsort(dim=1, descending=True, stable=True)[:, :FOUND_SHOWN]
    return [
        Query(
            query=queries[query],
            rank=ranks[query],
            found=[
                Found(
                    answer=answers[entry], similarity=float(similarity_EG[row, entry]), is_hit=entry in relevant[query]
                )
                for entry in order_EG[row].tolist()
            ],
        )
        for row, query in enumerate(chosen)
    ]
