"""Why a stage has no output: the kinds of failure, and which are remembered by later runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FailureKind = Literal["node_lost", "out_of_memory", "time_limit", "storage", "error", "stopped"]
"""`stopped`: no failure; a scheduler, or its trial's budget, stopped the stage early."""

REMEMBERED: tuple[FailureKind, ...] = ("error", "time_limit", "stopped")
"""These would end alike again, after as many hours: a later run skips them unless told to try. The others are the
machine's, and are tried again by the next run."""


@dataclass(frozen=True)
class Failure:
    """Why a stage has no output."""

    reason: str
    log: str | None = None
    """The file that holds the whole story."""
    kind: FailureKind = "error"

    def __str__(self) -> str:
        return f"{self.reason} (log: {self.log})" if self.log else self.reason
