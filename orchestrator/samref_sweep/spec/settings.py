"""The names that a sweep may use (settings, backbones, datasets), and what to say about one that does not exist."""

import types
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

from samref.config import BOX, CLICKERS, TrialConfig
from samref_sweep.errors import SpecError, did_you_mean


class Keys(BaseModel):
    """Keys of a sweep file that belong together: frozen, no others are taken, and docstrings describe them."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


def setting(key: str, place: str) -> FieldInfo:
    """The field of a dotted setting, e.g. `train.init.steps`.

    Raises SpecError: there is no such setting; names the nearest one and all of its part.
    """
    part: type[BaseModel] | None = TrialConfig
    field: FieldInfo | None = None
    above = ""
    for name in key.split("."):
        if field is not None and typing.get_origin(field.annotation) is dict:  # any name, as of model.options
            return FieldInfo(annotation=Any, default=None)
        if part is None:
            raise SpecError(f"{place}: {key} is not a setting: {above} is a single value")
        if name not in part.model_fields:
            known = list(part.model_fields)
            raise SpecError(
                f"{place}: {key} is not a setting.{meant(name, known)} {above or 'A trial'} has: {', '.join(known)}"
            )
        field = part.model_fields[name]
        part = part_of(field)
        above = f"{above}.{name}" if above else name
    assert field is not None
    return field


def short_names(axes: Iterable[str]) -> dict[str, str]:
    """`evaluate.theta` as `theta`; an axis whose last word another one has keeps its whole name."""
    axes = list(axes)
    last = [axis.rpartition(".")[2] for axis in axes]
    return {axis: word if last.count(word) == 1 else axis for axis, word in zip(axes, last, strict=True)}


def takes_several(field: FieldInfo, value: Any) -> bool:
    """Whether what was written are several values of the setting: a list, of lists where one value is itself a list."""
    lists = any(typing.get_origin(option) in (tuple, list) for option in options(field.annotation))
    return isinstance(value, list) and (not lists or all(isinstance(entry, list) for entry in value))


def options(annotation: Any) -> tuple[Any, ...]:
    """The types that an annotation allows."""
    union = isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union
    return typing.get_args(annotation) if union else (annotation,)


def meant(name: str, known: Sequence[str]) -> str:
    """` Did you mean evaluate.theta?`: the settings whose last word this is, or else the nearest known name."""
    whole = " or ".join(key for key in _dotted(TrialConfig) if key.rpartition(".")[2] == name)
    return f" Did you mean {whole}?" if whole else did_you_mean(name, known)


def _dotted(part: type[BaseModel], above: str = "") -> Iterator[str]:
    """Every setting by its whole name; of a training before a training, none."""
    for name, field in reversed(part.model_fields.items()):  # the evaluation's first: they cost least
        inner = part_of(field)
        if inner is None:
            yield f"{above}{name}"
        elif inner is not part:
            yield from _dotted(inner, f"{above}{name}.")


def part_of(field: FieldInfo) -> type[BaseModel] | None:
    """The part that the setting is (`train`, `train.init`); None for a setting with a value."""
    return model_in(field.annotation)


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation holds: `dict[Kind, Resources]` holds Resources."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(model_in, typing.get_args(annotation))), None)


def check_names(config: TrialConfig, place: Callable[[str], str]) -> None:
    """Refuse a backbone, dataset or clicker that there is not; of a person's own also one that cannot be called.

    `place` says where a setting was written.
    """
    from samref import backbones, clicks, data, plugins  # of OpenCV, which reading a file does without

    checks: list[tuple[str, str, Sequence[str], Callable[[], None]]] = []
    model, evaluate, trainings = config.model, config.evaluate, config.train
    if evaluate.start == BOX and not backbones.takes_boxes(model.backbone):
        raise SpecError(
            f"{place('evaluate.start')}: evaluate.start is {BOX}, and {model.backbone} takes clicks alone; leave it out"
        )
    build = partial(backbones.check, model.backbone, model.options)
    checks.append(("model.backbone", model.backbone, backbones.names(), build))
    checks.append(("evaluate.clicker", evaluate.clicker, CLICKERS, partial(clicks.check, evaluate.clicker)))
    checks.append(("evaluate.data", evaluate.data, data.names(), partial(data.check_name, evaluate.data)))
    key = "train"
    while trainings is not None:
        checks.append((f"{key}.data", trainings.data, data.names(), partial(data.check_name, trainings.data)))
        key, trainings = f"{key}.init", trainings.init
    for key, name, known, check in checks:
        family, colon, argument = name.partition(":")
        there = (f"{family}:NAME" if colon and argument else name) in known
        if not there and not plugins.is_plugin(name):
            what = {"backbone": "backbone", "clicker": "clicker"}.get(key.rpartition(".")[2], "dataset")
            raise SpecError(
                f"{place(key)}: {key} is {name!r}: there is no such {what}.{did_you_mean(name, known)} "
                f"There are: {', '.join(known)}, and your own (docs/extending.md)"
            )
        try:
            check()
        except ValueError as error:
            raise SpecError(f"{place(key)}: {key}: {error}") from None
