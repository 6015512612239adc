"""Why a stage has no output: the kinds of failure, which an exception means, and which later runs remember."""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from samref.errors import masked
from samref_sweep.errors import StoreError, WorkerLostError

FailureKind = Literal["node_lost", "out_of_memory", "machine", "time_limit", "storage", "error", "stopped"]
"""`machine`: a limit of the machine (open files, threads, processes, shared memory), or a package that is not there.
`stopped`: no failure; a scheduler, or its trial's budget, stopped the stage early."""

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


_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EACCES, errno.EFBIG)
_LIMITS = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOLCK)
# Libraries that work with code of their own raise a RuntimeError with the system's words.
_WORDS: tuple[tuple[FailureKind, tuple[str, ...]], ...] = (
    ("out_of_memory", ("DefaultCPUAllocator: ",)),  # of torch, which has no class for the CPU's memory
    ("machine", ("/dev/shm", "shared memory object", "allocate shared memory", "can't start new thread")),
    ("machine", tuple(map(os.strerror, _LIMITS))),
    ("storage", (os.strerror(errno.ENOSPC),)),
)


def classify(error: BaseException) -> FailureKind:
    """Tell of which kind of failure an exception is that a stage raised."""
    for cause in causes(error):
        number = cause.errno if isinstance(cause, OSError) else None
        # By its name, so that neither torch nor Ray is imported here.
        if isinstance(cause, MemoryError) or number == errno.ENOMEM or type(cause).__name__ == "OutOfMemoryError":
            return "out_of_memory"
        if isinstance(cause, WorkerLostError):
            return "node_lost"
        if isinstance(cause, ImportError) or number in _LIMITS:
            return "machine"
        for kind, words in _WORDS:
            if any(each in str(cause) for each in words):
                return kind
        if isinstance(cause, StoreError) or number in _DISK:
            return "storage"
    return "error"


def causes(error: BaseException) -> Iterator[BaseException]:
    """An exception, then what it was raised from or while handling, and so on."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
