"""Units of work: stages that run in one go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from samref.stage import Kind, Stage

KINDS: tuple[Kind, ...] = ("embed", "train", "evaluate", "profile")

LEAVES: tuple[Kind, ...] = ("evaluate", "profile")


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


def group(stages: Iterable[Stage]) -> tuple[Work, ...]:
    """Units of work: evaluations that differ in θ alone share their embeddings and most of their clicks.

    Profiles come first: each waits for a whole machine, and would wait for ever behind a stream of small stages.
    """
    together: dict[str, list[Stage]] = {}
    for stage in sorted(stages, key=lambda stage: stage.kind != "profile"):
        key = stage.id
        if stage.kind == "evaluate":
            key = repr([{**stage.key, "theta": None}, stage.needs])
        together.setdefault(key, []).append(stage)
    return tuple(Work(tuple(members)) for members in together.values())
