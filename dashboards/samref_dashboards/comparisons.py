"""Paired differences to a baseline: which configurations are compared, on which objects, and how sure it is.

A configuration is compared with the one that agrees with it in all axes but those that the baseline fixes. The same
objects are paired, each with itself; seeds are paired where both have them. Random weights take no part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from samref_dashboards import metrics
from samref_dashboards.design import DATA, Configuration, Design, is_number
from samref_dashboards.load import ResultsError, Trial
from samref_dashboards.queries import Answers, ClicksNeeded
from samref_dashboards.statistics import RESAMPLES, Interval, holm, paired_bootstrap

METRICS = tuple(metric.key for metric in metrics.COMPARED)
LIMIT = 100
"""Configurations compared. The family of tests is what is shown, so it is chosen by order, never by outcome."""
LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How one configuration differs from its baseline in one metric."""

    configuration: Configuration
    baseline: Configuration
    metric: str
    interval: Interval
    adjusted_p: float
    num_objects: int
    seeds: str
    """How many seeds were paired, or that they could not be."""

    @property
    def significant(self) -> bool:
        return self.adjusted_p < LEVEL


@dataclass(frozen=True, kw_only=True)
class Comparisons:
    """What all configurations differ in from one baseline."""

    baseline: str
    """What it is, in words; empty where there is none."""
    differences: tuple[Difference, ...] = ()
    left_out: int = 0
    """Configurations beyond LIMIT."""
    unlike: int = 0
    """Configurations that were evaluated on other objects than their baseline: not compared."""

    @property
    def how(self) -> str:
        """Describe the procedure, for a note under a table."""
        return (
            f"paired bootstrap over objects, {RESAMPLES:,} resamples; Holm-corrected over "
            f"{len(self.differences)} comparisons, p < {LEVEL:g}"
        )

    def differs(self, configuration: Configuration, metric: str) -> bool:
        """Tell whether this configuration differs from its baseline in this metric."""
        return (configuration.key, metric) in self._significant

    @cached_property
    def _significant(self) -> set[tuple[tuple[Any, ...], str]]:
        return {(one.configuration.key, one.metric) for one in self.differences if one.significant}


class _Pair(NamedTuple):
    configuration: Configuration
    baseline: Configuration
    seeds: str
    differences: Mapping[str, NDArray[np.float64]]
    """Metric -> one difference per object, in one order."""
    objects: str
    """Identifies that order."""


def compare(answers: Answers, design: Design, chosen: Sequence[str] = ()) -> Comparisons:
    """Compare with the `chosen` baseline (KEY=VALUE…, or a trial's id); by default the first axis' first value.

    ResultsError if there is no such axis, value or trial.
    """
    fixed, trial = _parse(design, chosen) if chosen else (_default(design), None)
    if not fixed and trial is None:
        return Comparisons(baseline="")
    partners = _partners(design, fixed, trial)
    found = [(each, base) for each, base in partners if each.done and base.done]
    kept = found[:LIMIT]
    objects = answers.clicks_needed([t["trial"] for pair in kept for side in pair for t in side.done])
    pairs = [_pair(each, base, objects) for each, base in kept]
    named = design.describe(fixed) if trial is None else f"{trial['trial']} ({design.describe(trial)})"
    return Comparisons(
        baseline=named,
        differences=tuple(_differences([pair for pair in pairs if pair])),
        left_out=len(found) - len(kept),
        unlike=sum(pair is None for pair in pairs),
    )


def _default(design: Design) -> dict[str, Any]:
    """The first axis' first value, as the sweep file lists them."""
    for axis in design.axes:
        levels = design.levels(axis)
        if axis != DATA and len(levels) > 1:
            return {axis: next((value for value in design.listed.get(axis, ()) if value in levels), levels[0])}
    return {}


def _parse(design: Design, chosen: Sequence[str]) -> tuple[dict[str, Any], Trial | None]:
    fixed: dict[str, Any] = {}
    for text in chosen:
        axis, equals, value = text.partition("=")
        if not equals:
            trials = [trial for each in design.configurations for trial in each.trials if text in trial["trial"]]
            if len(chosen) > 1 or len(trials) != 1:
                raise ResultsError(f"--baseline {text}: {len(trials)} trials have that id; write KEY=VALUE or one id")
            return {}, trials[0]
        if axis not in design.axes:
            raise ResultsError(f"--baseline {text}: {axis} is not swept; axes are {', '.join(design.axes) or 'none'}")
        levels = {level for level in design.levels(axis) if _is_level(design, axis, level, value)}
        if not levels:
            shown = ", ".join(design.show(axis, level) for level in design.levels(axis)[:20])
            raise ResultsError(f"--baseline {text}: {axis} has no such value; it has {shown}")
        fixed[axis] = levels.pop()
    return fixed, None


def _is_level(design: Design, axis: str, level: Any, text: str) -> bool:
    if is_number(level):
        try:
            return float(text) == float(level)
        except ValueError:
            return False
    return {"inf": "∞", ".inf": "∞"}.get(text, text) in (str(level), design.show(axis, level))


def _partners(
    design: Design, fixed: Mapping[str, Any], trial: Trial | None
) -> list[tuple[Configuration, Configuration]]:
    """(configuration, baseline) of all that have one; random weights never have."""
    real = [each for each in design.configurations if not each.random_weights]
    if trial is not None:
        base = next((each for each in real if trial["trial"] in [row["trial"] for row in each.trials]), None)
        return [(g, base) for g in real if base and g is not base and g.data == base.data]

    def rest(configuration: Configuration) -> tuple[Any, ...]:
        return tuple(value for axis, value in configuration.values.items() if axis not in fixed)

    bases = {rest(each): each for each in real if all(each.values[axis] == v for axis, v in fixed.items())}
    return [(g, base) for g in real if (base := bases.get(rest(g))) is not None and base is not g]


def _pair(configuration: Configuration, base: Configuration, objects: Mapping[str, ClicksNeeded]) -> _Pair | None:
    """The differences of one pair, averaged over seeds; None if they do not have the same objects."""
    shared = [seeds for seeds in configuration.by_seeds if seeds in base.by_seeds]
    planned = max(len(configuration.trials), len(base.trials))
    if shared:
        ours, theirs = ([side.by_seeds[seeds] for seeds in shared] for side in (configuration, base))
        said = str(len(shared)) if len(shared) == planned else f"{len(shared)} of {planned}"
    else:
        # A model without training has no seed: it stands against the mean of the others.
        ours, theirs = list(configuration.done), list(base.done)
        said = f"{len(ours)} against {len(theirs)}, not paired"
    every = [objects.get(trial["trial"]) for trial in (*ours, *theirs)]
    known = [made for made in every if made is not None]
    if len(known) < len(every) or len({made.identity for made in known}) != 1:
        return None
    first, second = known[: len(ours)], known[len(ours) :]

    def mean(of: Sequence[ClicksNeeded], metric: str) -> NDArray[np.float64]:
        return np.asarray(np.mean([one.values[metric] for one in of], axis=0))

    differences = {metric: mean(first, metric) - mean(second, metric) for metric in METRICS}
    return _Pair(configuration, base, said, differences, known[0].identity)


def _differences(pairs: Sequence[_Pair]) -> list[Difference]:
    intervals: dict[tuple[int, str], Interval] = {}
    for identity in dict.fromkeys(pair.objects for pair in pairs):
        here = [(index, metric) for index, pair in enumerate(pairs) if pair.objects == identity for metric in METRICS]
        columns = np.stack([pairs[index].differences[metric] for index, metric in here], axis=1)
        intervals |= zip(here, paired_bootstrap(columns), strict=True)
    order = sorted(intervals)
    adjusted = holm([intervals[key].p for key in order])
    return [
        Difference(
            configuration=pairs[index].configuration,
            baseline=pairs[index].baseline,
            metric=metric,
            interval=intervals[index, metric],
            adjusted_p=p,
            num_objects=len(pairs[index].differences[metric]),
            seeds=pairs[index].seeds,
        )
        for (index, metric), p in zip(order, adjusted, strict=True)
    ]
