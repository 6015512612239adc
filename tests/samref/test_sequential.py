"""Intervals that are looked at again and again hold the truth as often as they say."""

import numpy as np
import pytest
import scipy  # its statistics are imported when they are asked for

from samref.sequential import repeated_interval

LOOKS = range(3, 11)


def coverage(draw, truth, *, runs, seed):
    """The share of runs in which every one of the looks held the truth."""
    chance = np.random.default_rng(seed)
    held = 0
    for _ in range(runs):
        differences_SN = draw(chance)
        intervals = [repeated_interval(differences_SN[:n], looks=len(LOOKS)) for n in LOOKS]
        held += all(low <= truth <= high for _, low, high in intervals)
    return held / runs


def crossed(of_seeds, of_objects, rest, objects, truth, skewed=False):
    """Differences with an effect of the seed, one of the object, and the rest; normal, or skewed as clicks are."""

    def draw(chance):
        noise = (lambda *size: chance.exponential(1, size) - 1) if skewed else (lambda *size: chance.normal(0, 1, size))
        seeds, each = of_seeds * noise(10, 1), of_objects * noise(1, objects)
        return truth + seeds + each + rest * noise(10, objects)

    return draw


@pytest.mark.parametrize(
    ("of_seeds", "of_objects", "rest", "objects"),
    [(1, 0, 0, 5), (0.3, 2, 1, 50), (0, 3, 0, 50), (0, 0, 2, 20), (1, 1, 1, 2)],
)
def test_the_intervals_of_all_looks_hold_the_truth_as_often_as_stated(of_seeds, of_objects, rest, objects):
    runs = 1500
    held = coverage(crossed(of_seeds, of_objects, rest, objects, 0.4), 0.4, runs=runs, seed=1)
    # Were it exactly 0.95, fewer would be held in one of a thousand such tests.
    assert held >= scipy.stats.binom.ppf(0.001, runs, 0.95) / runs


def test_also_where_differences_are_skewed():
    assert coverage(crossed(0.3, 2, 2, 50, -0.7, skewed=True), -0.7, runs=800, seed=2) >= 0.93


def test_one_look_at_one_object_is_students_interval():
    values = np.array([[1.0], [2.0], [4.0]])
    low, high = scipy.stats.t.interval(0.95, 2, values.mean(), scipy.stats.sem(values[:, 0]))
    assert repeated_interval(values, looks=1) == pytest.approx((values.mean(), low, high))


def test_more_looks_and_more_confidence_are_wider():
    values = np.random.default_rng(0).normal(size=(4, 9))

    def width(**options):
        _, low, high = repeated_interval(values, **options)
        return high - low

    assert width(looks=1) < width(looks=8) < width(looks=8, confidence=0.99)


def test_one_seed_says_nothing():
    with pytest.raises(ValueError, match="1 seeds and 3 objects"):
        repeated_interval(np.zeros((1, 3)), looks=2)
