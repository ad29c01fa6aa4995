"""The paper's linear probe (section 3.2, appendix A.3) and its few-shot form (section 3.1.4) on cached features.

The penalty is one of 96 steps between 1e-6 and 1e6, eight to a tenfold, on a sum of losses: scikit-learn's C is 1 / penalty.
It is the best on validation images; the classifier is then fitted once more with these images too, and tested once.

Axes: N images, D dimensions of a feature, C classes.
"""

# ruff: noqa: N815 (a tensor's name ends in its axes)
from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from model.evaluation.calibration import calibrate
from model.evaluation.logistic import TOLERANCE, Fits, Regression
from model.evaluation.metrics import Metric, measured, value
from model.evaluation.results import FewShotResult, ProbeResult, SweepPoint

STEPS = 96
FIRST_SPACING = 16
"""The paper starts at 1e-6, 1e-4, ... 1e6 and halves the interval round the peak until it has 8 steps to a tenfold."""
FEW_SHOT_VAL = 4
"""Validation images of a class at most, where few are given for training (Zhou et al. 2022, CoOp)."""


@dataclass(frozen=True)
class Labelled:
    """Features (N, D) on the device that computes, and their labels (N) on the CPU."""

    features_ND: Tensor
    labels_N: Tensor

    def __add__(self, other: Labelled) -> Labelled:
        return Labelled(torch.cat([self.features_ND, other.features_ND]), torch.cat([self.labels_N, other.labels_N]))

    def at(self, rows: Sequence[int]) -> Labelled:
        """These rows of it."""
        chosen = torch.tensor(rows, dtype=torch.long)
        return Labelled(self.features_ND[chosen.to(self.features_ND.device)], self.labels_N[chosen])


@dataclass(frozen=True)
class Search:
    """Every penalty that was tried and the classifier of the chosen one."""

    sweep: list[SweepPoint]
    chosen: SweepPoint
    val_logits_NC: Tensor


def penalty_of(step: int) -> float:
    """1e-6 at 0, 1e6 at 96."""
    return float(10.0 ** (-6 + step / 8))


class Fitter(Protocol):
    """What fits a classifier at every penalty, from a point (K) that is near if there is one."""

    def fit(self, penalties: Sequence[float], near: Tensor | None = None, tolerance: float = TOLERANCE) -> Fits: ...


def search(fitter: Fitter, val_ND: Tensor, value_of: Callable[[Tensor], float], tolerance: float = TOLERANCE) -> Search:
    """15 of the 97 penalties: seven over the whole range, then both neighbours of the best, nearer and nearer.

    `value_of` judges the scores (N, C) of the validation images. Of equally good penalties the strongest is the best. Those of a
    round are fitted together, from the best point so far.
    """
    points: dict[int, Tensor] = {}
    tried: dict[int, SweepPoint] = {}
    logits: dict[int, Tensor] = {}
    steps, spacing = list(range(0, STEPS + 1, FIRST_SPACING)), FIRST_SPACING
    while True:
        fits = fitter.fit([penalty_of(step) for step in steps], next(iter(points.values()), None), tolerance)
        for number, step in enumerate(steps):
            points[step] = fits.points_PK[number]
            logits[step] = fits.logits(number, val_ND).cpu()
            tried[step] = SweepPoint(
                penalty=fits.penalties[number],
                value=value_of(logits[step]),
                iterations=fits.iterations[number],
                is_converged=fits.is_converged[number],
            )
        best = max(tried, key=lambda step: (tried[step].value, step))
        points, logits = {best: points[best]}, {best: logits[best]}
        spacing //= 2
        if spacing == 0:
            return Search([tried[step] for step in sorted(tried)], tried[best], logits[best])
        steps = [step for step in (best - spacing, best + spacing) if 0 <= step <= STEPS]


def search_penalty(
    train: Labelled, val: Labelled, classes: int, metric: Metric, tolerance: float = TOLERANCE
) -> Search:
    """The search with one label an image."""
    value_of = partial(value, metric, labels_N=val.labels_N)
    return search(_regression(train, classes), val.features_ND, value_of, tolerance)


def linear_probe(
    train: Labelled, val: Labelled, test: Labelled, classes: int, metric: Metric, confidence: float
) -> tuple[ProbeResult, Tensor]:
    """Search the penalty on `val`, fit on `train` and `val`, measure on `test`, whose logits (N, C) are returned too.

    Raises ValueError if train shows one class.
    """
    found = search_penalty(train, val, classes, metric)
    fits = _regression(train + val, classes).fit([found.chosen.penalty])
    logits_NC = fits.logits(0, test.features_ND).cpu()
    result = ProbeResult(
        train_images=len(train.labels_N),
        val_images=len(val.labels_N),
        dimensions=train.features_ND.shape[1],
        penalty=found.chosen.penalty,
        iterations=fits.iterations[0],
        is_converged=fits.is_converged[0],
        sweep=found.sweep,
        metric=measured(metric, logits_NC, test.labels_N, confidence),
        top1=measured("accuracy", logits_NC, test.labels_N, confidence),
        mean_per_class=measured("mean_per_class", logits_NC, test.labels_N, confidence),
        calibration=calibrate(found.val_logits_NC, val.labels_N, logits_NC, test.labels_N),
    )
    return result, logits_NC


def few_shot_probe(
    train: Labelled,
    val: Labelled,
    test: Labelled,
    keys: tuple[Sequence[str], Sequence[str]],
    classes: int,
    metric: Metric,
    examples: int,
    seeds: int,
) -> FewShotResult:
    """Probes on `examples` images of each class that `train` shows, drawn anew for every seed.

    `keys` name the images of `train` and `val`; a draw follows from them and the seed alone, and a larger one holds the
    smaller. The penalty is searched on as many validation images, four of a class at most, and these are not fitted on:
    few-shot users have no more.
    """
    fewest = min(int(images) for images in train.labels_N.bincount() if images)
    if fewest < examples:
        return FewShotResult(examples=examples, reason=f"a class has only {fewest} training images")
    values = []
    for seed in range(seeds):
        shown = train.at(draw(keys[0], train.labels_N, examples, seed))
        judged = val.at(draw(keys[1], val.labels_N, min(examples, FEW_SHOT_VAL), seed))
        penalty = search_penalty(shown, judged, classes, metric).chosen.penalty
        fits = _regression(shown, classes).fit([penalty])
        values.append(value(metric, fits.logits(0, test.features_ND).cpu(), test.labels_N))
    deviation = float(np.std(values, ddof=1)) if seeds > 1 else None
    return FewShotResult(examples=examples, values=values, mean=float(np.mean(values)), deviation=deviation)


def draw(keys: Sequence[str], labels_N: Tensor, per_class: int, seed: int) -> list[int]:
    """The rows of the first `per_class` of each class in the order of the hash of (seed, key)."""
    of_class = _by_class(keys, labels_N, f"few-shot/{seed}")
    return sorted(row for rows in of_class.values() for row in rows[:per_class])


def carve(keys: Sequence[str], labels_N: Tensor, share: float) -> tuple[list[int], list[int]]:
    """Rows for training and rows for validation: of each class `share`, but one at least and all but one at most.

    A class of one image stays in training.
    """
    train: list[int] = []
    val: list[int] = []
    for rows in _by_class(keys, labels_N, "validation").values():
        held = min(max(round(share * len(rows)), 1), len(rows) - 1)
        val += rows[:held]
        train += rows[held:]
    return sorted(train), sorted(val)


def _by_class(keys: Sequence[str], labels_N: Tensor, salt: str) -> dict[int, list[int]]:
    def place(row: int) -> bytes:
        return hashlib.sha256(f"{salt}/{keys[row]}".encode()).digest()

    of_class: defaultdict[int, list[int]] = defaultdict(list)
    for row, label in enumerate(labels_N.tolist()):
        of_class[label].append(row)
    return {label: sorted(rows, key=place) for label, rows in of_class.items()}


def _regression(shown: Labelled, classes: int) -> Regression:
    return Regression.of(shown.features_ND, shown.labels_N.to(shown.features_ND.device), classes)
