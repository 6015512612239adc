"""What a configuration's part is: frozen settings, each of them in an id unless it was added with an older meaning."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails


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
    def of(cls, **settings: Any) -> Self:
        """The part with these settings.

        Raises ValueError: there is no such setting, or it cannot have the value; one line.
        """
        try:
            return cls(**settings)
        except ValidationError as error:
            first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise ValueError(f"{key} is not a setting; there are {', '.join(cls.model_fields)}")
        said = pydantic_message(first)
        raise ValueError(f"{key} is {first['input']!r}: {said}" if first["type"] != "value_error" else said)

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


def pydantic_message(error: ErrorDetails) -> str:
    """What pydantic says of one wrong value, as the rest of a sentence of ours."""
    text: str = error["msg"].removeprefix("Value error, ")
    text, value = text.replace("Input should be", "it should be"), error.get("input")
    if error["type"] == "string_type" and isinstance(value, bool):
        return f"{text} (yes, no, on and off are true and false; in quotes they are words)"
    if isinstance(value, str) and ":" in value and "number" in text:
        return f"{text} (with colons it is text: for 1:30 write 1.5)"
    return text
