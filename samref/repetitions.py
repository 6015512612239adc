"""Repetitions: trials of equal settings but their seeds are one configuration, told by a mean and its deviation.

The terminal, MLflow and the page share these words, so that none names a lucky seed the best. Pure functions.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

SEEDS = ("train.seed", "evaluate.seed", "model.seed")
"""The settings that tell repetitions of one configuration apart, by their dotted names."""


@dataclass(frozen=True)
class Repetitions:
    """Repetitions of one measurement (seeds of one configuration)."""

    mean: float | None
    """None when nothing was measured."""
    std: float | None
    """Sample standard deviation (n - 1); None below two values."""
    n: int
    """Values measured."""
    planned: int
    """Values that the sweep asked for; more than `n` when some failed or are not yet run."""

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return self.n == self.planned

    @property
    def count(self) -> str:
        """`3`, or `2 of 3` where one is missing."""
        return str(self.n) if self.whole else f"{self.n} of {self.planned}"


def summarise(values: Iterable[float | None]) -> Repetitions:
    """Summarise what was measured; None counts as planned and never as a number."""
    every = list(values)
    measured = [value for value in every if value is not None]
    n = len(measured)
    if n == 0:
        return Repetitions(None, None, 0, len(every))
    mean = math.fsum(measured) / n
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in measured) / (n - 1)) if n > 1 else None
    return Repetitions(mean, std, n, len(every))
