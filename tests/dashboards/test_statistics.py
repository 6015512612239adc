"""Statistics that say how many values they are made of."""

from __future__ import annotations

import pytest

from samref_dashboards.statistics import best, summarise


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


def test_best_says_nothing_where_there_is_nothing_to_compare() -> None:
    assert best([3.0, 2.0, None, 2.0], "low") == {1, 3}
    assert best([3.0, 2.0], "high") == {0}
    assert best([2.0, 2.0], "low") == set()
    assert best([2.0, None], "low") == set()
    assert best([1.0, 1.0, 1.0, 1.0, 2.0], "low") == set()
