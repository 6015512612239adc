"""What a search looks for: metrics, and which way is better. Knows nothing of Optuna."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from samref.measures import MEASURES, Better
from samref_sweep.errors import did_you_mean
from samref_sweep.spec.settings import Keys

Direction = Literal["minimize", "maximize"]
GOALS: Mapping[Better | None, Direction] = {"lower": "minimize", "higher": "maximize"}


class Metric(Keys):
    """A number that a trial's evaluation, profile or training measures, and whether less or more of it is wanted."""

    name: str = Field(json_schema_extra={"enum": list(MEASURES)})
    """A metric of docs/results.md, e.g. `noc_at_95`, `miou_at_5` or `fps`."""
    goal: Direction | None = None
    """Which way is better; what the metric's name says unless given."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in MEASURES:
            raise ValueError(
                f"there is no such metric.{did_you_mean(name, list(MEASURES))} There are: {', '.join(MEASURES)}"
            )
        return name

    @model_validator(mode="after")
    def _has_a_goal(self) -> Self:
        if self.goal is None and MEASURES[self.name].better is None:
            raise ValueError(f"neither way is better by itself; say which: {{name: {self.name}, goal: minimize}}")
        return self

    @property
    def direction(self) -> Direction:
        """Which way is better: the goal given, else what the table of measures says."""
        return self.goal or GOALS[MEASURES[self.name].better]

    def better(self, value: float, than: float) -> bool:
        """Whether a value is better than another."""
        return value < than if self.direction == "minimize" else value > than


def _metrics(value: Any) -> Any:
    entries = value if isinstance(value, list) else [value]
    return [{"name": entry} if isinstance(entry, str) else entry for entry in entries]


_UNDISPUTED = [each.name for each in MEASURES.values() if each.better]
_Name = Annotated[str, WithJsonSchema({"type": "string", "enum": _UNDISPUTED})]
Metrics = Annotated[
    list[Metric], BeforeValidator(_metrics, json_schema_input_type=_Name | Metric | list[_Name | Metric])
]
