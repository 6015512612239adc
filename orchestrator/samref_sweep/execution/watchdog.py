"""Ends a stage from within its process: in order when the sweep stops, by force when it does not end.

By force means that the process exits, after writing where each of its threads was into the stage's log: a stage that
hangs in a library's own code cannot be reached otherwise. Knows nothing of Ray.
"""

import faulthandler
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO

from samref.stage import Report, Stopped
from samref_sweep.repeating import every

POLL_SECONDS = 0.5
STOP_SECONDS = 6.0
"""What a stage has for its end after it was told to stop: a step, and its checkpoint."""


@contextmanager
def watched(
    report: Report, log: IO[str], *, time_limit: float | None, stopping: Callable[[], bool]
) -> Iterator[Report]:
    """For the time of the block, exit at the time limit, and tell the stage when it is to stop.

    Gives what the stage is to report to, which raises `Stopped` once the sweep stops. `time_limit` is in seconds from
    now; `stopping` is asked in a thread of its own, so it may take its time.
    """
    stop = threading.Event()

    def poll() -> None:
        if not stop.is_set() and stopping():
            faulthandler.dump_traceback_later(STOP_SECONDS, exit=True, file=log)
            stop.set()

    def watched_report(step: int, metrics: Mapping[str, float]) -> None:
        if stop.is_set():
            raise Stopped
        report(step, metrics)

    if time_limit is not None:
        faulthandler.dump_traceback_later(time_limit, exit=True, file=log)
    try:
        with every(POLL_SECONDS, poll, "watch"):
            yield watched_report
    finally:
        faulthandler.cancel_dump_traceback_later()
