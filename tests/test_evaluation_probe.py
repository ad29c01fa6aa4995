"""Linear probe, few-shot, nearest neighbours and calibration on the digits that scikit-learn brings, beside scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from model.evaluation.calibration import calibrate, calibration_error, fit_temperature
from model.evaluation.knn import neighbour_votes
from model.evaluation.probe import Labelled, carve, draw, few_shot_probe, linear_probe, penalty_of, search_penalty

KEYS = [f"{number:04d}" for number in range(1_797)]


@pytest.fixture(scope="module")
def digits() -> Labelled:
    features, labels = load_digits(return_X_y=True)
    return Labelled(torch.tensor(features, dtype=torch.float32), torch.from_numpy(labels))


@pytest.fixture(scope="module")
def splits(digits: Labelled) -> tuple[Labelled, Labelled, Labelled]:
    """Train (300), val (300), test (1,197)."""
    order = np.random.default_rng(0).permutation(1_797).tolist()
    return digits.at(order[:300]), digits.at(order[300:600]), digits.at(order[600:])


def peer_of(shown: Labelled, penalty: float) -> LogisticRegression:
    peer = LogisticRegression(C=1 / penalty, solver="newton-cholesky", max_iter=200, tol=1e-6)
    return peer.fit(shown.features_ND.double().numpy(), shown.labels_N.numpy())


def score(peer: LogisticRegression, asked: Labelled) -> float:
    return float(peer.score(asked.features_ND.double().numpy(), asked.labels_N.numpy()))


def test_the_whole_probe_is_scikit_learns(splits: tuple[Labelled, Labelled, Labelled]) -> None:
    train, val, test = splits
    found, logits_NC = linear_probe(train, val, test, 10, "accuracy", 0.95)
    assert found.top1.value == pytest.approx(float((logits_NC.argmax(dim=1) == test.labels_N).double().mean()))
    for point in found.sweep:
        if point.penalty >= 1:  # below, the classes come apart and the peer stops early (test_evaluation_logistic)
            assert point.value == pytest.approx(score(peer_of(train, point.penalty), val), abs=0.004)
    best = max(point.value for point in found.sweep)
    assert found.penalty == max(point.penalty for point in found.sweep if point.value == best)
    peer = peer_of(train + val, found.penalty)
    assert found.top1.value == pytest.approx(score(peer, test), abs=0.002)
    assert found.metric == found.top1 and found.top1.value > 0.93
    assert (found.train_images, found.val_images, found.dimensions) == (300, 300, 64)


def test_the_search_is_the_papers(splits: tuple[Labelled, Labelled, Labelled]) -> None:
    search = search_penalty(*splits[:2], classes=10, metric="accuracy")
    steps = [round(8 * (6 + math.log10(point.penalty))) for point in search.sweep]
    assert set(range(0, 97, 16)) <= set(steps) and len(set(steps)) == len(steps) <= 15
    assert penalty_of(0) == pytest.approx(1e-6) and penalty_of(96) == pytest.approx(1e6)
    # The peak has both its neighbours at an eighth of a tenfold.
    peak = round(8 * (6 + math.log10(search.chosen.penalty)))
    assert {peak - 1, peak + 1} <= set(steps)


def test_features_without_news_take_the_strongest_penalty() -> None:
    same = Labelled(torch.randn(40, 4, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2)
    alone = Labelled(torch.zeros(2, 4), torch.tensor([0, 1]))
    search = search_penalty(same, alone, 2, "accuracy")  # any bias is right for one of the two
    assert search.chosen.penalty == pytest.approx(1e6) and len(search.sweep) == 11


def test_few_shot_is_fitted_on_what_was_drawn(splits: tuple[Labelled, Labelled, Labelled], digits: Labelled) -> None:
    train, val, test = splits
    keys = (KEYS[:300], KEYS[300:600])
    found = {k: few_shot_probe(train, val, test, keys, 10, "accuracy", k, 2) for k in (1, 16)}
    assert len(found[1].values) == 2 and len(set(found[1].values)) > 1
    assert found[1].mean == pytest.approx(np.mean(found[1].values)) and found[16].mean is not None
    assert 0.3 < found[1].mean < 0.75 < 0.85 < found[16].mean < 0.96
    # A penalty is at hand at which scikit-learn says the same of the very same images.
    shown = train.at(draw(keys[0], train.labels_N, 16, 0))
    assert shown.labels_N.bincount().tolist() == [16] * 10
    peers = [score(peer_of(shown, 10.0**power), test) for power in (0, 2, 4)]
    assert min(peers) - 0.01 <= found[16].values[0] <= max(peers) + 0.01
    few = few_shot_probe(train, val, test, keys, 10, "accuracy", 200, 3)
    assert few.values == [] and few.mean is None and few.reason.startswith("a class has only 2")


def test_draws_are_nested_and_follow_the_seed(digits: Labelled) -> None:
    labels = digits.labels_N
    small, large, other = (draw(KEYS, labels, k, seed) for k, seed in ((2, 0), (8, 0), (2, 1)))
    assert set(small) < set(large) and small != other and small == draw(KEYS, labels, 2, 0)
    assert labels[small].bincount().tolist() == [2] * 10


def test_validation_is_carved_from_every_class() -> None:
    labels = torch.tensor([0] * 50 + [1] * 3 + [2])
    train, val = carve(KEYS[:54], labels, 0.1)
    assert sorted(train + val) == list(range(54))
    assert labels[val].bincount(minlength=3).tolist() == [5, 1, 0]


def test_neighbours_are_scikit_learns(splits: tuple[Labelled, Labelled, Labelled]) -> None:
    train, _, test = splits
    votes = neighbour_votes(train.features_ND, train.labels_N, test.features_ND, 10, 20)
    peer = KNeighborsClassifier(20, weights=lambda distance: 1 - distance, metric="cosine", algorithm="brute")
    peer.fit(train.features_ND.double().numpy(), train.labels_N.numpy())
    shares = peer.predict_proba(test.features_ND.double().numpy())
    np.testing.assert_allclose((votes / votes.sum(dim=1, keepdim=True)).numpy(), shares, atol=1e-4)


def test_fewer_images_than_neighbours() -> None:
    votes = neighbour_votes(torch.eye(3), torch.tensor([0, 1, 1]), torch.tensor([[1.0, 0.0, 0.0]]), 2, 20)
    assert votes.tolist() == [[1.0, 0.0]]


def made_logits(images: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits whose softmax is the truth."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(images, 6, generator=generator)
    return logits, logits.softmax(dim=1).multinomial(1, generator=generator)[:, 0]


def test_a_known_temperature_is_found_and_mends_the_calibration() -> None:
    val_logits, val_labels = made_logits(20_000, 0)
    logits, labels = made_logits(20_000, 1)
    found = calibrate(3 * val_logits, val_labels, 3 * logits, labels)
    assert found.temperature == pytest.approx(3, rel=0.03)
    assert found.error_before > 0.1 and found.error_after < 0.015


def test_calibration_error_by_definition() -> None:
    logits, labels = made_logits(500, 2)
    chances = (2 * logits).softmax(dim=1)
    slow = 0.0
    for edge in range(15):
        rows = [row for row, top in enumerate(chances.amax(dim=1).tolist()) if edge / 15 < top <= (edge + 1) / 15]
        if rows:
            right = sum(int(chances[row].argmax() == labels[row]) for row in rows)
            slow += abs(right - sum(float(chances[row].max()) for row in rows)) / 500
    assert calibration_error(2 * logits, labels) == pytest.approx(slow, abs=1e-6)


def test_a_class_that_the_classifier_does_not_know_says_nothing_of_the_temperature() -> None:
    logits, labels = made_logits(5_000, 3)
    logits[:, 5] = -math.inf
    known = labels != 5
    assert fit_temperature(logits, labels) == pytest.approx(fit_temperature(logits[known], labels[known]))
