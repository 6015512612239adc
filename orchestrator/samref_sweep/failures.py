"""Why a stage has no output: the kinds of failure, which an exception means, and which later runs remember."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from samref.errors import masked
from samref_sweep.errors import StoreError, WorkerLostError

FailureKind = Literal["node_lost", "out_of_memory", "time_limit", "storage", "error", "stopped"]
"""`stopped`: no failure; a scheduler, or its trial's budget, stopped the stage early."""

REMEMBERED: tuple[FailureKind, ...] = ("error", "time_limit", "stopped")
"""Failures that would end alike again, after as many hours: a later run skips them unless told to try. The others are
the machine's, and are tried again by the next run."""


@dataclass(frozen=True)
class Failure:
    """Why a stage has no output."""

    reason: str
    log: str | None = None
    """The file that holds the whole story."""
    kind: FailureKind = "error"

    def __post_init__(self) -> None:
        """Take secrets out: the reason may be in the words of any library, and goes into tables and pages."""
        object.__setattr__(self, "reason", masked(self.reason))

    def __str__(self) -> str:
        return f"{self.reason} (log: {self.log})" if self.log else self.reason


def classify(error: BaseException) -> FailureKind:
    """Tell of which kind of failure an exception is that a stage raised."""
    for cause in causes(error):
        # By name, so that neither torch nor Ray is imported here; torch has no class for the CPU's memory.
        name, text = type(cause).__name__, str(cause)
        if isinstance(cause, MemoryError) or name == "OutOfMemoryError" or "DefaultCPUAllocator: " in text:
            return "out_of_memory"
        if isinstance(cause, WorkerLostError):
            return "node_lost"
        # Libraries that write with code of their own raise a RuntimeError with the system's words.
        if isinstance(cause, StoreError) or _is_disk(cause) or os.strerror(errno.ENOSPC) in text:
            return "storage"
    return "error"


def _is_disk(error: BaseException) -> bool:
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EACCES, errno.EFBIG)
    return isinstance(error, OSError) and error.errno in numbers


def causes(error: BaseException) -> Iterator[BaseException]:
    """An exception, then what it was raised from or while handling, and so on."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
