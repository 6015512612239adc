"""A stage: a unit of work whose output is one folder, named by the hash of all that the output depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from samref.config import Runtime, TrainConfig

Kind = Literal["embed", "train", "evaluate", "profile"]

TELEMETRY_FILE = "system.jsonl"
"""What a training on a GPU did to its machine, one JSON object a reading; no other stage writes it."""

Report = Callable[[int, Mapping[str, float]], None]


class Stopped(Exception):  # noqa: N818  (no error: what was done so far is kept)
    """Raised by a `report` to end its stage now; a training saves a checkpoint first."""


# Raised by hand when a change of code changes what a stage of this kind writes; the golden loss curve, or the golden
# clicks, fail first.
VERSION: Mapping[Kind, int] = {"embed": 1, "train": 2, "evaluate": 5, "profile": 4}


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, and 1.0 written as 1, so that equal settings give equal text."""

    def plain(item: Any) -> Any:
        kind = type(item)  # exact types first: a plan of ten thousand trials comes here a million times
        if kind is float:
            return int(item) if item.is_integer() else item
        if kind is str or kind is int or kind is bool or item is None:
            return item
        if isinstance(item, Mapping):
            return {str(key): plain(entry) for key, entry in item.items()}
        return [plain(entry) for entry in item]

    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(prefix: str, value: Any) -> str:
    """`prefix-` and twelve hexadecimal digits of the SHA-256 of canonical JSON."""
    return digest_text(prefix, canonical(value))


def digest_text(prefix: str, text: str) -> str:
    return f"{prefix}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Stage:
    """A unit of work whose output is one folder, named by its id."""

    kind: Kind
    key: Mapping[str, Any]
    """What the output depends on besides `needs`; the id hashes this."""
    config: Mapping[str, Any] = field(compare=False)
    """What running it takes: the parts of the trial's configuration, data by name."""
    needs: Mapping[str, str] = field(default_factory=dict)
    """Role → id of the stage whose output is needed."""
    id: str = field(init=False)

    def __post_init__(self) -> None:
        identity = {"version": VERSION[self.kind], "key": self.key, "needs": self.needs}
        object.__setattr__(self, "id", digest(self.kind, identity))

    @property
    def backbone(self) -> str:
        """Name of the backbone; every kind of stage has one."""
        return str(self.config["model"]["backbone"])

    @property
    def train(self) -> TrainConfig:
        """The settings of a stage that trains."""
        return TrainConfig(**self.config["train"])

    def to_json(self) -> dict[str, Any]:
        """All that `from_json` needs, as plain JSON values."""
        return {name: getattr(self, name) for name in ("kind", "key", "config", "needs")}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Stage:
        """The stage again, with the same id."""
        return cls(**value)


@dataclass(frozen=True)
class Job:
    """Stages that run in one go, with all the folders that they read and write."""

    stages: tuple[Stage, ...]
    """Evaluations of one model on one dataset that differ in θ alone, or exactly one stage of any kind."""
    inputs: Mapping[str, Path]
    """Role of each need → folder of its output."""
    outs: tuple[Path, ...]
    """One empty folder a stage."""
    scratch: Path
    """Folder of the first stage's id that outlives a killed attempt; a training resumes from it."""
    runtime: Runtime
    """Where to run."""
