"""What stands in a sweep file: its keys, checked, and the chain of files that it `extends`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from samref.part import pydantic_message
from samref.stage import Kind
from samref_sweep.errors import SpecError, did_you_mean
from samref_sweep.spec.axes import Axis, Parameters
from samref_sweep.spec.objective import Objectives
from samref_sweep.spec.policy import Budget, Resources, Retry, SchedulerEntry, SeedsUntil
from samref_sweep.spec.settings import Keys, meant, model_in
from samref_sweep.spec.yaml_text import parse


class SweepFile(Keys):
    """What stands in a sweep file."""

    extends: str | None = None
    """Another sweep file, relative to this one; what this file says of a key or setting replaces what that one says."""
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    """Names the results' folder and the run in MLflow; the file's name unless given."""
    purpose: str = ""
    """What the sweep is to find out; shown on top of its dashboard."""
    method: Literal["grid", "random", "optuna"] = "grid"
    """How `parameters` become trials: `grid` takes every combination, `random` draws, `optuna` looks where the metric
    was good (one metric: TPE; several: NSGA-II) and suggests the next trial whenever there is room for one."""
    trials: Annotated[int, Field(ge=1)] | None = None
    """How many different combinations `random` draws, or `optuna` suggests; each is repeated for all `seeds`."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of `random` and `optuna`."""
    metric: Objectives = Field([])
    """What `optuna` optimises and the screen calls best: a name, `{name: …, goal: minimize}`, or a list of such.
    Those of `metrics` can be named, too; which way one of your own is better has to be said."""
    metrics: list[str] = Field([])
    """More columns of the tables, made from the clicks that are there: `noc_at_80`, `noc_at_80_in_10`,
    `noc_at_80_else_21` (a failure counts 21), `nof_at_80`, `success_at_85_in_5`, `iou_auc_20`, any of these of
    a group of samples, `noc_at_80@COIFT`, or a function of your own, as `./metric.py:share` (docs/extending.md)."""
    trial: dict[str, Any] = Field({})
    """Settings of every trial, under `model`, `train`, `evaluate` and `profile`."""
    parameters: Parameters = Parameters()
    """The axes: a dotted setting → its values, as `{values: […]}` or as the list alone; and `zip`."""
    exclude: list[dict[str, Any]] = Field([])
    """Trials to leave out: each entry names settings with a value (or a list of values), and all must fit."""
    seeds: Annotated[int, Field(ge=1, le=100_000)] | list[Annotated[int, Field(ge=0)]] | SeedsUntil | None = None
    """Repeats every training for so many values of `train.seed` (from 0), or for those listed; tables give means.
    `{up_to: 10, until: {metric: noc_at_95, baseline: {model.refiner: none}, width: 0.2}}` adds seed after seed until
    every difference to the baseline is known (docs/citing.md)."""
    scheduler: SchedulerEntry | None = None
    """`asha`: stop trainings early whose loss falls behind; their trials stay in the tables as `stopped`."""
    budget: Budget = Budget()
    """What the sweep may cost; when a bound is reached, what runs ends in order and the rest is listed as not run."""
    resources: dict[Kind, Resources] = Field({})
    """Stage kind → what one such stage asks for."""
    retry: Retry = Retry()
    """Kind of failure → how often a stage is started again after it."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for kind, asked in self.resources.items():
            if kind != "embed" and asked.keep != "store":
                raise ValueError(f"resources.{kind}.keep is {asked.keep}; only embeddings can be kept elsewhere")
        return self


_BRANCHES = ("function", "constrained", "[key]", SeedsUntil.__name__)
"""What pydantic puts into places beside the keys of a file."""


def read_layers(path: Path) -> list[tuple[str, SweepFile]]:
    """The file and what it extends, the lowest first."""
    found: list[tuple[str, SweepFile]] = []
    seen: list[Path] = []
    current: Path | None = path
    while current is not None:
        if current.resolve() in seen:
            chain = " → ".join([*(str(each) for each, _ in reversed(found)), str(current)])
            raise SpecError(f"{found[0][0]}: extends goes round in a circle: {chain}")
        seen.append(current.resolve())
        found.insert(0, (str(current), _read_file(current, found[0][0] if found else None)))
        spec = found[0][1]
        current = current.parent / spec.extends if spec.extends else None
    # Two sweeps must not write into one results' folder.
    below = [(place, spec.model_copy(update={"name": None})) for place, spec in found[:-1]]
    return [*below, found[-1]]


def _read_file(path: Path, extended_by: str | None) -> SweepFile:
    place = f"{extended_by}: extends {path}" if extended_by else str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(f"{place}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{place}: cannot be read: {error}") from None
    content = parse(text, str(path))
    if path.suffix == ".json" and isinstance(content, dict) and "trial" not in content:
        content = {"trial": content}  # one trial's settings, as MLflow's trial.json has them
    return one_layer(content, str(path))


def one_layer(content: Any, place: str) -> SweepFile:
    """One layer, checked by itself."""
    fields = SweepFile.model_fields
    if not isinstance(content, dict):
        raise SpecError(f"{place}: a sweep file is a mapping of keys such as trial and parameters, not {content!r}")
    for key in content:
        if key not in fields:
            raise SpecError(
                f"{place}: {key} is not a key of a sweep file.{meant(str(key), list(fields))} "
                f"The keys are: {', '.join(fields)}"
            )
    # `parameters:` with nothing below it
    return validate({k: fields[k].get_default() if v is None else v for k, v in content.items()}, place)


def validate(content: Mapping[str, Any], place: str) -> SweepFile:
    """The keys with their values; a mistake is one line that names `place`."""
    try:
        return SweepFile.model_validate(content)
    except ValidationError as error:
        first, *others = error.errors()
        if isinstance(first["input"], dict):  # of what a value may be, a mapping was meant: what is wrong in it
            of_key = (other for other in others if other["loc"][0] == first["loc"][0])
            first = max((first, *of_key), key=lambda each: len(each["loc"]))
        path = [str(part) for part in first["loc"] if not str(part).startswith(_BRANCHES)]
        where = ".".join(path)
        if first["type"] == "extra_forbidden" and (known := keys_of(path[:-1])):
            raise SpecError(
                f"{place}: {where} is not a key of a sweep file.{did_you_mean(path[-1], known)} "
                f"{'.'.join(path[:-1])} has: {', '.join(known)}"
            ) from None
        raise SpecError(f"{place}: {where} is {first['input']!r}: {pydantic_message(first)}") from None


def keys_of(path: Sequence[str]) -> list[str]:
    """The keys that can stand below a place of a sweep file; none where anything can."""
    model: type[BaseModel] | None = SweepFile
    for name in path:
        if model is None:
            return []
        if name in model.model_fields:
            model = model_in(model.model_fields[name].annotation)
        elif model is Parameters:
            model = Axis
    return [field.alias or name for name, field in model.model_fields.items()] if model else []
