"""Axes: what stands below `parameters`, and what becomes of it: values that vary together, or a range.

Knows nothing of files, or of the other axes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from samref.part import Number, number_from_text
from samref.stage import canonical
from samref_sweep.errors import SpecError
from samref_sweep.spec.settings import Keys, options, setting
from samref_sweep.spec.yaml_text import without_noise

SEED = "train.seed"

Condition = Mapping[str, tuple[Any, ...]]
"""Setting → the values that it may have."""


class Axis(Keys):
    """The values of one swept setting."""

    values: list[Any] | None = None
    """One trial for each value (times the values of the other axes)."""
    min: Number | None = None
    """Instead of `values`, for `method: random` and `optuna`: the smallest value."""
    max: Number | None = None
    """The largest value."""
    log: bool = False
    """Draw the value's logarithm evenly instead of the value."""
    integer: bool | None = Field(None, alias="int")
    """Draw whole numbers; what the setting takes unless given."""
    when: dict[str, Any] | None = None
    """Other settings and the value (or the list of values) that they must have for this to be an axis; elsewhere the
    setting has the value under `trial`, or its default."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.values is not None:
            if self.min is not None or self.max is not None or self.log or self.integer is not None:
                raise ValueError("it should have values, or min and max, not both")
        elif self.min is None or self.max is None:
            raise ValueError("it should have values: [...], or min and max")
        elif self.min >= self.max:
            raise ValueError(f"min is {self.min:g}, which is not below max, {self.max:g}")
        elif self.log and self.min <= 0:
            raise ValueError(f"min is {self.min:g}; with log it should be greater than 0")
        return self


def _axis(value: Any) -> Any:
    if isinstance(value, list):
        return {"values": value}
    if not isinstance(value, dict):
        raise ValueError("it should be a list of values, or values: [...]")
    return value


AxisEntry = Annotated[Axis, BeforeValidator(_axis, json_schema_input_type=list[Any] | Axis)]


class Parameters(Keys):
    """The axes: a dotted setting → its values."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, AxisEntry] = Field(init=False)

    zip: list[dict[str, Any]] = Field([])
    """Coupled axes: each entry gives the same settings a value each, and all entries together are one axis."""

    @property
    def axes(self) -> dict[str, Axis]:
        """Dotted setting → its axis, in the order of the file."""
        return self.__pydantic_extra__


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, both included."""

    low: float
    high: float
    log: bool
    integer: bool

    def at(self, share: float) -> float:
        """The value at a share in [0, 1) of the way."""
        low, high = self.low, self.high + self.integer  # so that the last whole number has its share
        value = low * math.exp(share * math.log(high / low)) if self.log else low + share * (high - low)
        return min(int(value), int(self.high)) if self.integer else min(without_noise(value), self.high)


@dataclass(frozen=True)
class Dimension:
    """Settings that vary together: one axis, or several that `zip` couples."""

    keys: tuple[str, ...]
    place: str
    """Where it was written."""
    rows: tuple[Mapping[str, Any], ...] = ()
    """The values that the settings take; empty for a range."""
    range: Range | None = None
    """For a single setting."""
    when: Condition = field(default_factory=dict)

    def text(self, names: Mapping[str, str]) -> str:
        """`3 backbone+refiner`, by the settings' short names."""
        name = "+".join(names.get(key, key) for key in self.keys)
        if self.range:
            return f"{name} {self.range.low:g}…{self.range.high:g}"
        return f"{len(self.rows)} {name}"

    def at(self, share: float) -> Mapping[str, Any]:
        """The row, or the value of the range, at a share in [0, 1) of the way."""
        if self.range:
            return {self.keys[0]: self.range.at(share)}
        return self.rows[int(share * len(self.rows))]

    def axes(self) -> dict[str, tuple[Any, ...]]:
        """For each setting its values, each once; of a range the two ends."""
        if self.range:
            return {self.keys[0]: (self.range.low, self.range.high)}
        return {key: distinct(row[key] for row in self.rows) for key in self.keys}

    def only(self, keys: Sequence[str]) -> Dimension:
        """Without the other settings, each row once."""
        rows = ({key: row[key] for key in keys} for row in self.rows)
        return replace(self, keys=tuple(keys), rows=distinct(rows))

    def decides(self, condition: Condition) -> bool:
        """Whether a condition looks at one of the settings."""
        return any(overlap(key, other) for key in self.keys for other in condition)

    def ends(self) -> tuple[Mapping[str, Any], ...]:
        """Rows that show every value; of a range, the two ends."""
        return (self.at(0.0), {self.keys[0]: self.range.at(1.0)}) if self.range else self.rows


def range_of(key: str, axis: Axis, place: str) -> Range:
    """The range that an axis with `min` and `max` is.

    Raises SpecError: the setting takes no numbers, or whole ones only.
    """
    kinds = {getattr(option, "__origin__", option) for option in options(setting(key, place).annotation)}
    numbers = kinds & {int, float}
    if not numbers:
        raise SpecError(f"{place}: {key} takes no numbers, so it has no min and max; list its values")
    assert axis.min is not None
    assert axis.max is not None
    whole = numbers == {int}
    integer = whole if axis.integer is None else axis.integer
    if whole and not integer:
        raise SpecError(f"{place}: {key} takes whole numbers only; leave int: false out")
    if integer and (axis.min % 1 or axis.max % 1):
        raise SpecError(f"{place}: {key} goes from {axis.min:g} to {axis.max:g}; both should be whole numbers")
    return Range(axis.min, axis.max, axis.log, integer)


def check_values(key: str, values: Sequence[Any], place: str) -> None:
    """Refuse an axis without values, or with one twice."""
    if not values:
        raise SpecError(f"{place}: {key} has no values; name at least one")
    seen: set[str] = set()
    for value in values:
        text = _text(value)
        if text in seen:
            raise SpecError(f"{place}: {key} has the value {value!r} twice (1 and 1.0 are the same value)")
        seen.add(text)


def matches(condition: Condition, tree: Mapping[str, Any]) -> bool:
    """Whether every setting of a condition has one of its values."""
    return all(_text(value_at(tree, key)) in map(_text, values) for key, values in condition.items())


def value_at(tree: Mapping[str, Any], key: str) -> Any:
    """A setting's value in nested mappings, or its default; None below a part that is null."""
    value: Any = tree
    names = key.split(".")
    for depth, name in enumerate(names, start=1):
        if value is None:
            return None
        if isinstance(value, BaseModel):  # a default
            value = getattr(value, name)
        elif name in value:
            value = value[name]
        else:
            value = setting(".".join(names[:depth]), key).get_default(call_default_factory=True)
    return value.model_dump() if isinstance(value, BaseModel) else value


def put(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key of a nested mapping; a part that is null or absent is made."""
    *parents, last = key.split(".")
    for name in parents:
        if not isinstance(tree.get(name), dict):
            tree[name] = {}
        tree = tree[name]
    tree[last] = copy_tree(value) if isinstance(value, dict) else value


def copy_tree(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested mappings, which `put` may change."""
    return {key: copy_tree(value) if isinstance(value, dict) else value for key, value in tree.items()}


def distinct(values: Iterable[Any]) -> tuple[Any, ...]:
    """Each value once, in order."""
    return tuple({_text(value): value for value in values}.values())


def overlap(key: str, other: str) -> bool:
    """Whether one is the other, or a part of it."""
    return key == other or key.startswith(f"{other}.") or other.startswith(f"{key}.")


def _text(value: Any) -> str:
    # A number's setting takes "1e-4" in quotes too, so it is the same value as 1e-4.
    try:
        return canonical(number_from_text(value))
    except (TypeError, ValueError):  # no setting takes it, which is said where it is checked
        return repr(value)
