"""The names that a sweep may use (settings, backbones, datasets), and what to say about one that does not exist."""

from __future__ import annotations

import types
import typing
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

from samref.config import TrialConfig
from samref_sweep.errors import SpecError, did_you_mean


class Keys(BaseModel):
    """Keys of a sweep file that belong together: frozen, no others are taken, and docstrings describe them."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


def setting(key: str, place: str) -> FieldInfo:
    """The field of a dotted setting, e.g. `train.init.steps`.

    Raises:
        SpecError: there is no such setting; names the nearest one and all of its part.
    """
    part: type[BaseModel] | None = TrialConfig
    field: FieldInfo | None = None
    above = ""
    for name in key.split("."):
        if part is None:
            raise SpecError(f"{place}: {key} is not a setting: {above} is a single value")
        if name not in part.model_fields:
            known = list(part.model_fields)
            raise SpecError(
                f"{place}: {key} is not a setting.{did_you_mean(name, known)} "
                f"{above or 'A trial'} has: {', '.join(known)}"
            )
        field = part.model_fields[name]
        part = part_of(field)
        above = f"{above}.{name}" if above else name
    assert field is not None
    return field


def takes_several(field: FieldInfo, value: Any) -> bool:
    """Whether what was written are several values of the setting: a list, of lists where one value is itself a list."""
    lists = any(typing.get_origin(option) in (tuple, list) for option in options(field.annotation))
    return isinstance(value, list) and (not lists or all(isinstance(entry, list) for entry in value))


def options(annotation: Any) -> tuple[Any, ...]:
    """The types that an annotation allows."""
    union = isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union
    return typing.get_args(annotation) if union else (annotation,)


def part_of(field: FieldInfo) -> type[BaseModel] | None:
    """The part that the setting is (`train`, `train.init`); None for a setting with a value."""
    return model_in(field.annotation)


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation holds: `dict[Kind, Resources]` holds Resources."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(model_in, typing.get_args(annotation))), None)


def check_name(key: str, name: str, place: str) -> None:
    """Refuse a backbone (of the setting `model.backbone`) or a dataset (of any other) that is not built in."""
    from samref import backbones, data

    what, known = ("backbone", backbones.names()) if key == "model.backbone" else ("dataset", data.names())
    family, colon, argument = name.partition(":")
    if (f"{family}:NAME" if colon and argument else name) not in known:
        raise SpecError(
            f"{place}: {key} is {name!r}: there is no such {what}.{did_you_mean(name, list(known))} "
            f"There are: {', '.join(known)}"
        )
