"""Configurations: the trials that are equal but for their seeds, and what they measured together.

The terminal's table and the sweep's run in MLflow are made of them; the page's are alike (samref/repetitions.py).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from samref.config import TrialConfig
from samref.measures import kind_of
from samref.part import Part
from samref.repetitions import SEEDS, Repetitions, summarise
from samref.trial import Trial
from samref_sweep.planning.plan import Plan
from samref_sweep.spec.objective import Objective

HEADLINES = ("noc_at_90", "noc_at_95")
"""Metrics of every table of configurations; those that a sweep names come after them."""

Measured = Callable[[Trial], Mapping[str, float]]
"""What a trial measured, by the names of `samref.measures.MEASURES` and the sweep's own; empty while it is not done."""


@dataclass(frozen=True)
class Configuration:
    """The trials that are equal but for their seeds."""

    values: Mapping[str, Any]
    """The value of each axis but the seeds."""
    trials: tuple[Trial, ...]

    def summary(self, name: str, measured: Measured) -> Repetitions | None:
        """A metric's mean over the trials that have it; what a profile measured counts once for all that share it."""
        found: dict[str, float | None] = {}
        for trial in self.trials:
            profile = trial.stage("profile") if kind_of(name) == "profile" else None
            found[profile.id if profile else trial.id] = measured(trial).get(name)
        made = summarise(found.values())
        return made if made.n else None


def configurations(plan: Plan) -> tuple[Configuration, ...]:
    """Gather a plan's trials, in its order."""
    found: dict[Any, list[Trial]] = {}
    values: dict[Any, Mapping[str, Any]] = {}
    for trial, point in zip(plan.trials, plan.points, strict=True):
        key = _without_seeds(trial.config)
        found.setdefault(key, []).append(trial)
        values.setdefault(key, {axis: value for axis, value in point.items() if axis not in SEEDS})
    return tuple(Configuration(values[key], tuple(trials)) for key, trials in found.items())


def best(
    among: Iterable[Configuration], metric: Objective, measured: Measured
) -> tuple[Configuration, Repetitions] | None:
    """Find the configuration with the best mean; one that lacks a seed, only where all do, and never random weights."""
    ranked = [
        (each, summary)
        for each in among
        if not random_weights(each.trials[0]) and (summary := each.summary(metric.name, measured))
    ]
    found: tuple[Configuration, Repetitions] | None = None
    for pair in [pair for pair in ranked if pair[1].whole] or ranked:
        if found is None or metric.better(pair[1].mean or 0.0, found[1].mean or 0.0):
            found = pair
    return found


def headlines(plan: Plan) -> list[str]:
    """The metrics of a table of configurations."""
    looked_for, own = ([each.name for each in named] for named in (plan.sweep.objectives, plan.sweep.derived))
    return list(dict.fromkeys([*HEADLINES, *looked_for, *own]))


def goal(plan: Plan) -> Objective:
    """What a sweep looks for first; NoC90 where it says nothing."""
    return next(iter(plan.sweep.objectives), Objective(name="noc_at_90"))


def random_weights(trial: Trial) -> bool:
    """Whether the image encoder's weights are random: loaded from nothing and trained by no stage."""
    leaf = trial.stage("evaluate")
    trained = any("encoder" in stage.key["modules"] for stage in trial.stages if stage.kind == "train")
    return leaf is not None and str(leaf.key["checkpoint"]).startswith("random") and not trained


def words(point: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """A point in words, such as `gamma=0.9 theta=1.1`, by `short_names`."""
    return " ".join(f"{names.get(key, key)}={show(value)}" for key, value in point.items())


def common(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What points have in common."""
    first = points[0] if points else {}
    return {key: value for key, value in first.items() if all(point.get(key) == value for point in points)}


def show(value: Any) -> str:
    """A setting's value as text."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def mean_text(made: Repetitions) -> str:
    """`15.80 ± 0.07`; without a deviation where there is a single value."""
    assert made.mean is not None
    return number(made.mean) + ("" if made.std is None else f" ± {number(made.std)}")


def number(value: float) -> str:
    """A measured number as text: two decimals, or three digits of one that is less than 1."""
    return f"{value:.2f}" if value == 0 or abs(value) >= 1 else f"{value:.3g}"


def _without_seeds(config: TrialConfig) -> tuple[Part | None, ...]:
    parts = ((name, getattr(config, name)) for name in TrialConfig.model_fields)
    seeded = ((part, bool(part and f"{name}.seed" in SEEDS and part.seed)) for name, part in parts)
    return tuple(part.model_copy(update={"seed": 0}) if other else part for part, other in seeded)
