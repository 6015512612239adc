"""Tells of which kind the failure is that an exception means. Knows nothing of Ray."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from samref_sweep.errors import StoreError, WorkerLostError
from samref_sweep.failures import FailureKind


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
