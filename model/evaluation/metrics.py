"""The paper's five metrics (table 9), each with its interval.

Axes: N images, C classes, B bootstrap samples. Scores are logits; a higher one is a likelier class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from model.evaluation.intervals import Share, bootstrap, mean_of_classes, mean_of_shares, share_of

Metric = Literal["accuracy", "mean_per_class", "mean_average_precision", "roc_auc", "mean_top1_top5"]
METRICS: tuple[Metric, ...] = get_args(Metric)

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def measured(metric: Metric, scores_NC: Tensor, labels_N: Tensor, confidence: float) -> Share:
    """The metric and its interval: exact for a share, Korn-Graubard for means of shares, bootstrap for the ranking ones."""
    labels = labels_N.numpy()
    if metric in _RANKED:
        statistic = _RANKED[metric](scores_NC, labels)
        return bootstrap(statistic, labels, confidence)
    if metric == "mean_per_class":
        return mean_of_classes(*_right_by_class(scores_NC, labels), confidence)
    top1, top5 = (share_of(int(_is_among(scores_NC, labels, first).sum()), len(labels), confidence) for first in (1, 5))
    return mean_of_shares(top1, top5) if metric == "mean_top1_top5" else top1


def value(metric: Metric, scores_NC: Tensor, labels_N: Tensor) -> float:
    """The metric alone."""
    if metric in _RANKED:
        labels = labels_N.numpy()
        return float(_RANKED[metric](scores_NC, labels)(np.ones((1, len(labels))))[0])
    return measured(metric, scores_NC, labels_N, 0.5).value


def metric_chance(metric: Metric, classes: int) -> float:
    """What guessing gives, the classes being equally frequent."""
    if metric == "roc_auc":
        return 0.5
    return (1 / classes + min(5, classes) / classes) / 2 if metric == "mean_top1_top5" else 1 / classes


def auc_of(scores_N: Floats, is_positive_N: NDArray[np.bool_]) -> Callable[[Floats], Floats]:
    """ROC AUC as a function of how often each image counts (B, N): how likely a positive scores above a negative.

    A tie is half of that.
    """
    order = np.argsort(scores_N, kind="stable")
    ends = np.flatnonzero(np.diff(scores_N[order], append=np.inf) != 0)
    positive_N = is_positive_N[order]

    def auc(counts_BN: Floats) -> Floats:
        sorted_BN = counts_BN[:, order]
        positives_BG = np.diff((sorted_BN * positive_N).cumsum(axis=1)[:, ends], axis=1, prepend=0)
        below_BG = (sorted_BN * ~positive_N).cumsum(axis=1)[:, ends]
        negatives_BG = np.diff(below_BG, axis=1, prepend=0)
        won_B = (positives_BG * (below_BG - negatives_BG / 2)).sum(axis=1)
        found: Floats = won_B / (positives_BG.sum(axis=1) * below_BG[:, -1])
        return found

    return auc


def average_precision_of(scores_N: Floats, is_relevant_N: NDArray[np.bool_]) -> Callable[[Floats], Floats]:
    """The 11-point average precision of Pascal VOC 2007 as a function of how often each image counts (B, N).

    The mean over the recalls 0, 0.1, ... 1 of the best precision at that recall or a higher one (Everingham et al. 2010,
    section 4.2). Of equal scores the irrelevant ones stand first.
    """
    order = np.lexsort((is_relevant_N, -scores_N))
    relevant_N = is_relevant_N[order]

    def average_precision(counts_BN: Floats) -> Floats:
        sorted_BN = counts_BN[:, order]
        found_BN = (sorted_BN * relevant_N).cumsum(axis=1)
        precision_BN = found_BN / np.maximum(sorted_BN.cumsum(axis=1), 1)
        best_BN = np.maximum.accumulate(precision_BN[:, ::-1], axis=1)[:, ::-1]
        # In whole numbers, so that a recall of exactly 0.3 counts as one.
        needed_BT = np.arange(11) * found_BN[:, -1:]
        place_BT = np.stack([np.searchsorted(10 * row, need) for row, need in zip(found_BN, needed_BT, strict=True)])
        at_recall_BT: Floats = np.take_along_axis(best_BN, place_BT, axis=1)
        average_B: Floats = at_recall_BT.mean(axis=1)
        return average_B

    return average_precision


def _two_class_auc(scores_NC: Tensor, labels_N: Labels) -> Callable[[Floats], Floats]:
    margin_N = (scores_NC[:, 1] - scores_NC[:, 0]).double().numpy()
    return auc_of(margin_N, labels_N == 1)


def _mean_average_precision(scores_NC: Tensor, labels_N: Labels) -> Callable[[Floats], Floats]:
    """Images are ranked by probability, not by logit: a class's logits are not comparable between images."""
    likelihood_NC = scores_NC.double().log_softmax(dim=1).numpy()
    of_class = [average_precision_of(likelihood_NC[:, label], labels_N == label) for label in np.unique(labels_N)]
    return lambda counts_BN: np.mean([average(counts_BN) for average in of_class], axis=0)


_RANKED: dict[Metric, Callable[[Tensor, Labels], Callable[[Floats], Floats]]] = {
    "roc_auc": _two_class_auc,
    "mean_average_precision": _mean_average_precision,
}


def _is_among(scores_NC: Tensor, labels_N: Labels, first: int) -> Floats:
    """1 where fewer than `first` classes stand before the right one; of equal scores the lower class number does."""
    scores = scores_NC.numpy()
    own_N1 = scores[np.arange(len(labels_N)), labels_N][:, None]
    is_lower_NC = np.arange(scores.shape[1]) < labels_N[:, None]
    before_N = ((scores > own_N1) | ((scores == own_N1) & is_lower_NC)).sum(axis=1)
    found: Floats = (before_N < first).astype(float)
    return found


def _right_by_class(scores_NC: Tensor, labels_N: Labels) -> tuple[list[int], list[int]]:
    classes = scores_NC.shape[1]
    right_N = _is_among(scores_NC, labels_N, 1) > 0
    return (
        np.bincount(labels_N[right_N], minlength=classes).tolist(),
        np.bincount(labels_N, minlength=classes).tolist(),
    )
