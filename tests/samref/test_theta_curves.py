"""samref.theta_curves: the curve against values taken θ by θ, its band against plain resampling, and the sentence."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samref.theta_curves import RESAMPLES, Curve, band, curve, runs, sentence

CUTS = st.lists(st.integers(1, 15), max_size=4, unique=True)  # sixteenths of the interval (1, 2]
SAMPLES = st.lists(st.tuples(CUTS, st.lists(st.integers(1, 4), min_size=5, max_size=5)), min_size=1, max_size=5)


def pieces(samples):
    """The arrays of samples that are each (cuts, values)."""
    rows = []
    for i, (cuts, values) in enumerate(samples):
        ends = [1, *(1 + cut / 16 for cut in sorted(cuts)), 2]
        rows += [(i, *row) for row in zip(ends[:-1], ends[1:], values, strict=False)]
    sample, above, upto, value = (np.array(column) for column in zip(*rows, strict=True))
    return sample.astype(np.int32), above.astype(float), upto.astype(float), value.astype(float)


def value_at(table, theta):
    _, above, upto, value = table
    return value[(above < theta) & (theta <= upto)]


@given(SAMPLES, st.booleans())
def test_at_every_theta_the_curve_is_the_mean_of_the_samples(samples, mean):
    table = pieces(samples)
    found = curve(*table, mean=mean)
    assert (found.above_P[0], found.upto_P[-1]) == (1, 2)
    assert (found.above_P[1:] == found.upto_P[:-1]).all()
    assert (np.diff(found.value_P) != 0).all()
    for theta in np.linspace(1, 2, 65)[1:]:
        own = value_at(table, theta)
        (value,) = found.value_P[(found.above_P < theta) & (theta <= found.upto_P)]
        assert value == (np.mean(own) if mean else own.sum())


@settings(max_examples=20)
@given(SAMPLES)
def test_the_band_is_that_of_resampled_curves(samples):
    table = pieces(samples)
    found, around = band(*table)
    count = len(samples)
    weights = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
    resampled = np.stack([weights @ value_at(table, theta) for theta in found.upto_P], axis=1)
    expected = np.quantile(resampled, [0.025, 0.975], axis=0)
    np.testing.assert_allclose([around.low_P, around.high_P], expected, atol=1e-12)
    excess = resampled - resampled[:, [found.value_P.argmin()]]
    expected = np.quantile(excess, [0.025, 0.975], axis=0)
    np.testing.assert_allclose([around.excess_low_P, around.excess_high_P], expected, atol=1e-12)


def told(values, excess_low):
    ends = np.linspace(1, 1.5, len(values) + 1)
    return sentence("NoC90", Curve(ends[:-1], ends[1:], np.array(values, float)), np.array(excess_low, float))


@pytest.mark.parametrize(
    ("values", "excess_low", "words"),
    [
        ([4], [0], "NoC90 is 4.00 for every θ in [1, 1.5]"),
        ([5, 4, 4.5, 4, 4.25], [0, 0, -1, 0, -1], "NoC90 is lowest, 4.00, for θ in (1.1, 1.2]; in [1, 1.5] it changes "
         "by at most 1.00, not distinguishable from nothing"),
        ([6, 5, 4, 5, 6], [0.5, 0, 0, 0, 0.1], "NoC90 is lowest, 4.00, for θ in (1.2, 1.3]; in [1, 1.5] it changes by "
         "at most 2.00, and is distinguishable from that outside of (1.1, 1.4]"),
    ],
)  # fmt: skip
def test_the_sentence(values, excess_low, words):
    assert told(values, excess_low) == words


def test_a_step_that_all_objects_take_is_distinguished_and_chance_is_not():
    rng = np.random.default_rng(1)
    start = rng.integers(3, 12, 60)
    step = pieces([([8], [value + 1, value]) for value in start])
    assert (band(*step)[1].excess_low_P > 0).tolist() == [True, False]
    noise = pieces([([8], [value, value + rng.choice([-1, 1])]) for value in start])
    found, around = band(*noise)
    assert (around.excess_low_P <= 0).all()
    assert (around.low_P < found.value_P).all()


def test_runs_are_neighbouring_pieces():
    found = Curve(np.array([1, 2, 3, 4.0]), np.array([2, 3, 4, 5.0]), np.zeros(4))
    assert runs(found, np.array([True, True, False, True])) == [(1, 3), (4, 5)]
