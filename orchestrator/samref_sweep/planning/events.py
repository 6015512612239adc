"""What happens to units of work while a plan is executed; displays and trackers are called with these events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from samref_sweep.failures import Failure
from samref_sweep.planning.work import Work


@dataclass(frozen=True)
class Event:
    """Something that happened to a unit of work; displays and trackers are called with these."""

    kind: Literal["started", "progress", "done", "failed", "again"]
    """`again`: it failed, and is tried once more."""
    work: Work
    metrics: Mapping[str, float] = field(default_factory=dict)
    """While in progress: `step`, `total` where known, and what the stage reports of itself, e.g. its loss."""
    failure: Failure | None = None
