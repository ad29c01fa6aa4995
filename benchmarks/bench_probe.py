"""The linear probe's search of its penalty, and the fit after it, against scikit-learn at the very same penalties.

    python -m benchmarks.bench_probe --shape 3000,128,20

Features are made from a seed: classes overlap, variance falls off by a power law, and all share an offset, as the features of
an image tower do. Both see the same images and try the same penalties, those of the paper's search (15 of 97); scikit-learn's
LogisticRegression(C=1 / penalty, max_iter=1000) one after the other in float64. Each chooses the best on validation images, fits
once more with these too, and is judged on test images. One thread each; seconds are of the processor.
"""

from __future__ import annotations

import argparse
import platform
import time
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from model.evaluation.logistic import TOLERANCE, Regression
from model.evaluation.probe import Labelled, search_penalty

PEER_TOLERANCE = 1e-4
NORM = 10.0


@dataclass(frozen=True)
class Outcome:
    """What one of the two took and found."""

    name: str
    search_s: float
    refit_s: float
    penalty: float
    accuracy: float


def make_images(images: int, dimensions: int, classes: int) -> tuple[Labelled, Labelled, Labelled]:
    """Train, val (a quarter as many) and test (10,000)."""
    draw = np.random.default_rng(0)
    spread_D = (1 + np.arange(dimensions)) ** -0.5
    centre_CD = 0.6 * draw.normal(size=(classes, dimensions)) * spread_D
    turn_DD = np.linalg.qr(draw.normal(size=(dimensions, dimensions)))[0]
    offset_D = 1.5 * draw.normal(size=dimensions)
    splits = []
    for count in (images, images // 4, 10_000):
        label_N = draw.integers(0, classes, count)
        feature_ND = (centre_CD[label_N] + 3 * draw.normal(size=(count, dimensions)) * spread_D) @ turn_DD + offset_D
        feature_ND *= NORM / np.linalg.norm(feature_ND, axis=1, keepdims=True)
        splits.append(Labelled(torch.tensor(feature_ND, dtype=torch.float32), torch.from_numpy(label_N)))
    train, val, test = splits
    return train, val, test


def run_ours(
    train: Labelled, val: Labelled, test: Labelled, classes: int, tolerance: float
) -> tuple[Outcome, list[float]]:
    started = time.process_time()
    search = search_penalty(train, val, classes, "accuracy", tolerance)
    searched = time.process_time()
    whole = train + val
    fits = Regression.of(whole.features_ND, whole.labels_N, classes).fit([search.chosen.penalty], tolerance=tolerance)
    ended = time.process_time()
    right = fits.logits(0, test.features_ND).argmax(dim=1) == test.labels_N
    outcome = Outcome(
        f"ours, tolerance {tolerance:g}",
        searched - started,
        ended - searched,
        search.chosen.penalty,
        float(right.double().mean()),
    )
    return outcome, [point.penalty for point in search.sweep]


def run_peer(
    train: Labelled, val: Labelled, test: Labelled, penalties: list[float], our_penalty: float
) -> tuple[Outcome, dict[float, float], float]:
    """Also the loss it reached at each penalty, and its test accuracy at the one that we chose."""
    (train_ND, train_N), (val_ND, val_N), (test_ND, test_N) = map(as_numpy, (train, val, test))
    losses, values = {}, {}
    search_s = 0.0
    for penalty in penalties:
        started = time.process_time()
        peer = LogisticRegression(C=1 / penalty, max_iter=1_000, tol=PEER_TOLERANCE).fit(train_ND, train_N)
        values[penalty] = float(peer.score(val_ND, val_N))
        search_s += time.process_time() - started
        losses[penalty] = loss(peer.decision_function(train_ND), train_N, peer.coef_, penalty)
    best = max(penalties, key=lambda penalty: (values[penalty], penalty))
    whole_ND, whole_N = np.concatenate([train_ND, val_ND]), np.concatenate([train_N, val_N])
    accuracies = {}
    for penalty in (our_penalty, best):
        started = time.process_time()
        peer = LogisticRegression(C=1 / penalty, max_iter=1_000, tol=PEER_TOLERANCE).fit(whole_ND, whole_N)
        refit_s = time.process_time() - started
        accuracies[penalty] = float(peer.score(test_ND, test_N))
    outcome = Outcome(f"scikit-learn, tolerance {PEER_TOLERANCE:g}", search_s, refit_s, best, accuracies[best])
    return outcome, losses, accuracies[our_penalty]


def as_numpy(split: Labelled) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    return split.features_ND.double().numpy(), split.labels_N.numpy()


def loss(
    logits_NC: NDArray[np.float64], label_N: NDArray[np.int64], weight_CD: NDArray[np.float64], penalty: float
) -> float:
    """What both minimise."""
    wide_NC = torch.from_numpy(logits_NC)
    cross = torch.nn.functional.cross_entropy(wide_NC, torch.from_numpy(label_N), reduction="sum")
    return float(cross) + penalty / 2 * float((weight_CD**2).sum())


def our_losses(train: Labelled, penalties: list[float], classes: int, tolerance: float) -> list[float]:
    fits = Regression.of(train.features_ND, train.labels_N, classes).fit(penalties, tolerance=tolerance)
    weight_PCD = fits.weight_PCD.double().numpy()
    return [
        loss(
            fits.logits(number, train.features_ND).double().numpy(), train.labels_N.numpy(), weight_PCD[number], penalty
        )
        for number, penalty in enumerate(penalties)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="3000,128,20", help="training images, dimensions, classes")
    images, dimensions, classes = map(int, parser.parse_args().shape.split(","))
    torch.set_num_threads(1)
    threadpool_limits(1)  # idle threads of NumPy's BLAS spin, which would count as scikit-learn's time
    warnings.simplefilter("ignore", ConvergenceWarning)
    train, val, test = make_images(images, dimensions, classes)
    ours = []
    for tolerance in (PEER_TOLERANCE, TOLERANCE):
        outcome, penalties = run_ours(train, val, test, classes, tolerance)
        ours.append(outcome)
    peer, losses, peer_accuracy = run_peer(train, val, test, penalties, outcome.penalty)
    print(f"{images:,} images, {dimensions} dimensions, {classes} classes, {platform.machine()}\n")
    print(f"| | search of {len(penalties)} penalties, s | fit after it, s | times faster | penalty | test accuracy |")
    print("|---|---|---|---|---|---|")
    whole_s = peer.search_s + peer.refit_s
    for found in (peer, *ours):
        times = whole_s / (found.search_s + found.refit_s)
        print(
            f"| {found.name} | {found.search_s:.2f} | {found.refit_s:.2f} | {times:.1f} "
            f"| {found.penalty:.3g} | {100 * found.accuracy:.2f} % |"
        )
    above = [
        our_loss / losses[penalty] - 1
        for our_loss, penalty in zip(our_losses(train, penalties, classes, TOLERANCE), penalties, strict=True)
    ]
    print(f"\nAt {outcome.penalty:.3g} scikit-learn's test accuracy is {100 * peer_accuracy:.2f} %.")
    print(
        f"Our loss against scikit-learn's over the {len(penalties)} penalties: {min(above):+.1e} to {max(above):+.1e}."
    )


if __name__ == "__main__":
    main()
