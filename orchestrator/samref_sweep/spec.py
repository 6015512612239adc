"""The sweep file: read, checked, and expanded into trial configurations.

A file's keys are `name`, `purpose`, `method`, `trial` (the settings that all trials share), `parameters` (the axes)
and `resources`. Every mistake is a `SpecError` of one line that names the place, the key and the value.
Knows nothing of stages, the store or Ray.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from samref.config import TrialConfig
from samref.trial import Kind, canonical
from samref_sweep.names import SpecError, check_backbone, check_dataset, did_you_mean, setting, takes_list
from samref_sweep.yaml_text import parse

__all__ = ["Resources", "SpecError", "Sweep", "SweepFile", "read"]


class Resources(BaseModel):
    """What one stage of a kind asks of the cluster."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    cpu: Annotated[float, Field(gt=0)] | Literal["auto", "all"] = "auto"
    """CPUs; `auto`: one, or with a GPU its share of the machine's; `all`: a whole machine, so that it runs alone."""
    gpu: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = "auto"
    """GPUs, one or a fraction of one; `auto`: one where the cluster has any."""


def _default_resources() -> dict[Kind, Resources]:
    # A timing that shares the machine with a training means nothing, hence `all` for profile.
    return {
        "embed": Resources(),
        "train": Resources(),
        "evaluate": Resources(),
        "profile": Resources(cpu="all"),
    }


class Axis(BaseModel):
    """The values of one swept setting."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    values: list[Any]
    """One trial for each value (times the values of the other axes)."""


def _axis(value: Any) -> Any:
    if isinstance(value, list):
        return {"values": value}
    if not isinstance(value, dict):
        raise ValueError("it should be a list of values, or values: [...]")
    return value


class SweepFile(BaseModel):
    """What stands in a sweep file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    """Names the results' folder and the run in MLflow; the file's name unless given."""
    purpose: str = ""
    """What the sweep is to find out; shown on top of its dashboard."""
    method: Literal["grid"] = "grid"
    """How `parameters` become trials: `grid` takes every combination."""
    trial: dict[str, Any] = {}
    """Settings of every trial, under `model`, `train`, `evaluate` and `profile`."""
    parameters: dict[str, Annotated[Axis, BeforeValidator(_axis)]] = {}
    """The axes: a dotted setting → its values, as `{values: […]}` or as the list alone."""
    resources: dict[Kind, Resources] = {}
    """Stage kind → what one such stage asks for."""


@dataclass(frozen=True)
class Sweep:
    """A sweep, expanded."""

    name: str
    purpose: str
    file: Path
    axes: Mapping[str, tuple[Any, ...]]
    points: tuple[Mapping[str, Any], ...]
    """For each trial the value of every axis."""
    configs: tuple[TrialConfig, ...]
    resources: Mapping[Kind, Resources]


def read(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep file, apply `KEY=VALUE` overrides, and expand it.

    An override's value is YAML. It replaces the axis of the same name (and axes below it, where KEY is a whole
    part); a list for a setting that takes one value is an axis.

    Raises:
        SpecError: the file or an override is wrong; nothing else is raised for what a user wrote.
    """
    spec = _read_file(path)
    draft = _Draft(str(path))
    for key, value in spec.trial.items():
        draft.set(key, value, str(path))
    for key, axis in spec.parameters.items():
        draft.sweep(key, axis.values, str(path))
    for text in overrides:
        draft.override(text)
    points = tuple(draft.points())
    return Sweep(
        name=spec.name or path.stem,
        purpose=spec.purpose,
        file=path,
        axes={key: tuple(values) for key, values in draft.axes.items()},
        points=points,
        configs=draft.expand(points),
        resources={**_default_resources(), **spec.resources},
    )


def _read_file(path: Path) -> SweepFile:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read: {error}") from None
    content = parse(text, str(path))
    if path.suffix == ".json" and isinstance(content, dict) and "trial" not in content:
        content = {"trial": content}  # one trial's settings, as MLflow's trial.json has them
    if not isinstance(content, dict):
        raise SpecError(f"{path}: a sweep file is a mapping of keys such as trial and parameters, not {content!r}")
    for key in content:
        if key not in SweepFile.model_fields:
            raise SpecError(
                f"{path}: {key} is not a key of a sweep file.{did_you_mean(str(key), list(SweepFile.model_fields))} "
                f"The keys are: {', '.join(SweepFile.model_fields)}"
            )
    for key in ("trial", "parameters", "resources"):
        if key in content and content[key] is None:
            content[key] = {}  # `parameters:` with nothing below it
    try:
        return SweepFile.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("function", "constrained")))
        raise SpecError(f"{path}: {where} is {first['input']!r}: {_message(first)}") from None


class _Draft:
    """A sweep while it is put together: settings, axes, and where each was written."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.base: dict[str, Any] = {}
        self.axes: dict[str, list[Any]] = {}
        self.places: dict[str, str] = {}

    def set(self, key: str, value: Any, place: str) -> None:
        """Set one setting, or all that a mapping holds; an empty mapping is a value (`train: {}` is a training)."""
        setting(key, place)
        if isinstance(value, dict) and value:
            for name, entry in value.items():
                self.set(f"{key}.{name}", entry, place)
            return
        _put(self.base, key, value)
        self.places[key] = place

    def sweep(self, key: str, values: list[Any], place: str) -> None:
        setting(key, place)
        if not values:
            raise SpecError(f"{place}: {key} has no values; name at least one")
        seen: dict[str, Any] = {}
        for value in values:
            text = canonical(_number(value))
            if text in seen:
                raise SpecError(f"{place}: {key} has the value {value!r} twice (1 and 1.0 are the same value)")
            seen[text] = value
        for other in self.axes:
            if other.startswith(f"{key}.") or key.startswith(f"{other}."):
                raise SpecError(f"{place}: {key} and {other} cannot both be axes, one is a part of the other")
        self.axes[key] = values
        self.places[key] = place

    def override(self, text: str) -> None:
        place = f"--set {text}"
        key, equals, value_text = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise SpecError(f"{place}: write KEY=VALUE, for example --set evaluate.theta=1.1")
        value = parse(value_text, place)
        field = setting(key, place)
        for axis in [axis for axis in self.axes if axis == key or axis.startswith(f"{key}.")]:
            del self.axes[axis]
        # A list is an axis, unless one value of the setting is a list; then a list of lists is an axis.
        if isinstance(value, list) and (not takes_list(field) or all(isinstance(entry, list) for entry in value)):
            self.sweep(key, value, place)
        else:
            self.set(key, value, place)

    def points(self) -> Iterator[dict[str, Any]]:
        """Every combination of the axes' values, the last axis fastest."""
        for values in itertools.product(*self.axes.values()):
            yield dict(zip(self.axes, values, strict=True))

    def expand(self, points: Sequence[Mapping[str, Any]]) -> tuple[TrialConfig, ...]:
        configs = []
        for point in points:
            tree = _copy(self.base)
            for key, value in point.items():
                _put(tree, key, value)
            try:
                configs.append(TrialConfig.model_validate(tree))
            except ValidationError as error:
                raise self._explain(error, point) from None
        self._check_names(configs)
        return tuple(configs)

    def place(self, key: str) -> str:
        """Where a setting was written; for one inside a value that was written whole, where that was."""
        parts = key.split(".")
        prefixes = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
        return next((self.places[prefix] for prefix in prefixes if prefix in self.places), self.file)

    def _check_names(self, configs: Sequence[TrialConfig]) -> None:
        used: set[tuple[str, str]] = set()
        for config in configs:
            used |= {("model.backbone", config.model.backbone), ("evaluate.data", config.evaluate.data)}
            key, train = "train", config.train
            while train is not None:
                used.add((f"{key}.data", train.data))
                key, train = f"{key}.init", train.init
        for key, name in sorted(used):
            if key == "model.backbone":
                check_backbone(name, self.place(key))
            else:
                check_dataset(key, name, self.place(key))

    def _explain(self, error: ValidationError, point: Mapping[str, Any]) -> SpecError:
        first = error.errors()[0]
        key = ".".join(part for part in first["loc"] if isinstance(part, str))
        place = self.place(key)
        at = "" if key in point or not point else f" (at {', '.join(f'{k}={v}' for k, v in point.items())})"
        if first["type"] == "value_error":  # our own words, about a whole part
            return SpecError(f"{place}: {f'{key}: ' if key else ''}{_message(first)}{at}")
        return SpecError(f"{place}: {key} is {first['input']!r}: {_message(first)}{at}")


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key of a nested mapping; a part that is null or absent is made."""
    *parents, last = key.split(".")
    for name in parents:
        if not isinstance(tree.get(name), dict):
            tree[name] = {}
        tree = tree[name]
    tree[last] = _copy(value) if isinstance(value, dict) else value


def _copy(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, dict) else value for key, value in tree.items()}


def _number(value: Any) -> Any:
    # A number's setting takes "1e-4" in quotes too, so it is the same value as 1e-4.
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _message(error: ErrorDetails) -> str:
    """Pydantic's message as the rest of a sentence."""
    text: str = error["msg"].removeprefix("Value error, ")
    return text.replace("Input should be", "it should be")
