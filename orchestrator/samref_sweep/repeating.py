"""A function that is called again and again while something else goes on."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOG = logging.getLogger(__name__)


@contextmanager
def every(seconds: float, call: Callable[[], object], thread: str) -> Iterator[None]:
    """For the time of the block, call a function every so many seconds, in a thread of that name.

    The last call has returned when the block ends. One that fails is logged, once for each kind, and made again.
    """
    over = threading.Event()
    told: set[type] = set()

    def work() -> None:
        while not over.wait(seconds):
            try:
                call()
            except Exception as error:
                if type(error) not in told:
                    _LOG.warning("%s: %s: %s", thread, type(error).__name__, error)
                told.add(type(error))

    worker = threading.Thread(target=work, name=thread, daemon=True)
    worker.start()
    try:
        yield
    finally:
        over.set()
        worker.join()
