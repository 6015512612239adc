"""A stage: a unit of work whose output is one folder, named by the hash of all that the output depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, isfinite
from pathlib import Path
from typing import Any, Literal

from samref.config import EvaluateConfig, ModelConfig, ProfileConfig, Runtime, TrainConfig
from samref.part import Part, as_json

Kind = Literal["embed", "train", "evaluate", "profile"]

TELEMETRY_FILE = "system.jsonl"
"""What a training did to its machine, one JSON object a reading; no other stage writes it."""
WEIGHTS_FILE = "weights.safetensors"
"""What a training changed, under its names in the model."""

Report = Callable[[int, Mapping[str, float]], None]


class Stopped(Exception):  # noqa: N818  (no error: what was done so far is kept)
    """Raised by a `report` to end its stage now; a training saves a checkpoint first."""


# Raised by hand when a change of code changes what a stage of this kind writes; the golden loss curve, or the golden
# clicks, fail first.
VERSION: Mapping[Kind, int] = {"embed": 1, "train": 2, "evaluate": 5, "profile": 5}


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, 1.0 written as 1, so that equal settings give equal text; ∞ is "inf".

    Raises:
        TypeError: there is something in it that is no string, number, bool, None, list, tuple or mapping of strings,
            or a subclass of those; says where. Two unequal values could otherwise get the same text.
        ValueError: a number in it is -∞, or none; says where.
    """
    try:
        return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"))
    except _NoFormError:
        place, what = next(_without_form(value))
    problem = f"{place.lstrip('.') or 'the value'} is {what!r}"
    if type(what) is float:
        raise ValueError(f"{problem}, which is no finite number; an id cannot hold it")
    raise TypeError(f"{problem}; an id cannot hold a {type(what).__name__}")


class _NoFormError(Exception):
    """Raised for a value without a canonical form."""


def _plain(item: Any) -> Any:
    kind = type(item)  # exact types first: a plan of ten thousand trials comes here a million times
    if kind is float and isfinite(item):
        return int(item) if item.is_integer() else item
    if kind is float and item == inf:
        return "inf"
    if kind is str or kind is int or kind is bool or item is None:
        return item
    if kind is dict or isinstance(item, Mapping):
        if {*map(type, item)} <= {str}:
            return {name: _plain(entry) for name, entry in item.items()}
        raise _NoFormError
    if kind is list or kind is tuple:
        return [_plain(entry) for entry in item]
    raise _NoFormError


def _without_form(item: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Where, in a value, something stands without a canonical form, and what it is."""
    if isinstance(item, Mapping):
        yield from ((f"{place}: a name", name) for name in item if type(name) is not str)
    if isinstance(item, Mapping) or type(item) in (list, tuple):
        for name, entry in item.items() if isinstance(item, Mapping) else enumerate(item):
            yield from _without_form(entry, f"{place}.{name}")
        return
    try:
        _plain(item)
    except _NoFormError:
        yield place, item


def digest(prefix: str, value: Any) -> str:
    """`prefix-` and twelve hexadecimal digits of the SHA-256 of canonical JSON."""
    return digest_text(prefix, canonical(value))


def digest_text(prefix: str, text: str) -> str:
    """`prefix-` and twelve hexadecimal digits of the SHA-256 of a text."""
    return f"{prefix}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


REFINER = ("refiner", "refiner_blocks", "refiner_width", "patch_size_px", "click_radius_px", "error_threshold")
"""The settings of the model that make its refiner; without a refiner none but the first counts."""
_WHOLE = {name: name for name in ("backbone", "options", "multimask", *REFINER)}
MODEL_SETTINGS: Mapping[Kind, Mapping[str, str]] = {
    "embed": {"backbone": "backbone", "options": "options", "precision": "precision", "storage": "embedding_precision"},
    "train": {**_WHOLE, "encoder_precision": "precision"},
    "evaluate": _WHOLE,
    "profile": {**_WHOLE, "precision": "precision"},
}
"""Kind of stage → name in its key → the setting of the model that its output depends on, and that it runs with."""
PARTS: Mapping[Kind, type[Part] | None] = {
    "embed": None,
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "profile": ProfileConfig,
}
"""Kind of stage → the part of a trial that is its own; all else in its key are settings of that part."""
NAMES: Mapping[str, tuple[str, ...]] = {
    "model": ("checkpoint", "seed"),
    "train": ("data", "samples"),
    "evaluate": ("data", "samples", "start", "first_clicks"),
    "data": ("name", "split", "samples"),
}
"""Part → the settings that say where something is found; a key holds the fingerprint of what is found there."""
CONTENTS = ("checkpoint", "data", "start", "first_clicks")
"""The entries of a key that are such fingerprints."""
REVISION = "backbone_revision"
"""The entry of a key that says which code its backbone is (`samref.backbones.revision`); the first revision is left
out."""
CLICKER_SOURCE = "clicker_source"
"""The entry of a key that says which code a clicker of a person's own is (`samref.plugins.source`)."""


@dataclass(frozen=True)
class Stage:
    """A unit of work whose output is one folder, named by its id."""

    kind: Kind
    key: Mapping[str, Any]
    """What the output depends on besides `needs`; the id hashes this."""
    names: Mapping[str, Mapping[str, Any]] = field(compare=False)
    """Part → setting (of `NAMES`) → where the contents are found whose fingerprints the key holds."""
    needs: Mapping[str, str] = field(default_factory=dict)
    """Role → id of the stage whose output is needed."""
    id: str = field(init=False)

    def __post_init__(self) -> None:
        identity = {"version": VERSION[self.kind], "key": self.key, "needs": self.needs}
        object.__setattr__(self, "id", digest(self.kind, identity))

    @cached_property
    def config(self) -> Mapping[str, Mapping[str, Any]]:
        """What the stage runs with, part by part: the settings in its key, and its names; nothing else can get there.

        A setting that is not in the key has the value that it had before it was `Added`, or else its default.
        """
        own = PARTS[self.kind]
        of_model = MODEL_SETTINGS[self.kind]
        parts: dict[str, dict[str, Any]] = {"model": dict(ModelConfig.as_before())}
        parts[self.kind] = dict(own.as_before()) if own else {}
        for name, value in self.key.items():
            if name in of_model:
                parts["model"][of_model[name]] = value
            elif name not in (*CONTENTS, REVISION, CLICKER_SOURCE):
                parts[self.kind][name] = value
        for part, names in self.names.items():
            parts[part] = {**parts.get(part, {}), **names}
        return parts

    @property
    def backbone(self) -> str:
        """Name of the backbone; every kind of stage has one."""
        return str(self.config["model"]["backbone"])

    @cached_property
    def model(self) -> ModelConfig:
        """The settings of the model; those that cannot change the output have any value."""
        return ModelConfig(**self.config["model"])

    @cached_property
    def train(self) -> TrainConfig:
        """The settings of a stage that trains."""
        return TrainConfig(**self.config["train"])

    @cached_property
    def evaluate(self) -> EvaluateConfig:
        """The settings of a stage that evaluates."""
        return EvaluateConfig(**self.config["evaluate"])

    def to_json(self) -> dict[str, Any]:
        """All that `from_json` needs, as plain JSON values."""
        return {name: as_json(getattr(self, name)) for name in ("kind", "key", "config", "needs")}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Stage:
        """The stage again, with the same id; of what it runs with, only the names are taken from `config`."""
        names = {
            part: {name: settings[name] for name in NAMES[part] if name in settings}
            for part, settings in value["config"].items()
            if part in NAMES
        }
        return cls(value["kind"], value["key"], names, value["needs"])


@dataclass(frozen=True)
class Job:
    """Stages that run in one go, with all the folders that they read and write."""

    stages: tuple[Stage, ...]
    """Evaluations of one model on one dataset that differ in θ, or in whose first clicks they take; or one stage of any
    kind."""
    inputs: Mapping[str, Path]
    """Role of each need → folder of its output."""
    outs: tuple[Path, ...]
    """One empty folder a stage."""
    scratch: Path
    """Folder of the first stage's id that outlives a killed attempt; a training resumes from it."""
    runtime: Runtime
