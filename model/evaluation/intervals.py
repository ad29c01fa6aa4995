"""Shares with confidence intervals: exact for independent trials, Korn-Graubard for trials in classes or clusters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.stats import beta


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
    low = float(beta.ppf(tail, hits, trials - hits + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, trials - hits)) if hits < trials else 1.0
    return low, high


def share_of(hits: int, trials: int, confidence: float) -> Share:
    """The share of independent trials that hit."""
    low, high = clopper_pearson(hits, trials, confidence)
    return Share(value=hits / trials if trials else 0.0, low=low, high=high)


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


def _korn_graubard(value: float, variance: float, trials: int, confidence: float) -> Share:
    """Clopper-Pearson with the trials that independent sampling would need for that variance (Korn, Graubard 1998).

    Never more than there were, so that it is not narrower than the exact interval; where all hit or none, the trials as
    they are.
    """
    is_mixed = 0 < value < 1 and variance > 0
    effective = min(float(trials), value * (1 - value) / variance) if is_mixed else float(trials)
    low, high = clopper_pearson(value * effective, effective, confidence)
    return Share(value=value, low=low, high=high)
