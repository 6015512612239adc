"""What a search looks for: metrics, and which way is better. Knows nothing of Optuna."""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, WithJsonSchema, field_validator, model_validator

from samref import derived
from samref.measures import MEASURES, Better
from samref_sweep.errors import did_you_mean
from samref_sweep.spec.settings import Keys

Direction = Literal["minimize", "maximize"]
GOALS: Mapping[Better | None, Direction] = {"lower": "minimize", "higher": "maximize"}


def _named(names: Iterable[str]) -> dict[str, Any]:
    return {"anyOf": [{"enum": list(names)}, {"type": "string", "pattern": derived.NAMES}]}


class Objective(Keys):
    """A number that a trial's evaluation, profile or training measures, and whether less or more of it is wanted."""

    name: Annotated[str, WithJsonSchema(_named(MEASURES))]
    """A metric of docs/results.md, e.g. `noc_at_95`, `miou_at_5` or `fps`, or one as of `metrics`."""
    goal: Direction | None = None
    """Which way is better; what the metric's name says unless given."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in MEASURES and not re.fullmatch(derived.NAMES, name):
            raise ValueError(
                f"there is no such metric.{did_you_mean(name, list(MEASURES))} There are: {', '.join(MEASURES)}, and "
                f"{derived.PATTERNS}"
            )
        return name

    @model_validator(mode="after")
    def _has_a_goal(self) -> Self:
        if self.goal is None and self._better is None:
            raise ValueError(f"neither way is better by itself; say which: {{name: {self.name}, goal: minimize}}")
        return self

    @property
    def direction(self) -> Direction:
        """Which way is better: the goal given, else what the table of measures says."""
        return self.goal or GOALS[self._better]

    @property
    def _better(self) -> Better | None:
        measure = None if ":" in self.name else derived.measure(self.name)
        return measure.better if measure else None  # of a function of one's own nobody knows

    def better(self, value: float, than: float) -> bool:
        """Whether a value is better than another."""
        return value < than if self.direction == "minimize" else value > than


def _objectives(value: Any) -> Any:
    entries = value if isinstance(value, list) else [value]
    return [{"name": entry} if isinstance(entry, str) else entry for entry in entries]


_Name = Annotated[str, WithJsonSchema(_named(each.name for each in MEASURES.values() if each.better))]
Objectives = Annotated[
    list[Objective], BeforeValidator(_objectives, json_schema_input_type=_Name | Objective | list[_Name | Objective])
]
