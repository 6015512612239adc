"""Signals that ask a run to end in order, and processes of ours that must not hear them first. Knows nothing of Ray.

A batch system's SIGTERM goes to all processes of a job at once, a closed terminal's SIGHUP to all that it started:
those that do the work would be gone before the run could tell them to keep theirs.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""Ctrl-C; the end of a job, or its announcement (Slurm's `--signal`); a terminal that was closed."""

_STOPPING = "\nstopping: what runs keeps its progress and ends within seconds; Ctrl-C ends it at once\n"


@contextmanager
def ends_in_order(end: Callable[[], object]) -> Iterator[None]:
    """For the block, the first signal of `ENDING` calls a function; after it a Ctrl-C ends the process at once.

    A signal that is ignored already, as under nohup, stays so; outside the main thread none can be handled.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told = False

    def handle(number: int, frame: object) -> None:
        nonlocal told
        signal.signal(signal.SIGINT, before.get(signal.SIGINT, signal.SIG_DFL))
        if not told:
            # Of a terminal that was closed, or while something is being written. By Python's stderr, so that a live
            # table stays below it.
            with suppress(OSError, ValueError, RuntimeError):
                sys.stderr.write(_STOPPING)
                sys.stderr.flush()
            told = True
            end()

    found = {number: signal.getsignal(number) for number in ENDING}
    before = {number: handler for number, handler in found.items() if handler != signal.SIG_IGN}
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def not_heard_by_children() -> Iterator[None]:
    """Processes that are started in the block, and all that they start, never get the signals of `ENDING`.

    This thread gets what came meanwhile afterwards, by the handlers of before: a library may set its own in the block.
    """
    handlers = {number: signal.getsignal(number) for number in ENDING}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
