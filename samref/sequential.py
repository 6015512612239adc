"""Intervals of a paired difference that stay valid however often one looks, for repetitions that stop when it is known.

At each of a known number of looks the interval is Student's, at the confidence that makes all of them hold together
(Bonferroni): repeated confidence intervals (Jennison and Turnbull, Journal of the Royal Statistical Society B 51, 1989,
pages 305 to 361). Whatever rule stops the looking, the last interval holds with the stated confidence.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Interval(NamedTuple):
    """A mean difference with an interval around it."""

    mean: float
    low: float
    high: float


def repeated_interval(differences_SN: NDArray[np.float64], *, looks: int, confidence: float = 0.95) -> Interval:
    """Estimate a mean difference over objects and seeds, at one of several looks.

    Objects and seeds are both samples of what could have been drawn. The variance of the mean is taken as the sum of
    the one between the seeds' means and the one between the objects' means, which counts what is left of a single
    object at a single seed twice, and Student's distribution has the degrees of freedom of the seeds alone: the
    interval errs to the wide side.

    Args:
        differences_SN: for each seed (at least two) and each object the difference in the metric, in its unit.
        looks: how often one will look at most.
        confidence: the probability that the intervals of all looks hold the true difference, at least.

    Raises:
        ValueError: there are fewer than two seeds, or no object.
    """
    seeds, objects = differences_SN.shape
    if seeds < 2 or objects < 1:
        raise ValueError(f"{seeds} seeds and {objects} objects say nothing of how much seeds differ")
    from scipy.special import stdtrit  # type: ignore[import-untyped]

    mean = float(differences_SN.mean())
    variance = float(differences_SN.mean(axis=1).var(ddof=1)) / seeds
    if objects > 1:
        variance += float(differences_SN.mean(axis=0).var(ddof=1)) / objects
    quantile = float(stdtrit(seeds - 1, 1 - (1 - confidence) / (2 * looks)))
    half = quantile * math.sqrt(variance)
    return Interval(mean, mean - half, mean + half)
