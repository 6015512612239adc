"""The plan of a sweep: its trials, the stages that they share, and the units of work that are still to do.

A plan is a pure value: made from configurations, fingerprints and the ids of the stages that are done; it reads and
runs nothing. Only what is missing is planned, and of what that needs only what is missing too: a trial whose leaves
(evaluation, profile) are done needs none of its embeddings, even if they were deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from samref.config import TrialConfig
from samref.stage import Kind, Stage
from samref.trial import Fingerprints, Trial, build
from samref_sweep.failures import Failure
from samref_sweep.planning.work import KINDS, LEAVES, Work, units_of_work
from samref_sweep.spec.sweep import Sweep

Status = Literal["done", "failed", "stopped", "not run"]


@dataclass(frozen=True)
class Outcome:
    """What became of a trial."""

    status: Status
    reason: str | None = None


@dataclass(frozen=True)
class Count:
    """The stages of one kind."""

    asked: int
    """How many there would be if no trial shared any."""
    total: int
    done: int
    """Finished before, or not needed because all that needs them is finished."""
    to_do: int


@dataclass(frozen=True)
class Plan:
    """What a sweep consists of, and what of it is still to do."""

    sweep: Sweep
    trials: tuple[Trial, ...]
    points: tuple[Mapping[str, Any], ...]
    """For each trial the value of every axis."""
    works: tuple[Work, ...]
    """What is to do, each after what it needs."""
    done: frozenset[str]
    """Ids of stages that were done when the plan was made."""
    interruption: str | None = None
    """Which budget interrupted the sweep before its end, in words."""

    @property
    def stages(self) -> dict[str, Stage]:
        """Every stage of every trial, once."""
        return {stage.id: stage for trial in self.trials for stage in trial.stages}

    def counts(self) -> dict[Kind, Count]:
        """For each kind of stage that occurs: asked for, distinct, done and to do."""
        to_do = {stage.id for work in self.works for stage in (*work.stages, *work.here)}
        counts = {}
        for kind in KINDS:
            asked = [stage.id for trial in self.trials for stage in trial.stages if stage.kind == kind]
            if asked:
                missing = len(to_do.intersection(asked))
                distinct = len(set(asked))
                counts[kind] = Count(asked=len(asked), total=distinct, done=distinct - missing, to_do=missing)
        return counts

    def anew(self, superseded: Collection[str]) -> Plan:
        """Return the plan as if these finished stages were not done."""
        done = self.done.difference(superseded)
        return replace(self, done=done, works=_works(self.sweep, self.trials, done))

    def without(self, failed: Collection[str]) -> Plan:
        """The plan, less the work on stages that failed, and less what needs them."""
        lost = set(failed)
        works = []
        for work in self.works:  # each after what it needs
            kept = tuple(stage for stage in work.stages if stage.id not in lost)
            if kept and lost.isdisjoint(work.awaits):
                works.append(replace(work, stages=kept))
            else:
                lost.update(stage.id for stage in kept)
        return replace(self, works=tuple(works))

    def outcomes(self, done: frozenset[str], failures: Mapping[str, Failure]) -> tuple[Outcome, ...]:
        """For each trial, given what is done now, whether it is complete or what it lacks."""
        bound = self.sweep.budget.trials
        told = self.interruption or "the sweep was stopped before it; the same command goes on from there"
        return tuple(
            _outcome(trial, done, failures)
            or Outcome("not run", told if bound is None or number < bound else f"budget.trials is {bound}")
            for number, trial in enumerate(self.trials)
        )


def leaves(trial: Trial) -> list[Stage]:
    """The stages whose output is the trial's row: no other stage needs them."""
    return [stage for stage in trial.stages if stage.kind in LEAVES]


def _outcome(trial: Trial, done: frozenset[str], failures: Mapping[str, Failure]) -> Outcome | None:
    """What became of one trial; None: it did not run."""
    if all(stage.id in done for stage in leaves(trial)):
        return Outcome("done")
    for stage in trial.stages:
        if stage.id in failures and stage.id not in done:
            failure = failures[stage.id]
            return Outcome("stopped" if failure.kind == "stopped" else "failed", f"{stage.kind}: {failure}")
    return None


def plan(sweep: Sweep, fingerprints: Fingerprints, done: Iterable[str]) -> Plan:
    """Plan a sweep: equal trials and equal stages count once."""
    done = frozenset(done)
    trials: dict[str, Trial] = {}
    points: dict[str, Mapping[str, Any]] = {}
    shared: dict[Any, Any] = {}
    for config, point in zip(sweep.configs, sweep.points, strict=True):
        trial = build(config, fingerprints, shared)
        trials.setdefault(trial.id, trial)
        points.setdefault(trial.id, point)
    works = _works(sweep, tuple(trials.values()), done)
    return Plan(sweep, tuple(trials.values()), tuple(points.values()), works, done)


def _works(sweep: Sweep, trials: tuple[Trial, ...], done: frozenset[str]) -> tuple[Work, ...]:
    return units_of_work(missing(trials[: sweep.budget.trials], done), sweep.resources["embed"].keep)


def grow(
    plan: Plan, configs: Sequence[TrialConfig], points: Sequence[Mapping[str, Any]], fingerprints: Fingerprints
) -> tuple[Plan, tuple[Trial, ...], tuple[Work, ...]]:
    """Add trials to a plan: the plan, the trials (of which it may have some already), and the work that is new."""
    known = {trial.id for trial in plan.trials}
    trials = tuple(build(config, fingerprints) for config in configs)
    fresh = [(trial, point) for trial, point in zip(trials, points, strict=True) if trial.id not in known]
    planned = {stage.id for work in plan.works for stage in work.stages}
    lacking = missing([trial for trial, _ in fresh], plan.done)
    works = units_of_work((stage for stage in lacking if stage.id not in planned), plan.sweep.resources["embed"].keep)
    grown = replace(
        plan,
        trials=(*plan.trials, *(trial for trial, _ in fresh)),
        points=(*plan.points, *(point for _, point in fresh)),
        works=(*plan.works, *works),
    )
    return grown, trials, works


def missing(trials: Iterable[Trial], done: frozenset[str]) -> list[Stage]:
    """The stages that have to run, each after what it needs."""
    to_do: dict[str, Stage] = {}
    for trial in trials:
        by_id = {stage.id: stage for stage in trial.stages}
        wanted = {stage.id for stage in leaves(trial)} - done
        for stage in reversed(trial.stages):  # needs stand before what needs them
            if stage.id in wanted:
                wanted.update(need for need in stage.needs.values() if need not in done)
        to_do.update((name, by_id[name]) for name in by_id if name in wanted)
    return list(to_do.values())
