"""A metric as a function of θ: from each sample's pieces the exact curve, what of it objects decide, and a sentence.

Knows nothing of files, models or settings; the tables and the page import it. Legend: K pieces of samples, sample after
sample, in each by rising θ; P pieces of the curve; R resamples.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
LEVEL = 0.95

Numbers = NDArray[np.float64]


class Curve(NamedTuple):
    """A metric over an interval of θ; piece p holds for above < θ ≤ upto."""

    above_P: Numbers
    upto_P: Numbers
    value_P: Numbers


class Band(NamedTuple):
    """What a percentile bootstrap over samples says of each piece of a curve (95 %)."""

    low_P: Numbers
    high_P: Numbers
    excess_low_P: Numbers
    """How much greater the value is than that of the lowest piece, both of the same resample."""
    excess_high_P: Numbers


class _Changes(NamedTuple):
    """The samples' values at the lower end of the interval, and where θ changes one."""

    start_N: Numbers
    theta: Numbers
    sample: NDArray[np.int64]
    by: Numbers


def curve(sample_K: NDArray[np.int32], above_K: Numbers, upto_K: Numbers, value_K: Numbers, *, mean: bool) -> Curve:
    """The mean of the samples' values, or their sum, with its exact breakpoints; equal neighbours are one piece."""
    return _pieces(_changes(sample_K, above_K, value_K), float(above_K.min()), float(upto_K.max()), mean=mean)


def band(sample_K: NDArray[np.int32], above_K: Numbers, upto_K: Numbers, value_K: Numbers) -> tuple[Curve, Band]:
    """The curve of the mean with its band; lower is better. The same samples always give the same band."""
    changes = _changes(sample_K, above_K, value_K)
    found = _pieces(changes, float(above_K.min()), float(upto_K.max()), mean=True)
    num_samples = len(changes.start_N)
    rng = np.random.default_rng(0)
    weights_RN = rng.multinomial(num_samples, np.full(num_samples, 1 / num_samples), RESAMPLES) / num_samples
    ends = np.searchsorted(changes.theta, found.upto_P)  # of a piece: how many changes lie below its end
    resampled_RP = np.empty((RESAMPLES, len(ends)))
    for resampled_P, weights_N in zip(resampled_RP, weights_RN, strict=True):
        moved = np.concatenate([[0.0], np.cumsum(weights_N[changes.sample] * changes.by)])
        resampled_P[:] = weights_N @ changes.start_N + moved[ends]
    excess_RP = resampled_RP - resampled_RP[:, [int(found.value_P.argmin())]]
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    low_P, high_P = np.quantile(resampled_RP, tails, axis=0)
    excess_low_P, excess_high_P = np.quantile(excess_RP, tails, axis=0)
    return found, Band(low_P, high_P, excess_low_P, excess_high_P)


def _changes(sample_K: NDArray[np.int32], above_K: Numbers, value_K: Numbers) -> _Changes:
    first_K = np.diff(sample_K, prepend=-1) != 0
    by = np.diff(value_K, prepend=0.0)
    moved = np.flatnonzero(~first_K & (by != 0))
    moved = moved[np.argsort(above_K[moved], kind="stable")]
    return _Changes(value_K[first_K], above_K[moved], (np.cumsum(first_K) - 1)[moved], by[moved])


def _pieces(changes: _Changes, above: float, upto: float, *, mean: bool) -> Curve:
    thetas, last = np.unique(changes.theta, return_index=True)
    last = np.append(last[1:], len(changes.theta)) - 1
    moved = np.concatenate([[0.0], np.cumsum(changes.by)[last]] if len(thetas) else [[0.0]])
    value_P = (changes.start_N.sum() + moved) / (len(changes.start_N) if mean else 1)
    differs = np.diff(value_P, prepend=np.nan) != 0
    starts = np.concatenate([[above], thetas])[differs]
    return Curve(starts, np.append(starts[1:], upto), value_P[differs])


def runs(found: Curve, holds_P: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """The intervals of θ, (above, upto), in which something holds; neighbouring pieces are one."""
    joined: list[tuple[float, float]] = []
    for above, upto in zip(found.above_P[holds_P].tolist(), found.upto_P[holds_P].tolist(), strict=True):
        begins = joined.pop()[0] if joined and joined[-1][1] == above else above
        joined.append((begins, upto))
    return joined


def sentence(name: str, found: Curve, excess_low_P: Numbers) -> str:
    """What a curve says, lower being better: where it is lowest, and whether that is distinguishable from the rest.

    The curve's own beginning belongs to it, and to no piece does the θ above which it begins: `(1.1, 1.2]`.
    """
    values, whole = found.value_P, (float(found.above_P[0]), float(found.upto_P[-1]))

    def text(interval: tuple[float, float]) -> str:
        return f"{'[' if interval[0] == whole[0] else '('}{interval[0]:.4g}, {interval[1]:.4g}]"

    change = float(values.max() - values.min())
    if change == 0:
        return f"{name} is {values[0]:.2f} for every θ in {text(whole)}"
    best = max(runs(found, values == values.min()), key=lambda run: run[1] - run[0])
    told = f"{name} is lowest, {values.min():.2f}, for θ in {text(best)}; in {text(whole)} it changes by at most "
    told += f"{change:.2f}, "
    alike = excess_low_P <= 0
    if alike.all():
        return told + "not distinguishable from nothing"
    return told + f"and is distinguishable from that outside of {' and '.join(map(text, runs(found, alike)))}"
