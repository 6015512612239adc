"""Statistics that say how many values they are made of."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from samref.repetitions import summarise
from samref_dashboards.statistics import explained_share, holm, paired_bootstrap


def test_mean_and_sample_standard_deviation() -> None:
    summary = summarise([4.0, 5.0, 6.0])
    assert (summary.mean, summary.std, summary.n, summary.planned) == (5.0, 1.0, 3, 3)


def test_a_missing_repetition_is_counted_and_never_averaged() -> None:
    summary = summarise([4.0, None, 6.0])
    assert (summary.mean, summary.n, summary.planned) == (5.0, 2, 3)
    assert summary.std == pytest.approx(2**0.5)


def test_one_value_has_no_spread_and_none_has_no_mean() -> None:
    assert summarise([4.0]).std is None
    assert summarise([None, None]).mean is None
    assert summarise([]).planned == 0


def test_bootstrap_of_normal_differences_agrees_with_theory() -> None:
    # Of 400 normal differences the interval is mean ± 1.96 s / √400; 10 000 resamples find it within a few per cent.
    differences = np.random.default_rng(1).normal(0.3, 2.0, (400, 1))
    (interval,) = paired_bootstrap(differences)
    half = 1.96 * differences.std() / 20
    assert interval.mean == pytest.approx(differences.mean())
    assert interval.low == pytest.approx(differences.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(differences.mean() + half, abs=0.1 * half)
    normal = 2 * NormalDist().cdf(-abs(differences.mean()) * 20 / differences.std())
    assert interval.p == pytest.approx(normal, rel=0.25)


def test_bootstrap_is_paired_seeded_and_the_same_alone_or_together() -> None:
    chance = np.random.default_rng(2)
    hard = chance.uniform(1, 20, 50)  # objects differ far more than configurations do
    better = hard - 0.5 + chance.normal(0, 0.2, 50)
    two = np.stack([better - hard, hard - better], axis=1)
    first, second = paired_bootstrap(two)
    assert first.high < 0 < second.low
    (alone,) = paired_bootstrap(two[:, :1])
    assert (first.mean, first.low, first.high, first.p) == pytest.approx((alone.mean, alone.low, alone.high, alone.p))
    assert (second.low, second.high) == pytest.approx((-first.high, -first.low))
    assert first.p == pytest.approx(2 / 10_001)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    # 200 data sets of 60 objects, truth 0: binomial(200, 0.95) is below 180 once in a thousand runs; the seed is fixed.
    differences = np.random.default_rng(3).normal(0, 1, (60, 200))
    covered = sum(interval.low <= 0 <= interval.high for interval in paired_bootstrap(differences))
    assert 180 <= covered <= 199


def test_no_difference_is_no_evidence() -> None:
    (interval,) = paired_bootstrap(np.zeros((10, 1)))
    assert (interval.low, interval.high, interval.p) == (0.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="no objects"):
        paired_bootstrap(np.zeros((0, 1)))


def test_holm_steps_down() -> None:
    # Holm (1979): sorted p times 4, 3, 2, 1, never below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_explained_share() -> None:
    assert explained_share(["a", "a", "b", "b"], [1.0, 1.0, 3.0, 3.0]) == pytest.approx(1.0)
    assert explained_share(["a", "b", "a", "b"], [1.0, 1.0, 3.0, 3.0]) == pytest.approx(0.0)
    assert explained_share(["a", "b"], [2.0, 2.0]) is None
