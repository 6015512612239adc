"""Units of work: stages that run in one go, and what happens to them while a plan is executed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from samref.stage import Kind, Stage
from samref_sweep.failures import Failure

KINDS: tuple[Kind, ...] = ("embed", "train", "evaluate", "profile")

TOGETHER = 64

LEAVES: tuple[Kind, ...] = ("evaluate", "profile")


@dataclass(frozen=True)
class Work:
    """Stages that run in one go: evaluations that differ in θ alone, or in whose first clicks they take; or a single
    stage of any kind."""

    stages: tuple[Stage, ...]

    @property
    def kind(self) -> Kind:
        """The kind of all its stages."""
        return self.stages[0].kind

    @property
    def id(self) -> str:
        """Names the work on screen, and its log file."""
        more = len(self.stages) - 1
        return f"{self.stages[0].id}+{more}" if more else self.stages[0].id

    @property
    def needs(self) -> Mapping[str, str]:
        """Role → id of the stage whose output is needed; alike for all stages of one unit of work."""
        return self.stages[0].needs


@dataclass(frozen=True)
class Event:
    """Something that happened to a unit of work; displays and trackers are called with these."""

    kind: Literal["started", "progress", "done", "failed", "again"]
    """`again`: it failed, and is tried once more."""
    work: Work
    metrics: Mapping[str, float] = field(default_factory=dict)
    """While in progress: `step`, `total` where known, and what the stage reports of itself, e.g. its loss."""
    failure: Failure | None = None


def units_of_work(stages: Iterable[Stage]) -> tuple[Work, ...]:
    """Put stages together that run in one go: evaluations that differ in θ alone share most of their clicks.

    Those that differ in whose first clicks they take share what is computed once an image.

    No more than `TOGETHER` of them: each has folders that are held open, of which a process may have a few hundred.

    Profiles come last: a clock on a machine that does something else measures that.
    """
    together: dict[str, list[Stage]] = {}
    for stage in sorted(stages, key=lambda stage: stage.kind == "profile"):
        key = stage.id
        if stage.kind == "evaluate":
            alike = {"theta": None, **({"seed": None} if "first_clicks" in stage.key else {})}
            key = repr([{**stage.key, **alike}, stage.needs])
        together.setdefault(key, []).append(stage)
    return tuple(
        Work(tuple(members[first : first + TOGETHER]))
        for members in together.values()
        for first in range(0, len(members), TOGETHER)
    )
