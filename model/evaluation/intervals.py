"""Shares with confidence intervals.

Exact for independent trials, Korn-Graubard for trials in classes or clusters, bootstrap for what is no mean over trials,
Newcombe's for the difference of two shares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.special import betaincinv, ndtri

BOOTSTRAP_SAMPLES = 1_000
SAMPLES_AT_ONCE = 50


class Share(BaseModel):
    """A share between 0 and 1 and the confidence interval round it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float
    low: float
    high: float


def clopper_pearson(hits: float, trials: float, confidence: float) -> tuple[float, float]:
    """The exact two-sided binomial interval, as in the paper's table 10. Both counts may be fractions."""
    if not 0 <= hits <= trials:
        raise ValueError(f"{hits} hits of {trials} trials")
    tail = (1 - confidence) / 2
    low = float(betaincinv(hits, trials - hits + 1, tail)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, trials - hits, 1 - tail)) if hits < trials else 1.0
    return low, high


def share_of(hits: int, trials: int, confidence: float) -> Share:
    """The share of independent trials that hit."""
    low, high = clopper_pearson(hits, trials, confidence)
    return Share(value=hits / trials if trials else 0.0, low=low, high=high)


def wilson(hits: int, trials: int, confidence: float) -> tuple[float, float]:
    """The score interval of Wilson 1927, which Newcombe's interval of a difference is made of."""
    z = float(ndtri((1 + confidence) / 2))
    share, room = hits / trials, 1 + z**2 / trials
    middle = (share + z**2 / (2 * trials)) / room
    half = z / room * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return middle - half, middle + half


def difference_of_shares(hits: int, trials: int, other_hits: int, other_trials: int, confidence: float) -> Share:
    """The share of some trials less that of others, all independent, with the interval of Newcombe 1998 (method 10)."""
    share, other = hits / trials, other_hits / other_trials
    low, high = wilson(hits, trials, confidence)
    other_low, other_high = wilson(other_hits, other_trials, confidence)
    value = share - other
    return Share(
        value=value,
        low=value - math.hypot(share - low, other_high - other),
        high=value + math.hypot(high - share, other - other_low),
    )


def mean_of_classes(hits: Sequence[int], trials: Sequence[int], confidence: float) -> Share:
    """The mean over classes of the share of each class. A class without trials has no share and does not count."""
    hits_C, trials_C = np.asarray(hits, float), np.asarray(trials, float)
    seen_C = trials_C > 0
    hits_C, trials_C = hits_C[seen_C], trials_C[seen_C]
    share_C = hits_C / trials_C
    # Four misses of four do not prove that the class never hits: such a class lends the variance of half a hit.
    is_sure_C = (hits_C == 0) | (hits_C == trials_C)
    spread_C = np.where(is_sure_C, (hits_C + 0.5) / (trials_C + 1), share_C)
    variance = float((spread_C * (1 - spread_C) / trials_C).sum()) / max(len(share_C), 1) ** 2
    return _korn_graubard(float(share_C.mean()) if len(share_C) else 0.0, variance, int(trials_C.sum()), confidence)


def share_of_clustered(hits: Sequence[bool], clusters: Sequence[int], confidence: float) -> Share:
    """The share of trials that hit, where trials of one cluster (captions of one image) are not independent."""
    hits_N: NDArray[np.float64] = np.asarray(hits, float)
    trials = len(hits_N)
    if trials == 0:
        return Share(value=0.0, low=0.0, high=1.0)
    value = float(hits_N.mean())
    names, cluster_N = np.unique(np.asarray(clusters), return_inverse=True)
    residual_G = np.bincount(cluster_N, weights=hits_N - value, minlength=len(names))
    variance = float((residual_G**2).sum()) / trials**2 * len(names) / max(len(names) - 1, 1)
    return _korn_graubard(value, variance, trials, confidence)


def mean_of_shares(first: Share, second: Share) -> Share:
    """The mean of two shares of the same trials. Its ends are the means of theirs: right if the two always agree, else wide."""
    return Share(
        value=(first.value + second.value) / 2, low=(first.low + second.low) / 2, high=(first.high + second.high) / 2
    )


def bootstrap(
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]], labels: NDArray[np.int64], confidence: float
) -> Share:
    """The basic interval of a statistic of images (Davison and Hinkley 1997, section 5.2): the sample's value less what the
    bootstrap's values stray from it. Unlike their percentiles it corrects most of the bias that a ranking metric has in few
    images; with 25 images a class, mean average precision still strayed out of nine in ten such intervals one time in four.

    `statistic` takes how often each image counts (B, N) and gives (B) values. Images are drawn anew within their class, so
    that none is lost. Samples of what is perfect are perfect: there the interval is the exact one of the smallest class.
    """
    _, label_N, images_C = np.unique(labels, return_inverse=True, return_counts=True)
    members_N = np.argsort(label_N, kind="stable")
    first_N, own_N = (np.cumsum(images_C) - images_C)[label_N], images_C[label_N]
    value = float(statistic(np.ones((1, len(labels))))[0])
    smallest = int(images_C.min())
    if value in (0.0, 1.0):
        low, high = clopper_pearson(value * smallest, smallest, confidence)
        return Share(value=value, low=low, high=high)
    draw = np.random.default_rng(0)
    values: list[NDArray[np.float64]] = []
    for _ in range(BOOTSTRAP_SAMPLES // SAMPLES_AT_ONCE):
        drawn_BN = members_N[first_N + (draw.random((SAMPLES_AT_ONCE, len(labels))) * own_N).astype(np.int64)]
        values.append(statistic(np.stack([np.bincount(row, minlength=len(labels)) for row in drawn_BN]).astype(float)))
    low, high = 2 * value - np.quantile(np.concatenate(values), [(1 + confidence) / 2, (1 - confidence) / 2])
    return Share(value=value, low=max(0.0, min(float(low), value)), high=min(1.0, max(float(high), value)))


def _korn_graubard(value: float, variance: float, trials: int, confidence: float) -> Share:
    """Clopper-Pearson with the trials that independent sampling would need for that variance (Korn, Graubard 1998).

    Never more than there were, so that it is not narrower than the exact interval; where all hit or none, the trials as
    they are.
    """
    is_mixed = 0 < value < 1 and variance > 0
    effective = min(float(trials), value * (1 - value) / variance) if is_mixed else float(trials)
    low, high = clopper_pearson(value * effective, effective, confidence)
    return Share(value=value, low=low, high=high)
