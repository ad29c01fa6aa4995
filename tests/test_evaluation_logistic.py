"""The batched logistic regression against scikit-learn's, one penalty at a time, on the digits that it brings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from model.evaluation.logistic import Fits, Regression

PENALTIES = (1.0, 1e2, 1e4, 1e6)
Data = tuple[NDArray[np.float64], NDArray[np.int64]]


@pytest.fixture(scope="module")
def digits() -> Data:
    """Pixels of 0 to 16; some never vary."""
    features, labels = load_digits(return_X_y=True)
    return features, labels


def objective(peer: LogisticRegression, data: Data, penalty: float) -> float:
    """The loss that both minimise, of scikit-learn's own probabilities and coefficients."""
    features, labels = data
    fitted = log_loss(labels, peer.predict_proba(features), labels=peer.classes_, normalize=False)
    return float(fitted + penalty / 2 * (peer.coef_**2).sum())


def fitted(data: Data, penalties: tuple[float, ...], classes: int) -> Fits:
    return Regression.of(torch.from_numpy(data[0]).float(), torch.from_numpy(data[1]), classes).fit(penalties)


def as_peer(fits: Fits, number: int, peer: LogisticRegression) -> LogisticRegression:
    """A scikit-learn classifier with our coefficients."""
    ours = LogisticRegression()
    ours.classes_ = peer.classes_
    weight, centre = fits.weight_PCD[number].double().numpy(), fits.centre_D.numpy()
    ours.coef_, bias = weight[peer.classes_], fits.bias_PC[number].double().numpy()[peer.classes_]
    ours.intercept_ = bias - ours.coef_ @ centre
    if len(peer.classes_) == 2:
        ours.coef_, ours.intercept_ = ours.coef_[1:] - ours.coef_[:1], ours.intercept_[1:] - ours.intercept_[:1]
    return ours


def assert_same_optimum(data: Data, penalties: tuple[float, ...], classes: int) -> None:
    features, labels = data
    train, test = slice(None, None, 2), slice(1, None, 2)
    shown = (features[train], labels[train])
    fits = fitted(shown, penalties, classes)
    for number, penalty in enumerate(penalties):
        peer = LogisticRegression(C=1 / penalty, solver="newton-cholesky", max_iter=200, tol=1e-7).fit(*shown)
        ours = as_peer(fits, number, peer)
        assert objective(ours, shown, penalty) == pytest.approx(objective(peer, shown, penalty), rel=1e-4)
        logits = fits.logits(number, torch.from_numpy(features[test]).float())
        agree = (logits.argmax(dim=1).numpy() == peer.predict(features[test])).mean()
        assert agree >= 0.998
        assert fits.is_converged[number]


def test_same_optimum_at_every_penalty(digits: Data) -> None:
    assert_same_optimum(digits, PENALTIES, 10)


def test_where_the_classes_come_apart_it_is_never_above_the_peer(digits: Data) -> None:
    # The minimum is next to zero there, and far: the peer stops on the way.
    features, labels = digits[0][::2], digits[1][::2]
    penalties = (1e-6, 1e-2)
    fits = fitted((features, labels), penalties, 10)
    for number, penalty in enumerate(penalties):
        peer = LogisticRegression(C=1 / penalty, max_iter=1_000).fit(features, labels)
        ours = as_peer(fits, number, peer)
        assert objective(ours, (features, labels), penalty) <= objective(peer, (features, labels), penalty)


def test_a_start_nearby_ends_at_the_same_point_sooner(digits: Data) -> None:
    features, labels = digits
    regression = Regression.of(torch.from_numpy(features).float(), torch.from_numpy(labels), 10)
    first, anew = regression.fit((1e3,)), regression.fit((1.3e3,))
    near = regression.fit((1.3e3,), near=first.points_PK[0])
    assert near.iterations[0] < anew.iterations[0]
    assert torch.allclose(near.weight_PCD, anew.weight_PCD, atol=1e-4)


def test_two_classes_are_penalised_as_one_difference(digits: Data) -> None:
    features, labels = digits
    pair = (labels == 3) | (labels == 8)
    assert_same_optimum((features[pair], labels[pair]), (1.0, 1e3), 10)


def test_a_common_offset_and_fewer_images_than_dimensions() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 5, 160)
    features = draw.normal(size=(160, 200)) + 30 + draw.normal(size=(5, 200))[labels]
    features = features.astype(np.float32).astype(np.float64)
    assert_same_optimum((features, labels), (1.0, 1e2), 5)


def test_large_features_stall_in_float32_and_go_on_in_float64(digits: Data) -> None:
    # Derivatives grow with the features and their rounding with them, so that 1e-5 is out of reach of float32.
    features, labels = digits
    assert_same_optimum((features * 300, labels), (1e8,), 10)


def test_a_class_that_was_not_shown_is_never_chosen(digits: Data) -> None:
    features, labels = digits
    shown = labels != 4
    fits = fitted((features[shown], labels[shown]), (1.0,), 10)
    logits = fits.logits(0, torch.from_numpy(features).float())
    assert (logits[:, 4] == -torch.inf).all() and logits[:, [0, 5, 9]].isfinite().all()


def test_one_class_is_no_classifier() -> None:
    with pytest.raises(ValueError, match="at least two classes, not of 1"):
        Regression.of(torch.randn(4, 3), torch.zeros(4, dtype=torch.long), 3)


def test_features_that_are_all_equal_tell_no_class_from_another() -> None:
    features_ND, labels_N = torch.ones(12, 3), torch.tensor([0, 1, 2, 2] * 3)
    fits = Regression.of(features_ND, labels_N, 3).fit([1e-6, 1.0])
    # All that is left to learn is how frequent each class is.
    for number in range(2):
        likelihood_NC = fits.logits(number, features_ND).softmax(dim=1)
        torch.testing.assert_close(likelihood_NC, torch.tensor([[0.25, 0.25, 0.5]]).expand(12, -1), atol=1e-4, rtol=0)
