"""Means over repetitions that say how many there are, and how many are missing. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """Repetitions of one measurement (seeds of one configuration)."""

    mean: float | None
    """None when nothing was measured."""
    std: float | None
    """Sample standard deviation (n - 1); None below two values."""
    n: int
    """Values measured."""
    planned: int
    """Values that the sweep asked for; more than `n` when some failed or are not yet run."""


def summarise(values: Iterable[float | None]) -> Summary:
    """Summarise what was measured; None counts as planned and never as a number."""
    every = list(values)
    measured = [value for value in every if value is not None]
    n = len(measured)
    if n == 0:
        return Summary(None, None, 0, len(every))
    mean = math.fsum(measured) / n
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in measured) / (n - 1)) if n > 1 else None
    return Summary(mean, std, n, len(every))


def best(values: Sequence[float | None], better: str) -> set[int]:
    """Indices of the best values; `better` is "low" or "high".

    Empty when there is nothing to compare, or when more than three share the best and it tells nobody apart.
    """
    there = [value for value in values if value is not None]
    if len(set(there)) < 2:
        return set()
    top = min(there) if better == "low" else max(there)
    found = {index for index, value in enumerate(values) if value == top}
    return found if len(found) <= 3 else set()
