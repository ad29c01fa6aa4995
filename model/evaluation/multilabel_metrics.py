"""Mean average precision where an image shows several classes, and its interval.

Axes: N images, C classes, B bootstrap samples. Relevance is 1 for an image that shows the class, 0 for one that does not, and
`IGNORED` for one that counts neither way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.evaluation.intervals import Share, bootstrap, clopper_pearson
from model.evaluation.metrics import Floats, average_precision_of
from model.evaluation.multilabel_samples import MultilabelImage

IGNORED = -1


def relevance_of(samples: Sequence[MultilabelImage], classes: int) -> Tensor:
    """Relevance (N, C), int8."""
    relevance_NC = torch.zeros(len(samples), classes, dtype=torch.int8)
    for row, sample in enumerate(samples):
        relevance_NC[row, list(sample.labels)] = 1
        relevance_NC[row, list(sample.ignored)] = IGNORED
    return relevance_NC


def average_precisions(scores_NC: Tensor, relevance_NC: Tensor) -> list[float | None]:
    """The 11-point average precision of each class; None of one that no image shows."""
    return [
        None if average is None else float(average(np.ones((1, len(scores_NC))))[0])
        for average in _of_classes(scores_NC, relevance_NC)
    ]


def mean_average_precision(scores_NC: Tensor, relevance_NC: Tensor) -> float:
    """Its mean over the classes that an image shows. Raises ValueError if there is none."""
    return float(_mean(scores_NC, relevance_NC)(np.ones((1, len(scores_NC))))[0])


def mean_average_precision_share(scores_NC: Tensor, relevance_NC: Tensor, confidence: float) -> Share:
    """The same with a basic bootstrap interval over images; what is perfect has the exact one of the rarest class."""
    value = mean_average_precision(scores_NC, relevance_NC)
    if value == 1:
        images_C = (relevance_NC == 1).sum(dim=0)
        rarest = int(images_C[images_C > 0].min())
        low, high = clopper_pearson(rarest, rarest, confidence)
        return Share(value=value, low=low, high=high)
    # Drawn from all images alike: no image belongs to one class alone.
    return bootstrap(_mean(scores_NC, relevance_NC), np.zeros(len(scores_NC), dtype=np.int64), confidence)


def mean_prevalence(relevance_NC: Tensor) -> float:
    """What a blind order gives in many images: the mean, over the classes that occur, of the share of images that show them."""
    shown_C = (relevance_NC == 1).sum(dim=0)
    judged_C = (relevance_NC != IGNORED).sum(dim=0)
    occurs_C = shown_C > 0
    return float((shown_C[occurs_C] / judged_C[occurs_C]).mean())


def _mean(scores_NC: Tensor, relevance_NC: Tensor) -> Callable[[Floats], Floats]:
    of_class = [average for average in _of_classes(scores_NC, relevance_NC) if average is not None]
    if not of_class:
        raise ValueError("no image shows any class")
    return lambda counts_BN: np.mean([average(counts_BN) for average in of_class], axis=0)


def _of_classes(scores_NC: Tensor, relevance_NC: Tensor) -> list[Callable[[Floats], Floats] | None]:
    scores, relevance = scores_NC.double().numpy(), relevance_NC.numpy()
    return [_of_class(scores[:, label], relevance[:, label]) for label in range(relevance.shape[1])]


def _of_class(scores_N: Floats, relevance_N: NDArray[np.int8]) -> Callable[[Floats], Floats] | None:
    judged = np.flatnonzero(relevance_N != IGNORED)
    is_shown = relevance_N[judged] == 1
    if not is_shown.any():
        return None
    average = average_precision_of(scores_N[judged], is_shown)
    (whole,) = average(np.ones((1, len(judged))))

    def of_draw(counts_BN: Floats) -> Floats:
        counts = counts_BN[:, judged]
        # A draw without an image of the class says nothing of it.
        found: Floats = np.where((counts * is_shown).any(axis=1), average(counts), whole)
        return found

    return of_draw
