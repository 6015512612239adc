"""Paired differences, and how sure they are: of an axis' values, of all configurations, of a best to the next.

Two configurations are compared on the same objects, each with itself; seeds are paired where both have them, and
averaged. Random weights take no part.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from samref_dashboards import metrics
from samref_dashboards.design import DATA, UNSTEADY, Configuration, Design, is_number
from samref_dashboards.load import ResultsError, Trial
from samref_dashboards.metrics import Metric
from samref_dashboards.queries import PER_OBJECT, Answers, Contrast
from samref_dashboards.statistics import RESAMPLES, Interval, holm, paired_bootstrap

METRICS = tuple(metric.key for metric in metrics.COMPARED)
LIMIT = 100
"""Configurations compared. The family of tests is what is shown, so it is chosen by order, never by outcome."""
MOST_LEVELS = 12
"""Values of an axis that is asked about; a search's numbers are more, and no two of its trials differ in one alone."""
LEVEL = 0.05
Pair = tuple[Configuration, Configuration]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """By how much one thing differs from its baseline in one metric, all else equal."""

    metric: str
    interval: Interval
    adjusted_p: float
    num_objects: int
    seeds: str
    """How many seeds were paired, of the pair that has fewest, or that they could not be."""

    @property
    def significant(self) -> bool:
        return self.adjusted_p < LEVEL


@dataclass(frozen=True, kw_only=True)
class Difference(Compared):
    """How one configuration differs from its baseline."""

    configuration: Configuration
    baseline: Configuration


@dataclass(frozen=True, kw_only=True)
class Effect(Compared):
    """How one value of an axis differs from the axis' baseline, on one dataset."""

    axis: str
    value: Any
    baseline: Any
    data: str
    num_pairs: int
    """Pairs of configurations that differ in this axis alone; the difference is their mean."""
    along: Sequence[str]
    """Settings that change with this axis (`zip`), so that nobody can tell which of them it was."""


@dataclass(frozen=True, kw_only=True)
class Comparisons:
    """What is compared: every axis' values, and all configurations with one baseline."""

    baseline: str
    """What it is, in words; empty where there is none."""
    differences: tuple[Difference, ...] = ()
    effects: tuple[Effect, ...] = ()
    left_out: int = 0
    """Configurations beyond LIMIT."""
    unlike: int = 0
    """Configurations that were evaluated on other objects than their baseline: not compared."""
    answers: Answers | None = None
    """Where clicks are looked up; without it nothing is known to lead."""

    @property
    def how(self) -> str:
        """Describe the procedure, for a note under a table."""
        return (
            f"paired bootstrap over objects, {RESAMPLES:,} resamples; Holm-corrected over "
            f"{len(self.differences)} comparisons, p < {LEVEL:g}"
        )

    @property
    def how_effects(self) -> str:
        """Describe the correction of the axes' comparisons."""
        return f"Holm-corrected over {len(self.effects)} comparisons"

    def differs(self, configuration: Configuration, metric: str) -> bool:
        """Tell whether this configuration differs from its baseline in this metric."""
        return (configuration.key, metric) in self._significant

    @cached_property
    def _significant(self) -> set[tuple[tuple[Any, ...], str]]:
        return {(one.configuration.key, one.metric) for one in self.differences if one.significant}

    def leads(self, wanted: Sequence[tuple[Configuration, Configuration, Metric]]) -> list[bool]:
        """Tell for each (best, next, metric) of a table whether the best can be told from the next.

        Clicks and IoU by the paired bootstrap, Holm-corrected over the table; times by the spread of their
        repetitions, never where it is wide; what is counted by its value.
        """
        leading = [_costs_less(*each) for each in wanted]
        tested = [index for index, (*_, metric) in enumerate(wanted) if metric.key in PER_OBJECT]
        if self.answers and tested:
            contrasts = [_weights([wanted[index][:2]])[0] for index in tested]
            keys = [wanted[index][2].key for index in tested]
            found = _test(self.answers, contrasts, tuple(dict.fromkeys(keys)))
            p = [one.intervals[key].p if one else 1.0 for key, one in zip(keys, found, strict=True)]
            for index, adjusted in zip(tested, holm(p), strict=True):
                leading[index] = adjusted < LEVEL
        return leading


class _Tested(NamedTuple):
    """One contrast's intervals by metric."""

    intervals: Mapping[str, Interval]
    num_objects: int


def compare(answers: Answers, design: Design, chosen: Sequence[str] = ()) -> Comparisons:
    """Compare with the `chosen` baseline (KEY=VALUE…, or a trial's id); by default the first axis' first value.

    ResultsError if there is no such axis, value or trial.
    """
    fixed, trial = _parse(design, chosen) if chosen else ({}, None)
    effects = _effects(answers, design, fixed)
    if not chosen:
        axis = next((axis for axis in design.axes if axis != DATA and len(design.levels(axis)) > 1), None)
        fixed = {axis: _first(design, axis)} if axis else {}
    if not fixed and trial is None:
        return Comparisons(baseline="", answers=answers)
    found = [(each, base) for each, base in _partners(design, fixed, trial) if each.done and base.done]
    kept = found[:LIMIT]
    weighed = [_weights([pair]) for pair in kept]
    tested = _test(answers, [weights for weights, _ in weighed])
    return Comparisons(
        baseline=design.describe(fixed) if trial is None else f"{trial['trial']} ({design.describe(trial)})",
        differences=tuple(
            Difference(configuration=kept[index][0], baseline=kept[index][1], seeds=weighed[index][1], **said)
            for index, said in _told(tested)
        ),
        effects=effects,
        left_out=len(found) - len(kept),
        unlike=sum(one is None for one in tested),
        answers=answers,
    )


def _first(design: Design, axis: str) -> Any:
    """The axis' first value, as the sweep file lists them."""
    levels = design.levels(axis)
    return next((value for value in design.listed.get(axis, ()) if value in levels), levels[0])


def _effects(answers: Answers, design: Design, fixed: Mapping[str, Any]) -> tuple[Effect, ...]:
    """What each value of each axis does, over all pairs of configurations that differ in that axis alone."""
    about: list[dict[str, Any]] = []
    contrasts: list[Contrast] = []
    for axis in design.axes:
        levels, along = design.levels(axis), design.along(axis)
        first = next((other for other in design.axes if axis in design.along(other) and other in along), axis)
        asked = axis != DATA and "." in axis and 1 < len(levels) <= MOST_LEVELS
        if not asked or design.axes.index(first) < design.axes.index(axis):
            continue
        base = fixed.get(axis, _first(design, axis))
        pairs = _partners(design, {axis: base}, None, along)
        for level, data in ((level, data) for level in levels if level != base for data in design.datasets):
            own = [(g, b) for g, b in pairs if g.values[axis] == level and g.data == data and g.done and b.done]
            if own:
                weights, seeds = _weights(own)
                contrasts.append(weights)
                about.append({"axis": axis, "value": level, "baseline": base, "data": data, "seeds": seeds})
                about[-1] |= {"num_pairs": len(own), "along": design.changing_with(axis)}
    return tuple(Effect(**about[index], **said) for index, said in _told(_test(answers, contrasts)))


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


def _partners(design: Design, fixed: Mapping[str, Any], trial: Trial | None, along: Sequence[str] = ()) -> list[Pair]:
    """(configuration, baseline) of all that agree in the other axes, but those `along`; random weights never have."""
    real = [each for each in design.configurations if not each.random_weights]
    if trial is not None:
        base = next((each for each in real if trial["trial"] in [row["trial"] for row in each.trials]), None)
        return [(g, base) for g in real if base and g is not base and g.data == base.data]

    def rest(configuration: Configuration) -> tuple[Any, ...]:
        return tuple(value for axis, value in configuration.values.items() if axis not in (*fixed, *along))

    bases = {rest(each): each for each in real if all(each.values[axis] == v for axis, v in fixed.items())}
    return [(g, base) for g in real if (base := bases.get(rest(g))) is not None and base is not g]


def _weights(pairs: Sequence[Pair]) -> tuple[Contrast, str]:
    """The mean difference of pairs as weights of their trials, and how many seeds were paired."""
    weights: dict[str, float] = {}
    said: dict[str, None] = {}
    for ours, theirs in pairs:
        shared = [seeds for seeds in ours.by_seeds if seeds in theirs.by_seeds]
        planned = max(len(ours.trials), len(theirs.trials))
        # A model without training has no seed: it stands against the mean of the others.
        sides = [[side.by_seeds[seeds] for seeds in shared] if shared else side.done for side in (ours, theirs)]
        for side, sign in zip(sides, (1, -1), strict=True):
            weights |= {trial["trial"]: sign / len(side) / len(pairs) for trial in side}
        text = str(len(shared)) if len(shared) == planned else f"{len(shared)} of {planned}"
        said[text if shared else f"{len(sides[0])} against {len(sides[1])}, not paired"] = None
    return weights, " or ".join(said)


def _test(answers: Answers, contrasts: Sequence[Contrast], keys: Sequence[str] = METRICS) -> list[_Tested | None]:
    """The intervals of each contrast in these metrics; None where its trials do not have the same objects."""
    columns = [list(PER_OBJECT).index(key) for key in keys]
    found = [None if one is None else one[:, columns] for one in answers.contrasts(contrasts)]
    tested: list[_Tested | None] = [None] * len(found)
    # Those of as many objects see the same resamples, at the price of one.
    for count in {len(one) for one in found if one is not None}:
        alike = [index for index, one in enumerate(found) if one is not None and len(one) == count]
        every = paired_bootstrap(np.concatenate([one for index in alike if (one := found[index]) is not None], axis=1))
        for place, index in enumerate(alike):
            own = every[place * len(keys) : (place + 1) * len(keys)]
            tested[index] = _Tested(dict(zip(keys, own, strict=True)), count)
    return tested


def _told(tested: Sequence[_Tested | None]) -> Iterator[tuple[int, dict[str, Any]]]:
    """What a family of tests says: the index of each contrast, and fields of a Difference or Effect, a metric each."""
    every = [(index, metric, one) for index, one in enumerate(tested) if one for metric in METRICS]
    adjusted = holm([one.intervals[metric].p for _, metric, one in every])
    for (index, metric, one), p in zip(every, adjusted, strict=True):
        interval, objects = one.intervals[metric], one.num_objects
        yield index, {"metric": metric, "interval": interval, "adjusted_p": p, "num_objects": objects}


def _costs_less(first: Configuration, second: Configuration, metric: Metric) -> bool:
    """Whether two costs of a profile, which are written differently, differ by more than their measurement's spread."""
    if metric.key not in first.profiled:
        return False
    if not metric.timed:
        return True
    values = [(each.summary(metric.key).mean, each.unsteadiness) for each in (first, second)]
    known = [(value, spread) for value, spread in values if value is not None and spread is not None]
    if len(known) < 2 or any(spread > UNSTEADY for _, spread in known):
        return False
    (one, its), (other, others) = known
    return abs(one - other) > (one * its + other * others) / 2
