"""The plan of a sweep: its trials, the stages that they share, and the units of work that are still to do.

A plan is a pure value: made from configurations, fingerprints and the ids of the stages that are done; it reads and
runs nothing. Only what is missing is planned, and of what that needs only what is missing too: a trial whose leaves
(evaluation, profile) are done needs none of its embeddings, even if they were deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from samref.trial import Fingerprints, Kind, Stage, Trial, build, canonical
from samref_sweep.spec import Sweep

KINDS: tuple[Kind, ...] = ("embed", "train", "evaluate", "profile")
LEAVES: tuple[Kind, ...] = ("evaluate", "profile")
Status = Literal["done", "failed", "stopped", "not run"]


@dataclass(frozen=True)
class Work:
    """Stages that run in one go: evaluations that differ in θ alone, or a single stage of any kind."""

    stages: tuple[Stage, ...]

    @property
    def kind(self) -> Kind:
        return self.stages[0].kind

    @property
    def id(self) -> str:
        """Names it on screen and its log file."""
        more = len(self.stages) - 1
        return f"{self.stages[0].id}+{more}" if more else self.stages[0].id

    @property
    def needs(self) -> Mapping[str, str]:
        """Role → id of the stage whose output is needed; the same for all its stages."""
        return self.stages[0].needs

    def to_json(self) -> list[dict[str, Any]]:
        return [stage.to_json() for stage in self.stages]

    @classmethod
    def from_json(cls, value: Sequence[Mapping[str, Any]]) -> Work:
        return cls(tuple(Stage.from_json(entry) for entry in value))


@dataclass(frozen=True)
class Failure:
    """Why a stage has no output."""

    reason: str
    log: str | None = None
    """The file that holds the whole story."""

    def __str__(self) -> str:
        return f"{self.reason} (log: {self.log})" if self.log else self.reason


@dataclass(frozen=True)
class Outcome:
    """What became of a trial."""

    status: Status
    reason: str | None = None


@dataclass(frozen=True)
class Count:
    """The stages of one kind."""

    asked: int
    """As many as there were if no trial shared any."""
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

    @property
    def stages(self) -> dict[str, Stage]:
        """Every stage of every trial, once."""
        return {stage.id: stage for trial in self.trials for stage in trial.stages}

    def counts(self) -> dict[Kind, Count]:
        """For each kind of stage that occurs: asked for, distinct, done and to do."""
        to_do = {stage.id for work in self.works for stage in work.stages}
        counts = {}
        for kind in KINDS:
            asked = [stage.id for trial in self.trials for stage in trial.stages if stage.kind == kind]
            if asked:
                missing = len(to_do.intersection(asked))
                distinct = len(set(asked))
                counts[kind] = Count(asked=len(asked), total=distinct, done=distinct - missing, to_do=missing)
        return counts

    def outcomes(self, done: frozenset[str], failures: Mapping[str, Failure]) -> tuple[Outcome, ...]:
        """For each trial, given what is done now, whether it is complete or what it lacks."""
        return tuple(outcome(trial, done, failures) for trial in self.trials)


def leaves(trial: Trial) -> list[Stage]:
    """The stages whose output is the trial's row: no other stage needs them."""
    return [stage for stage in trial.stages if stage.kind in LEAVES]


def outcome(trial: Trial, done: frozenset[str], failures: Mapping[str, Failure]) -> Outcome:
    """What became of one trial."""
    if all(stage.id in done for stage in leaves(trial)):
        return Outcome("done")
    for stage in trial.stages:
        if stage.id in failures and stage.id not in done:
            return Outcome("failed", f"{stage.kind}: {failures[stage.id]}")
    return Outcome("not run", "the sweep was stopped before it; the same command goes on from there")


def plan(sweep: Sweep, fingerprints: Fingerprints, done: Iterable[str]) -> Plan:
    """Plan a sweep: equal trials and equal stages count once."""
    done = frozenset(done)
    trials: dict[str, Trial] = {}
    points: dict[str, Mapping[str, Any]] = {}
    for config, point in zip(sweep.configs, sweep.points, strict=True):
        trial = build(config, fingerprints)
        trials.setdefault(trial.id, trial)
        points.setdefault(trial.id, point)
    works = group(missing(trials.values(), done))
    return Plan(sweep, tuple(trials.values()), tuple(points.values()), works, done)


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


def group(stages: Sequence[Stage]) -> tuple[Work, ...]:
    """Units of work: evaluations that differ in θ alone share their embeddings and most of their clicks.

    Profiles come first: each waits for a whole machine, and would wait for ever behind a stream of small stages.
    """
    together: dict[str, list[Stage]] = {}
    for stage in sorted(stages, key=lambda stage: stage.kind != "profile"):
        key = stage.id
        if stage.kind == "evaluate":
            key = canonical([{**stage.key, "theta": None}, stage.needs])
        together.setdefault(key, []).append(stage)
    return tuple(Work(tuple(members)) for members in together.values())
