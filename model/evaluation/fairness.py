"""Rates by group of people (section 7.1 of the paper): accuracy, and how often images fall into a category of further classes.

A group is a value of a column, or of two columns together. Shares of a group have Clopper-Pearson intervals. The largest gap
between two groups of a column is picked out of all pairs, so its interval (Newcombe 1998, method 10) is one that holds all of
these differences at once (Bonferroni); groups of few images have none.

Axes: N images, C classes, E further classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor

from model.evaluation.groups import Groups
from model.evaluation.intervals import Share, difference_of_shares, share_of
from model.evaluation.results import Result
from model.evaluation.zero_shot import choose

LEAST_IMAGES = 30
"""Of a group that is compared with another: with fewer the largest gap would mostly be one of chance."""

JudgedBy = Literal["zero-shot", "linear probe"]
Counts = dict[tuple[str, ...], tuple[int, int]]
"""Hits and images of each group."""


class GroupRate(Result):
    """One group: its value in each column, its images, and the share of them that hit."""

    group: dict[str, str]
    images: int
    share: Share


class Gap(Result):
    """The groups of these columns that are the farthest apart; `gap` is the difference of their shares. None where fewer than
    two groups have images enough.
    """

    columns: tuple[str, ...]
    groups_compared: int
    highest: GroupRate | None = None
    lowest: GroupRate | None = None
    gap: Share | None = None


class GroupRates(Result):
    """How often images of each group are given the right class, or, with a category, one of its classes; `overall` is of all."""

    judged_by: JudgedBy
    category: str = ""
    overall: Share
    groups: list[GroupRate]
    gaps: list[Gap]

    def of(self, columns: tuple[str, ...]) -> list[GroupRate]:
        """The groups of these columns."""
        return [found for found in self.groups if tuple(found.group) == columns]


class Fairness(Result):
    """One set. `untold` counts images without a group, by column; `categories` are the classes that were added."""

    set: str
    images: int
    untold: dict[str, int]
    categories: dict[str, tuple[str, ...]]
    rates: list[GroupRates]


def fairness_of(
    name: str,
    groups: Groups,
    rows: Sequence[int],
    labels_N: Tensor,
    whole_NC: Tensor | None,
    extra_NE: Tensor | None,
    probe_NC: Tensor | None,
    confidence: float,
) -> Fairness:
    """The rates of one set from logits: zero-shot, of the further classes on the same scale, of the linear probe; None if there
    are none. `rows` are the numbers of the images in `groups`.
    """
    values = {column: [told[row] for row in rows] for column, told in groups.values.items()}
    rates = []
    judges: list[tuple[JudgedBy, Tensor | None]] = [("zero-shot", whole_NC), ("linear probe", probe_NC)]
    for judged_by, logits_NC in judges:
        if logits_NC is not None:
            right_N = choose(logits_NC, labels_N).rank == 0
            rates.append(rates_of(judged_by, "", right_N.tolist(), values, confidence))
    if whole_NC is not None and extra_NE is not None:
        chosen_N = choose(torch.cat([whole_NC, extra_NE], dim=1), labels_N).label - whole_NC.shape[1]
        first = 0
        for category, classes in groups.categories.items():
            hit_N = (chosen_N >= first) & (chosen_N < first + len(classes))
            rates.append(rates_of("zero-shot", category, hit_N.tolist(), values, confidence))
            first += len(classes)
    return Fairness(
        set=name,
        images=len(rows),
        untold={column: told.count("") for column, told in values.items() if "" in told},
        categories=dict(groups.categories) if whole_NC is not None else {},
        rates=rates,
    )


def rates_of(
    judged_by: JudgedBy, category: str, hits: Sequence[bool], values: dict[str, list[str]], confidence: float
) -> GroupRates:
    """The rates of every group of one column and of two, and the largest gap of each."""
    groups: list[GroupRate] = []
    gaps: list[Gap] = []
    for columns in [*combinations(values, 1), *combinations(values, 2)]:
        counts = _counts(hits, [values[column] for column in columns])
        own = [
            GroupRate(
                group=dict(zip(columns, group, strict=True)), images=images, share=share_of(right, images, confidence)
            )
            for group, (right, images) in counts.items()
        ]
        groups += own
        gaps.append(_gap(columns, own, list(counts.values()), confidence))
    overall = share_of(sum(hits), len(hits), confidence)
    return GroupRates(judged_by=judged_by, category=category, overall=overall, groups=groups, gaps=gaps)


def _counts(hits: Sequence[bool], columns: Sequence[Sequence[str]]) -> Counts:
    counts: Counts = {}
    for hit, *group in zip(hits, *columns, strict=True):
        if all(group):
            right, images = counts.get(tuple(group), (0, 0))
            counts[tuple(group)] = (right + hit, images + 1)
    return dict(sorted(counts.items()))


def _gap(
    columns: tuple[str, ...], rates: Sequence[GroupRate], counts: Sequence[tuple[int, int]], confidence: float
) -> Gap:
    compared = [number for number, rate in enumerate(rates) if rate.images >= LEAST_IMAGES]
    if len(compared) < 2:
        return Gap(columns=columns, groups_compared=len(compared))
    highest = max(compared, key=lambda number: rates[number].share.value)
    others = [number for number in compared if number != highest]
    lowest = min(others, key=lambda number: rates[number].share.value)
    pairs = len(compared) * (len(compared) - 1) // 2
    return Gap(
        columns=columns,
        groups_compared=len(compared),
        highest=rates[highest],
        lowest=rates[lowest],
        gap=difference_of_shares(*counts[highest], *counts[lowest], 1 - (1 - confidence) / pairs),
    )
