"""Kinds of failure: which are tried again at once, and which are remembered. Knows nothing of Ray."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from samref_sweep.store import StoreError

FailureKind = Literal["node_lost", "out_of_memory", "time_limit", "storage", "error", "stopped"]
"""`stopped`: no failure; a scheduler, or its trial's budget, stopped the stage early."""
REMEMBERED: tuple[FailureKind, ...] = ("error", "time_limit", "stopped")
"""These would end alike again, after as many hours: a later run skips them unless told to try. The others are the
machine's, and are tried again by the next run."""

Attempts = Annotated[int, Field(ge=0, le=100)]


class Retry(BaseModel):
    """How often a stage is started again in the same run, for each kind of failure."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    node_lost: Attempts = 3
    """Its process was killed or its node went away; a training goes on from its checkpoint. Where a provider announces
    that it takes the node back (a preemption), the attempt does not count."""
    out_of_memory: Attempts = 1
    """The machine's or the GPU's memory was full, perhaps of other stages."""
    error: Attempts = 0
    """The stage raised an error."""
    time_limit: Attempts = 0
    """It ran into `resources.KIND.time_limit`."""

    def bound(self, kind: FailureKind) -> int:
        """How many failures of a kind are followed by another attempt; none where the disk is full or broken."""
        return 0 if kind in ("storage", "stopped") else int(getattr(self, kind))


def classify(error: BaseException) -> FailureKind:
    """The kind of an exception that a stage raised."""
    for cause in causes(error):
        # By name, so that neither torch nor Ray is imported here; torch has no class for the CPU's memory.
        name, text = type(cause).__name__, str(cause)
        if isinstance(cause, MemoryError) or name == "OutOfMemoryError" or "DefaultCPUAllocator: " in text:
            return "out_of_memory"
        if type(cause).__name__ == "WorkerLostError":
            return "node_lost"
        # Libraries that write with code of their own raise a RuntimeError with the system's words.
        if isinstance(cause, StoreError) or _is_disk(cause) or os.strerror(errno.ENOSPC) in text:
            return "storage"
    return "error"


def _is_disk(error: BaseException) -> bool:
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EACCES, errno.EFBIG)
    return isinstance(error, OSError) and error.errno in numbers


def causes(error: BaseException) -> Iterator[BaseException]:
    """An exception, what it was raised from or while handling, and so on."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
