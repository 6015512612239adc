"""What a configuration's part is: frozen settings, each of them in an id unless it was added with an older meaning."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def number_from_text(value: Any) -> Any:
    """The number that a text is, else the value itself: YAML 1.1 reads `1e-4` (no dot) as text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


Number = Annotated[float, BeforeValidator(number_from_text), Field(allow_inf_nan=False)]
Theta = Annotated[float, BeforeValidator(number_from_text), Field(gt=0)]
"""θ of the selector. Infinity is one: R_e is always below it, so that all is pasted on the global result."""
Whole = Annotated[int, Field(le=2**63 - 1)]
"""A whole number that a table can hold."""


def as_json(value: Any) -> Any:
    """A value that JSON can hold: infinity is the text `inf`, which settings take again, and NaN is null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if isinstance(value, Mapping):
        return {name: as_json(entry) for name, entry in value.items()}
    return [as_json(entry) for entry in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class Added:
    """Marks a setting that came after stores were filled, so that it changes no id while it means what was before.

    `ema: Annotated[Number | None, Added(as_before=None)] = None`: whatever hashes settings leaves the field out while
    it has the value `as_before`, and what runs a stage whose id lacks it gets that value, also where the default is
    another one. The mark stays for ever, and `as_before` with it.
    """

    as_before: Any
    """The value under which everything is as it was without the setting."""


class Part(BaseModel):
    """A frozen, keyword-only part of a trial's configuration; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    @classmethod
    @cache
    def as_before(cls) -> Mapping[str, Any]:
        """The settings that were `Added` to this part, each with the value that means what was before."""
        marks = ((name, mark) for name, field in cls.model_fields.items() for mark in field.metadata)
        return {name: mark.as_before for name, mark in marks if isinstance(mark, Added)}

    def identity(self) -> dict[str, Any]:
        """The settings by which this part differs from others, as plain values: those that ids hash."""
        before, values = self.as_before(), {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name not in before or value != before[name]:
                values[name] = value.identity() if isinstance(value, Part) else value
        return values


class Options(dict[str, Any]):
    """Plain JSON values by name, which nobody changes, so that they can be hashed."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(json.dumps(self, sort_keys=True))
