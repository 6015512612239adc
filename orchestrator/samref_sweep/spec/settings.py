"""The names that a sweep may use (settings, backbones, datasets), and what to say about one that does not exist."""

from __future__ import annotations

import types
import typing
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from samref.config import TrialConfig
from samref_sweep.errors import SpecError, did_you_mean


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


def takes_list(field: FieldInfo) -> bool:
    """Whether one value of the setting is itself a list."""
    return any(typing.get_origin(option) in (tuple, list) for option in options(field.annotation))


def options(annotation: Any) -> tuple[Any, ...]:
    """The types that an annotation allows."""
    union = isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union
    return typing.get_args(annotation) if union else (annotation,)


def part_of(field: FieldInfo) -> type[BaseModel] | None:
    """The part that the setting is (`train`, `train.init`); None for a setting with a value."""
    parts = (
        option for option in options(field.annotation) if isinstance(option, type) and issubclass(option, BaseModel)
    )
    return next(parts, None)


def check_backbone(name: str, place: str) -> None:
    """Refuse a backbone that is not built in."""
    from samref.backbones import names

    known = list(names())
    if name not in known:
        raise SpecError(
            f"{place}: model.backbone is {name!r}: there is no such backbone.{did_you_mean(name, known)} "
            f"There are: {', '.join(known)}"
        )


def check_dataset(key: str, name: str, place: str) -> None:
    """Refuse a dataset that has no reader."""
    from samref.data import names

    known = list(names())
    family, colon, argument = name.partition(":")
    if (f"{family}:NAME" if colon and argument else name) not in known:
        raise SpecError(
            f"{place}: {key} is {name!r}: there is no such dataset.{did_you_mean(name, known)} "
            f"There are: {', '.join(known)}"
        )
