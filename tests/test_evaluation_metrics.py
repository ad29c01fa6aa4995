"""The metrics against scikit-learn and hand-worked cases, and their intervals against repeated draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score, top_k_accuracy_score

from model.evaluation.metrics import METRICS, Metric, average_precision_of, measured, value


def made(seed: int, images: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of one decimal, so that many are equal, and labels that they tell something of; every class occurs."""
    draw = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), draw.integers(0, classes, images - classes)])
    scores = draw.normal(size=(images, classes)) + 1.0 * np.eye(classes)[labels]
    return torch.tensor(scores.round(1), dtype=torch.float32), torch.tensor(labels)


def test_shares_are_those_of_scikit_learn() -> None:
    scores, labels = made(0, 300, 8)
    scores += torch.rand(scores.shape, generator=torch.Generator().manual_seed(0)) / 100  # ties are another matter
    predicted, top5 = scores.argmax(dim=1), top_k_accuracy_score(labels, scores, k=5)
    assert value("accuracy", scores, labels) == pytest.approx(accuracy_score(labels, predicted))
    assert value("mean_per_class", scores, labels) == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert value("mean_top1_top5", scores, labels) == pytest.approx((accuracy_score(labels, predicted) + top5) / 2)


@pytest.mark.parametrize("seed", range(3))
def test_roc_auc_with_ties(seed: int) -> None:
    scores, labels = made(seed, 60, 2)
    assert value("roc_auc", scores, labels) == pytest.approx(roc_auc_score(labels, scores[:, 1] - scores[:, 0]))


def eleven_points(scores: list[float], relevant: list[bool]) -> float:
    """As in the development kit of VOC 2007, in words: no ties."""
    ranked = [found for _, found in sorted(zip(scores, relevant, strict=True), reverse=True)]
    points = [(sum(ranked[:n]) * 10, sum(ranked[:n]) / n) for n in range(1, len(ranked) + 1)]
    return sum(max(p for r, p in points if r >= tenth * sum(ranked)) for tenth in range(11)) / 11


def test_eleven_point_average_precision_by_hand() -> None:
    # Right, wrong, right: precision 1 up to a recall of a half (6 points), 2/3 beyond (5 points).
    average = average_precision_of(np.array([3.0, 2.0, 1.0]), np.array([True, False, True]))
    assert average(np.ones((1, 3)))[0] == pytest.approx((6 + 5 * 2 / 3) / 11)
    # Counted twice, the wrong one pushes the last right one to the fourth place.
    assert average(np.array([[1.0, 2.0, 1.0]]))[0] == pytest.approx((6 + 5 * 2 / 4) / 11)
    # All equal: the wrong one stands first.
    equal = average_precision_of(np.zeros(3), np.array([True, False, True]))
    assert equal(np.ones((1, 3)))[0] == pytest.approx(2 / 3)


def test_mean_average_precision_is_the_slow_one_on_probabilities() -> None:
    draw = np.random.default_rng(4)
    labels = np.concatenate([np.arange(5), draw.integers(0, 5, 75)])
    scores = torch.tensor(draw.normal(size=(80, 5)) * 3 + 2 * np.eye(5)[labels])
    chances = scores.softmax(dim=1)
    slow = np.mean([eleven_points(chances[:, c].tolist(), (labels == c).tolist()) for c in range(5)])
    by_logit = np.mean([eleven_points(scores[:, c].tolist(), (labels == c).tolist()) for c in range(5)])
    found = value("mean_average_precision", scores, torch.tensor(labels))
    assert found == pytest.approx(slow) and found != pytest.approx(by_logit)


@pytest.mark.parametrize("metric", METRICS)
def test_intervals_hold_the_truth_about_as_often_as_they_say(metric: Metric) -> None:
    # The 11-point precision of a class wants 80 images of it: it is biased upward in fewer, and held less often.
    classes, images = {"roc_auc": (2, 150), "mean_average_precision": (3, 240)}.get(metric, (6, 150))
    truth = value(metric, *made(999, 20_000, classes))
    shares = [measured(metric, *made(seed, images, classes), 0.9) for seed in range(40)]
    held = sum(share.low <= truth <= share.high for share in shares)
    assert 31 <= held <= 40
    # Not by being wide: 3.3 standard deviations of what comes out would be right if all were normal.
    spread = np.std([share.value for share in shares])
    assert np.mean([share.high - share.low for share in shares]) < 5 * spread


@pytest.mark.parametrize("metric", METRICS)
def test_a_perfect_score_keeps_an_interval(metric: Metric) -> None:
    labels = torch.tensor([0, 1] * 10)
    share = measured(metric, torch.eye(2)[labels], labels, 0.95)
    assert share.value == share.high == 1.0 and 0.6 < share.low < 0.9
