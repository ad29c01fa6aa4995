"""Confidence intervals against published values and against the definition."""

from __future__ import annotations

import pytest
from scipy.stats import binom

from model.evaluation.intervals import clopper_pearson, mean_of_classes, share_of, share_of_clustered


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [(0, 10, 0.0, 0.3085), (5, 10, 0.1871, 0.8129), (10, 10, 0.6915, 1.0), (1, 20, 0.0013, 0.2487)],
)
def test_known_values(hits: int, trials: int, low: float, high: float) -> None:
    assert clopper_pearson(hits, trials, 0.95) == pytest.approx((low, high), abs=5e-5)


def test_the_papers_level() -> None:
    # KITTI, 711 images at 39.4 %: [34.3, 44.7] at 99.5 %.
    assert clopper_pearson(280, 711, 0.995) == pytest.approx((0.343, 0.447), abs=5e-4)


def test_definition_tails_hold_half_of_what_is_left() -> None:
    low, high = clopper_pearson(7, 30, 0.9)
    assert binom.sf(6, 30, low) == pytest.approx(0.05)
    assert binom.cdf(7, 30, high) == pytest.approx(0.05)


def test_nothing_tried_is_nothing_known() -> None:
    share = share_of(0, 0, 0.95)
    assert (share.value, share.low, share.high) == (0.0, 0.0, 1.0)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="3 hits of 2"):
        clopper_pearson(3, 2, 0.95)


def test_mean_of_classes_ignores_sizes_and_absent_classes() -> None:
    share = mean_of_classes([90, 0, 0], [90, 10, 0], 0.95)
    assert share.value == pytest.approx(0.5)


def test_mean_of_equal_classes_is_the_plain_interval() -> None:
    # Equal shares in equal classes: stratification changes nothing.
    assert mean_of_classes([10, 10], [20, 20], 0.95).model_dump() == pytest.approx(share_of(20, 40, 0.95).model_dump())


def test_a_rare_class_widens_the_interval() -> None:
    balanced, skewed = mean_of_classes([25, 25], [50, 50], 0.95), mean_of_classes([48, 2], [96, 4], 0.95)
    assert skewed.high - skewed.low > 1.5 * (balanced.high - balanced.low)


@pytest.mark.parametrize("hits", [[96, 0], [96, 1]])
def test_a_few_misses_of_a_rare_class_prove_little(hits: list[int]) -> None:
    # Of the rare class alone, 0 of 4 allows up to 60 %; so the mean of both may be up to 80 %.
    share = mean_of_classes(hits, [96, 4], 0.95)
    assert share.low < 0.4 and share.high > 0.62


def test_repeating_every_trial_tells_nothing_new() -> None:
    hits = [number % 3 == 0 for number in range(60)]
    once = share_of_clustered(hits, list(range(60)), 0.95)
    thrice = share_of_clustered(
        [hit for hit in hits for _ in range(3)], [index for index in range(60) for _ in range(3)], 0.95
    )
    naive = share_of(60, 180, 0.95)
    assert thrice.high - thrice.low == pytest.approx(once.high - once.low, rel=0.02)
    assert naive.high - naive.low < 0.7 * (thrice.high - thrice.low)


def test_independent_clusters_are_the_plain_interval() -> None:
    hits = [number % 4 == 0 for number in range(200)]
    clustered, plain = share_of_clustered(hits, list(range(200)), 0.95), share_of(50, 200, 0.95)
    assert (clustered.low, clustered.high) == pytest.approx((plain.low, plain.high), abs=1e-3)


def test_all_or_none_keep_an_interval() -> None:
    assert share_of_clustered([False] * 10, list(range(10)), 0.95).high == pytest.approx(0.3085, abs=5e-5)
    assert mean_of_classes([5, 5], [5, 5], 0.95).low == pytest.approx(0.6915, abs=5e-5)
