"""What the trials differ in, and which trials repeat one configuration.

Seeds are repetitions; every other setting that differs is an axis, so two configurations are never averaged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from samref.repetitions import SEEDS, Repetitions, summarise
from samref_dashboards.load import Results, Trial

THETA, DATA, PHOTOGRAPHS = "evaluate.theta", "evaluate.data", "evaluate.photographs"
PARTS = ("model.", "train.", "evaluate.", "profile.")
"""What the names of settings begin with."""
_CONTENTS = ("data_fingerprint", "checkpoint_fingerprint", "num_samples")
"""Endings of columns that tell other data or weights under the same name; known of done trials only."""
_SYMBOLS = {"theta": "θ", "gamma": "γ", "data": "dataset"}


SIZES = {"grabcut": 50, "berkeley": 100, "davis": 345, "davis585": 585, "sbd": 6671, "hqseg44k": 1537, "coco_mval": 800}
"""Objects of the published evaluation sets."""
UNSTEADY = 0.2
"""A profile whose repetitions spread wider than this, of their median, was measured on a busy machine."""


@dataclass(frozen=True)
class Configuration:
    """One configuration: the trials that are equal but for their seeds."""

    values: dict[str, Any]
    """The value of every axis."""
    random_weights: bool
    profiled: frozenset[str]
    """The metrics that a profile measured, once for all trials that share it."""
    trials: tuple[Trial, ...]
    """Done or not: a missing repetition is counted as missing."""

    @cached_property
    def key(self) -> tuple[Any, ...]:
        """What tells this configuration from the others of its design; can be a dictionary's key."""
        return (*self.values.items(), self.random_weights)

    @cached_property
    def done(self) -> tuple[Trial, ...]:
        return tuple(trial for trial in self.trials if trial["status"] == "done")

    @property
    def data(self) -> str:
        return str(self.trials[0][DATA])

    @property
    def lacking(self) -> bool:
        """Whether a seed is missing."""
        return len(self.done) < len(self.trials)

    @property
    def unsteadiness(self) -> float | None:
        """The distance between the quartiles of its profile's repetitions, of their median; None where not measured."""
        spread, fps = self.summary("fps_spread").mean, self.summary("fps").mean
        return None if spread is None or not fps else spread / fps

    @cached_property
    def by_seeds(self) -> dict[tuple[Any, ...], Trial]:
        """The done trials by their seeds, which pair them with another configuration's."""
        return {tuple(trial.get(seed) for seed in SEEDS): trial for trial in self.done}

    @cached_property
    def _summaries(self) -> dict[str, Repetitions]:
        return {}

    def summary(self, metric: str) -> Repetitions:
        """Summarise a metric over the repetitions; what a profile measured, over profiles, which they share."""
        if metric not in self._summaries:
            every = [trial.get(metric) if trial["status"] == "done" else None for trial in self.trials]
            shared = {trial.get("stage_profile"): trial.get(metric) for trial in self.done}
            self._summaries[metric] = summarise(shared.values() if metric in self.profiled else every)
        return self._summaries[metric]


@dataclass(frozen=True)
class Design:
    """The axes of one or several sweeps, and their configurations in order."""

    axes: tuple[str, ...]
    """Dotted settings without seeds; the sweep's own first."""
    seeds: tuple[str, ...]
    configurations: tuple[Configuration, ...]
    listed: Mapping[str, Sequence[Any]]
    """Axis -> its values as the sweep file lists them, where it does."""
    fields: Mapping[str, Mapping[str, str]]
    """Column -> what the files say of it (`Results.fields`)."""

    @property
    def datasets(self) -> list[str]:
        """The evaluated datasets, in the configurations' order."""
        return list(dict.fromkeys(each.data for each in self.configurations))

    def label(self, axis: str) -> str:
        """Shorten an axis' name, `evaluate.theta` to `θ`; give the full name where two axes would read alike."""
        short = _short(axis)
        return axis if [_short(other) for other in self.axes].count(short) > 1 else short

    def levels(self, axis: str) -> list[Any]:
        """List the axis' values: numbers by size, names as the sweep file lists them."""
        listed = self.listed.get(axis, ())
        return sorted({each.values[axis] for each in self.configurations}, key=lambda value: _order(value, listed))

    def along(self, axis: str) -> tuple[str, ...]:
        """Name the axes whose value is always the same at one value of this axis (coupled by `zip`)."""
        values = {each.values[axis] for each in self.configurations}
        return tuple(
            other
            for other in self.axes
            if other != axis and len(self.levels(other)) > 1
            if len({(each.values[axis], each.values[other]) for each in self.configurations}) == len(values)
        )

    def changing_with(self, axis: str) -> list[str]:
        """Name all other settings that differ between this axis' values, and never at one of them."""
        trials = [each.trials[0] for each in self.configurations]
        names = [name for name in trials[0] if name.startswith(PARTS) and name != axis and name not in SEEDS]
        several = [name for name in names if len({trial.get(name) for trial in trials}) > 1]
        levels = len({trial.get(axis) for trial in trials})
        return [name for name in several if len({(t.get(axis), t.get(name)) for t in trials}) == levels]

    def counted(self, data: str) -> str:
        """Name a dataset with how many of its objects were evaluated: `grabcut (20 of 50)`."""
        objects = self.objects(data)
        return f"{data} ({objects})" if objects else data

    def objects(self, data: str) -> str:
        """Say how many objects were evaluated, of how many the dataset is known to have; empty where that differs."""
        counts = {trial.get("num_samples") for each in self.configurations if each.data == data for trial in each.done}
        (count,), size = counts if len(counts) == 1 else (None,), SIZES.get(data)
        if count is None:
            return ""
        return f"{count} of {size}" if size and count < size else str(count)

    @cached_property
    def _decimals(self) -> dict[str, int]:
        """Decimals that write all of an axis' numbers alike (1.05, 1.10); axes like 1e-4 have none."""
        found = {}
        for axis in self.axes:
            texts = [f"{level:.6g}" for level in self.levels(axis) if is_number(level)]
            if texts and not any("e" in text for text in texts):
                found[axis] = max(len(text.partition(".")[2]) for text in texts)
        return found

    def show(self, axis: str, value: Any) -> str:
        """Write an axis' value as text, with as many decimals as its neighbours."""
        if is_number(value) and axis in self._decimals:
            return f"{value:.{self._decimals[axis]}f}"
        return show(value)

    def describe(self, values: dict[str, Any], leave_out: Sequence[str] = ()) -> str:
        """Name the axes and their values, such as `θ 1.1 · γ 0.6`."""
        parts = [(axis, values[axis]) for axis in self.axes if axis not in leave_out and axis in values]
        return " · ".join(f"{self.label(axis)} {self.show(axis, value)}" for axis, value in parts)

    def split(self, leave_out: Sequence[str]) -> dict[tuple[Any, ...], list[Configuration]]:
        """Group the configurations that are equal in all axes but these (and in having random weights or not)."""
        blocks: dict[tuple[Any, ...], list[Configuration]] = {}
        for configuration in self.configurations:
            key = tuple(value for axis, value in configuration.values.items() if axis not in leave_out)
            blocks.setdefault((*key, configuration.random_weights), []).append(configuration)
        return blocks


def find_design(results: Results) -> Design:
    """Find the axes, and group the trials into configurations."""
    trials = results.trials
    settings = list(dict.fromkeys(key for trial in trials for key in trial if key.startswith(PARTS[:3])))
    settings = [name for name in settings if name != PHOTOGRAPHS]
    declared: dict[str, tuple[Any, ...]] = {}
    for sweep in results.sweeps:
        declared |= {axis: (*declared.get(axis, ()), *values) for axis, values in sweep.axes.items()}
    axes = [axis for axis in declared if axis in settings and axis not in SEEDS]
    # A setting that differs without being declared (several sweeps, linked settings) is an axis as well if it
    # splits configurations that would otherwise be taken for repetitions.
    distinct = len({_values(trial, axes) for trial in trials})
    for name in settings:
        if name not in axes and name not in SEEDS:
            finer = len({_values(trial, [*axes, name]) for trial in trials})
            if finer > distinct:
                axes, distinct = [*axes, name], finer
    axes += _other_contents([trial for trial in trials if trial["status"] == "done"], axes)
    configurations: dict[tuple[Any, ...], list[Trial]] = {}
    for trial in sorted(trials, key=lambda trial: [_order(trial.get(axis), declared.get(axis, ())) for axis in axes]):
        configurations.setdefault((*_values(trial, axes), bool(trial["random_weights"])), []).append(trial)
    return Design(
        axes=tuple(axes),
        seeds=tuple(seed for seed in SEEDS if len({trial.get(seed) for trial in trials}) > 1),
        configurations=tuple(
            Configuration(dict(zip(axes, values, strict=True)), random, results.profiled, tuple(rows))
            for (*values, random), rows in configurations.items()
        ),
        listed=declared,
        fields=results.fields,
    )


def _other_contents(done: Sequence[Trial], axes: Sequence[str]) -> list[str]:
    """Columns in which trials differ that agree in all axes and seeds: they must not be averaged."""
    found: list[str] = []
    for name in sorted({key for trial in done for key in trial if key.endswith(_CONTENTS)}):
        known = [trial for trial in done if trial.get(name) is not None]
        same = [*axes, *found]
        if len({_values(trial, [*same, name]) for trial in known}) > len({_values(trial, same) for trial in known}):
            found.append(name)
    return found


def show(value: Any) -> str:
    """Write a setting's value as text."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " + ".join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def is_number(value: Any) -> bool:
    """Tell whether this is a number, and not a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(axis: str) -> str:
    last = axis.rsplit(".", 1)[-1]
    return _SYMBOLS.get(last, last.replace("_", " "))


def _values(trial: Trial, axes: Sequence[str]) -> tuple[Any, ...]:
    return tuple(trial.get(axis) for axis in axes)


def _order(value: Any, listed: Sequence[Any]) -> tuple[int, float, str]:
    if is_number(value):
        return 0, float(value), ""
    return 1, listed.index(value) if value in listed else len(listed), show(value)
