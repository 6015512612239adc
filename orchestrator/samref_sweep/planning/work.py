"""Units of work: stages that run in one go, and what happens to them while a plan is executed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from samref.stage import Kind, Stage
from samref_sweep.failures import Failure
from samref_sweep.spec.policy import Keep

KINDS: tuple[Kind, ...] = ("embed", "train", "evaluate", "profile")

TOGETHER = 64

LEAVES: tuple[Kind, ...] = ("evaluate", "profile")


@dataclass(frozen=True)
class Work:
    """Stages that run in one go: evaluations that differ in θ alone, or in whose first clicks they take; or a single
    stage of any kind."""

    stages: tuple[Stage, ...]
    here: tuple[Stage, ...] = ()
    """Embeddings that are made where this work runs, on that node's own disk, as the store does not keep them."""
    passing: bool = False
    """Whether those are gone when the work ends."""

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

    @property
    def awaits(self) -> set[str]:
        """Ids of the stages whose output the store must have before this work can start."""
        here = {stage.id for stage in self.here}
        return {need for stage in (self.stages[0], *self.here) for need in stage.needs.values()} - here


@dataclass(frozen=True)
class Event:
    """Something that happened to a unit of work; displays and trackers are called with these."""

    kind: Literal["started", "progress", "done", "failed", "again"]
    """`again`: it failed, and is tried once more."""
    work: Work
    metrics: Mapping[str, float] = field(default_factory=dict)
    """While in progress: `step`, `total` where known, and what the stage reports of itself, e.g. its loss."""
    failure: Failure | None = None


def units_of_work(stages: Iterable[Stage], keep: Keep) -> tuple[Work, ...]:
    """Put stages together that run in one go: evaluations that differ in θ alone share most of their clicks.

    Those that differ in whose first clicks they take share what is computed once an image.

    No more than `TOGETHER` of them: each has folders that are held open, of which a process may have a few hundred.
    Embeddings that the store does not keep are no work of their own, but of each that reads them.

    Profiles come last: a clock on a machine that does something else measures that.
    """
    together: dict[str, list[Stage]] = {}
    here: dict[str, Stage] = {}
    for stage in sorted(stages, key=lambda stage: stage.kind == "profile"):
        if keep != "store" and stage.kind == "embed":
            here[stage.id] = stage
            continue
        key = stage.id
        if stage.kind == "evaluate":
            alike = {"theta": None, **({"seed": None} if "first_clicks" in stage.key else {})}
            key = repr([{**stage.key, **alike}, stage.needs])
        together.setdefault(key, []).append(stage)
    return tuple(
        Work(
            tuple(members[first : first + TOGETHER]),
            tuple(here[need] for need in members[0].needs.values() if need in here),
            keep == "never",
        )
        for members in together.values()
        for first in range(0, len(members), TOGETHER)
    )
