"""Which differences the repetitions so far have decided: `seeds: {up_to: 10, until: …}` stops when all are."""

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samref import metrics
from samref.sequential import Interval, repeated_interval
from samref.stage import Stage
from samref.trial import Trial
from samref_sweep.planning.plan import Plan
from samref_sweep.spec.axes import SEED
from samref_sweep.spec.policy import FIRST_LOOK, SeedsUntil
from samref_sweep.store.store import Store

Point = Mapping[str, Any]
Values = Callable[[Stage], NDArray[np.float64]]
"""Gives a metric for each object of an evaluation."""


@dataclass(frozen=True)
class Decision:
    """What is known of one difference."""

    configuration: str
    """The settings that are compared, in words."""
    baseline: str
    metric: str
    interval: Interval | None
    """None where fewer than two seeds differ in anything."""
    seeds: int
    """Seeds that were compared; one that repeats another's stages counts once."""
    up_to: int
    decided: bool
    """Whether the interval excludes zero, or is as narrow as was asked."""
    confidence: float

    @property
    def text(self) -> str:
        """The decision as a sentence."""
        head = f"{self.configuration} against {self.baseline}: "
        if self.interval is None:
            return f"{head}all seeds give the same, so they decide nothing"
        mean, low, high = self.interval
        said = "decided" if self.decided else "not decided"
        return (
            f"{head}{self.metric} {mean:+.2f} ({self.confidence * 100:g} %: {low:+.2f} to {high:+.2f}), {said} after "
            f"{self.seeds} of {self.up_to} seeds"
        )


def decisions(
    trials: Sequence[Trial], points: Sequence[Point], wanted: SeedsUntil, values: Values
) -> tuple[Decision, ...]:
    """Judge each configuration against the one that has the baseline's settings and agrees with it in all others.

    The trials' evaluations are done; `points` has the axes' values of each.
    """
    until = wanted.until
    by_configuration: dict[tuple[tuple[str, Any], ...], dict[Any, Stage]] = {}
    for trial, point in zip(trials, points, strict=True):
        rest = tuple((key, _hashable(value)) for key, value in point.items() if key != SEED)
        stage = trial.stage("evaluate")
        assert stage is not None
        by_configuration.setdefault(rest, {})[point.get(SEED)] = stage
    fixed = {key: _hashable(value) for key, value in until.baseline.items()}
    found = []
    for rest, stages in by_configuration.items():
        others = {key: value for key, value in rest if key not in fixed}
        base = next(
            (
                other
                for key, other in by_configuration.items()
                if key != rest
                and {k: v for k, v in key if k not in fixed} == others
                and fixed.items() <= dict(key).items()
            ),
            None,
        )
        if base is not None and not fixed.items() <= dict(rest).items():
            found.append(_decision(dict(rest), stages, base, wanted, values))
    return tuple(found)


def decided(plan: Plan, done: Collection[str], store: Store) -> tuple[Decision, ...]:
    """Judge the differences of a plan whose seeds end when they are known, by the evaluations that are done."""
    wanted = plan.sweep.until
    if wanted is None:
        return ()
    every = zip(plan.trials, plan.points, strict=True)
    there = [each for each in every if (stage := each[0].stage("evaluate")) and stage.id in done]
    return decisions([t for t, _ in there], [p for _, p in there], wanted, values_of(store, wanted.until.metric))


def _decision(
    point: Point, stages: Mapping[Any, Stage], base: Mapping[Any, Stage], wanted: SeedsUntil, values: Values
) -> Decision:
    until = wanted.until
    # A baseline that trains nothing has one evaluation, which stands against every seed's.
    pairs = {
        (stage.id, other.id): (stage, other)
        for seed, stage in stages.items()
        if (other := base.get(seed, base.get(None)))
    }
    interval, decided = None, False
    if len(pairs) > 1:
        differences = np.stack([values(stage) - values(other) for stage, other in pairs.values()])
        looks = wanted.up_to - FIRST_LOOK + 1
        interval = repeated_interval(differences, looks=looks, confidence=until.confidence)
        narrow = until.width is not None and interval.high - interval.low <= until.width
        decided = narrow or interval.low > 0 or interval.high < 0
    named = ", ".join(f"{key.rsplit('.', 1)[-1]} {value}" for key, value in point.items())
    against = ", ".join(f"{key.rsplit('.', 1)[-1]} {value}" for key, value in until.baseline.items())
    return Decision(named, against, until.metric, interval, len(pairs), wanted.up_to, decided, until.confidence)


def values_of(store: Store, metric: str) -> Values:
    """Give the function that reads a metric of each object from the store: `noc_at_90`, `miou_at_5`."""

    def read(stage: Stage) -> NDArray[np.float64]:
        num_samples = len(json.loads(store.file(stage.id, "samples.json").read_text()))
        with np.load(store.file(stage.id, "clicks.npz")) as arrays:
            ious: list[list[float]] = [[] for _ in range(num_samples)]
            for sample, iou in zip(arrays["sample"].tolist(), arrays["iou"].tolist(), strict=True):
                ious[sample].append(iou)
        return per_object(ious, metric, stage.evaluate.max_clicks)

    return read


def per_object(ious: Iterable[list[float]], metric: str, max_clicks: int) -> NDArray[np.float64]:
    """Compute `noc_at_PERCENT` or `miou_at_CLICK` of each object from its IoUs after each click."""
    # A loop without an early stop ends before its time only where no error is left.
    whole = [own + [own[-1] if own else 1.0] * (max_clicks - len(own)) for own in ious]
    match = re.fullmatch(r"(noc|miou)_at_(\d+)", metric)
    assert match
    number = int(match[2])
    if match[1] == "noc":
        return metrics.noc(whole, number / 100, max_clicks).astype(np.float64)
    return np.array([own[number - 1] for own in whole])


def _hashable(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else value
