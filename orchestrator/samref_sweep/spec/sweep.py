"""Reads a sweep: a file, what it extends and `--set`, expanded into the configurations of its trials.

A file is a layer over the file that it `extends`, and each `--set` a layer over that. Every mistake is a `SpecError`
of one line that names the place, the key and the value. Knows nothing of stages, the store or Ray.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samref import derived
from samref.config import TrialConfig
from samref.measures import MEASURES, Measure, kind_of
from samref.plugins import PluginError, beside
from samref.stage import PARTS, Kind
from samref_sweep.errors import SpecError, did_you_mean
from samref_sweep.spec.axes import overlap
from samref_sweep.spec.file import SweepFile, one_layer, read_layers, validate
from samref_sweep.spec.layers import ZIP, Layers
from samref_sweep.spec.objective import Objective
from samref_sweep.spec.policy import Budget, Resources, Retry, Scheduler, SeedsUntil
from samref_sweep.spec.settings import meant, part_of, setting
from samref_sweep.spec.space import SEEDS, Space
from samref_sweep.spec.yaml_text import parse

_LAYERED = {"extends", "trial", "parameters", "exclude", "seeds"}
"""Keys that `Layers` holds; the others are merged."""
MAX_NAME_BYTES = 200
"""A file's name may have 255, and some files are named by the sweep and more."""
# A timing that shares the machine with a training means nothing, hence `all` for profile.
_RESOURCES: Mapping[Kind, Resources] = {kind: Resources(cpu="all" if kind == "profile" else "auto") for kind in PARTS}


@dataclass(frozen=True)
class Suggestions:
    """What an adaptive method suggests, and from what."""

    space: Space
    trials: int
    """How many suggestions to make."""
    seed: int
    probes: tuple[TrialConfig, ...]
    """Configurations that show each value of each axis."""


@dataclass(frozen=True)
class Sweep:
    """A sweep, expanded."""

    name: str
    purpose: str
    file: Path
    axes: Mapping[str, tuple[Any, ...]]
    points: tuple[Mapping[str, Any], ...]
    """For each trial the value of every axis that applies to it."""
    configs: tuple[TrialConfig, ...]
    resources: Mapping[Kind, Resources]
    overrides: tuple[str, ...] = ()
    """What `--set` said."""
    shape: str = ""
    """The axes in words: `2 train.gamma × 5 evaluate.theta`."""
    objectives: tuple[Objective, ...] = ()
    """What a search looks for, and the screen calls best: the file's `metric`."""
    derived: tuple[Measure, ...] = ()
    """More metrics of its tables (`samref.derived`): those of the file's `metrics`, and objectives."""
    search: Suggestions | None = None
    """What an adaptive method suggests; such a sweep has no points at first."""
    until: SeedsUntil | None = None
    """What is to be known before seeds end; `points` then has all seeds that there may be."""
    retry: Retry = field(default_factory=Retry)
    scheduler: Scheduler | None = None
    budget: Budget = field(default_factory=Budget)
    odd: tuple[str, ...] = ()
    """What is odd about the file, in a line each."""


def read(path: str | Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep file, apply `KEY=VALUE` overrides, and expand it.

    An override's value is YAML, its KEY a setting or a key of the file (`seeds`, `resources.train.gpu`). It replaces
    the axis of the same name (and axes below it, where KEY is a whole part); a list for a setting that takes one
    value is an axis. One of the settings that `zip` couples leaves `zip`, the others stay coupled. Raises SpecError:
    the file or an override is wrong; nothing else is raised for what a user wrote.
    """
    path = Path(path)
    layers, merged = Layers(str(path)), dict[str, Any]()
    for place, layer in read_layers(path):
        _apply(layer, place, layers, merged)
    for text in overrides:
        _override(text, layers, merged)
    spec, space = validate(merged, str(path)), layers.space()
    points = _points(spec, space)
    if not points and spec.method != "optuna":
        raise SpecError(f"{path}: exclude leaves no trial; every combination fits one of its entries")
    configs = space.expand(points)
    search = spec.method == "optuna"
    axes, shape = space.described(points)
    objectives = tuple(each.model_copy(update={"name": _beside(each.name, path)}) for each in spec.metric)
    return Sweep(
        name=spec.name or _name(path),
        purpose=spec.purpose,
        file=path,
        axes=axes,
        points=() if search else points,
        configs=() if search else configs,
        resources={**_RESOURCES, **spec.resources},
        overrides=tuple(overrides),
        shape=shape if spec.method == "grid" else f"{spec.trials} {spec.method} of {shape}",
        objectives=objectives,
        derived=_derived([*spec.metrics, *(each.name for each in objectives)], path),
        search=Suggestions(space, min(filter(None, (spec.trials, spec.budget.trials))), spec.seed, configs)
        if search
        else None,
        until=_until(spec, axes, path),
        retry=spec.retry,
        scheduler=spec.scheduler,
        budget=spec.budget,
        odd=tuple(
            f"{path}: exclude's entry {number} fits no trial"
            for number in range(1, len(space.exclude) + 1)
            if spec.method == "grid" and number not in space.fitted
        ),
    )


def _until(spec: SweepFile, axes: Mapping[str, tuple[Any, ...]], path: Path) -> SeedsUntil | None:
    """What is to be known before seeds end, if anything; refused where it can never be."""
    if not isinstance(spec.seeds, SeedsUntil):
        return None
    if spec.method == "optuna":
        raise SpecError(f"{path}: seeds has until, and method: optuna suggests trials by itself; give one of them")
    for key, value in spec.seeds.until.baseline.items():
        if key not in axes:
            raise SpecError(
                f"{path}: seeds.until.baseline names {key}, which is no axis.{did_you_mean(key, list(axes))} "
                f"There are: {', '.join(axes) or 'none'}"
            )
        if value not in axes[key]:
            raise SpecError(
                f"{path}: seeds.until.baseline has {key}: {value}; the axis has {', '.join(map(str, axes[key]))}"
            )
    return spec.seeds


def _name(path: Path) -> str:
    """The name of a sweep whose file says none: the file's own, if folders and MLflow can have it."""
    name = path.stem
    if name[0] in ".-" or name != name.strip() or not name.isprintable() or len(name.encode()) > MAX_NAME_BYTES:
        raise SpecError(
            f"{path}: {name!r} can name no results; give the sweep a name: of letters and digits, or rename the file "
            f"(up to {MAX_NAME_BYTES} bytes, without . or - in front)"
        )
    return name


def _derived(names: Sequence[str], path: Path) -> tuple[Measure, ...]:
    """The metrics of `metrics:` and `metric:` that are no columns anyway."""
    found = []
    for name in dict.fromkeys(_beside(each, path) for each in names):
        try:
            measure = derived.measure(name)
        except PluginError as error:
            raise SpecError(f"{path}: metrics: {error}") from None
        if measure is None:
            raise SpecError(f"{path}: metrics: there is no metric {name!r}; write {derived.PATTERNS}")
        found.append(measure)
    return tuple(each for each in found if each.name not in MEASURES)


def _beside(name: str, path: Path) -> str:
    try:
        return beside(name, path.parent)
    except PluginError as error:
        raise SpecError(f"{path}: metrics: {error}") from None


def _points(spec: SweepFile, space: Space) -> tuple[Mapping[str, Any], ...]:
    """The sweep's points; for a search, some that show everything it may suggest."""
    ranges = [dimension for dimension in space.dimensions.values() if dimension.range]
    if spec.method == "grid":
        if ranges:
            raise SpecError(
                f"{ranges[0].place}: {ranges[0].keys[0]} is a range, which needs method: random or method: optuna "
                "(and trials, their number); a grid needs values"
            )
        if spec.trials is not None:
            raise SpecError(f"{space.file}: trials is for method: random and optuna; a grid has every combination")
        return tuple(space.points())
    if spec.trials is None:
        raise SpecError(f"{space.file}: method: {spec.method} needs trials, how many to make, e.g. trials: 30")
    if not space.ordered():
        raise SpecError(f"{space.file}: method: {spec.method} needs parameters to choose from")
    if spec.method == "random":
        return tuple(space.drawn(spec.trials, spec.seed))
    if not spec.metric:
        raise SpecError(f"{space.file}: method: optuna needs a metric to optimise, e.g. metric: noc_at_90")
    points = tuple(each for point in space.probes() for each in space.repeats(point))
    configs = space.expand(points)
    for metric in spec.metric:
        kind = kind_of(metric.name)
        if any(getattr(config, kind) is None for config in configs):
            raise SpecError(f"{space.place(kind)}: {kind} is null, but the metric {metric.name} is measured by it")
    return points


def _merge(into: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _written(tree: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The settings that nested mappings give a value, by their dotted names."""
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _written(value, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def _apply(layer: SweepFile, place: str, layers: Layers, merged: dict[str, Any]) -> None:
    written: list[str] = []
    for key in _written(layer.trial):
        if other := next((other for other in written if overlap(key, other)), None):
            what = f"{key} is written twice" if key == other else f"{key} and {other} are both written"
            raise SpecError(f"{place}: {what} below trial, with dots and nested say; keep one of them")
        written.append(key)
    for key, value in layer.trial.items():
        layers.set(key, value, place)
    if layer.parameters.zip:
        layers.zip(layer.parameters.zip, place)
    elif "zip" in layer.parameters.model_fields_set:
        layers.forget(ZIP)
    for key, axis in layer.parameters.axes.items():
        layers.sweep(key, axis, place)
    if layer.seeds is not None:
        layers.repeat(layer.seeds.up_to if isinstance(layer.seeds, SeedsUntil) else layer.seeds, place)
        merged["seeds"] = layer.seeds.model_dump() if isinstance(layer.seeds, SeedsUntil) else None
    elif "seeds" in layer.model_fields_set:
        layers.forget(SEEDS)
        merged["seeds"] = None
    if "exclude" in layer.model_fields_set:
        layers.exclude(layer.exclude, place)
    _merge(merged, layer.model_dump(exclude_unset=True, exclude=_LAYERED))


def _override(text: str, layers: Layers, merged: dict[str, Any]) -> None:
    place = f"--set {text}"
    key, equals, value_text = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise SpecError(f"{place}: write KEY=VALUE, for example --set evaluate.theta=1.1")
    value = parse(value_text, place)
    first, _, rest = key.partition(".")
    if first == "extends":
        raise SpecError(f"{place}: extends stands in a file only")
    if first not in SweepFile.model_fields and first not in TrialConfig.model_fields:
        known = [*TrialConfig.model_fields, *SweepFile.model_fields]
        raise SpecError(
            f"{place}: {first} is neither a setting nor a key of a sweep file.{meant(first, known)} "
            f"There are: {', '.join(known)}"
        )
    if first in SweepFile.model_fields:
        # The settings below `parameters` are written with their dots, all other keys are nested.
        names = [rest] if first == "parameters" and rest else rest.split(".") if rest else []
        for name in reversed([first, *names]):
            value = {name: value}
        if first == "seeds" and rest:  # a file says them whole, --set one key of them
            whole = {first: deepcopy(merged.get(first) or {})}
            _merge(whole, value)
            value = whole
        _apply(one_layer(value, place), place, layers, merged)
    elif isinstance(value, dict) and part_of(setting(key, place)) is None:  # {min: 1, max: 2}
        _apply(one_layer({"parameters": {key: value}}, place), place, layers, merged)
    else:
        layers.override(key, value, place)
