"""What a search looks for: metrics, and which way is better. Knows nothing of Optuna."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator

from samref_sweep.errors import did_you_mean

Direction = Literal["minimize", "maximize"]

EVALUATED: Mapping[str, Direction] = {
    **{f"{name}_at_{iou}": "minimize" for name in ("noc", "nof") for iou in (85, 90, 95)},
    **{f"miou_at_{click}": "maximize" for click in (1, 3, 5, 10, 20)},
    "seconds_per_click": "minimize",
}
PROFILED: Mapping[str, Direction] = {
    "fps": "maximize",
    **dict.fromkeys(("memory_gb", "parameters", "parameters_leaf", "encode_seconds", "click_seconds"), "minimize"),
}
METRICS: Mapping[str, Direction] = {**EVALUATED, **PROFILED}


class Metric(BaseModel):
    """A number that evaluations or profiles measure."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    name: str = Field(json_schema_extra={"enum": list(METRICS)})
    """A column of trials.parquet, e.g. `noc_at_95`, `miou_at_5` or `fps`."""
    goal: Direction | None = None
    """Which way is better; what the metric's name says unless given."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in METRICS:
            raise ValueError(
                f"there is no such metric.{did_you_mean(name, list(METRICS))} There are: {', '.join(METRICS)}"
            )
        return name

    @property
    def direction(self) -> Direction:
        """Which way is better."""
        return self.goal or METRICS[self.name]

    def better(self, value: float, than: float) -> bool:
        """Whether a value is better than another."""
        return value < than if self.direction == "minimize" else value > than


def _metrics(value: Any) -> Any:
    entries = value if isinstance(value, list) else [value]
    return [{"name": entry} if isinstance(entry, str) else entry for entry in entries]


_Name = Annotated[str, WithJsonSchema({"type": "string", "enum": list(METRICS)})]
Metrics = Annotated[
    list[Metric], BeforeValidator(_metrics, json_schema_input_type=_Name | Metric | list[_Name | Metric])
]
