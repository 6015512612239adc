"""A function that is called again and again while something else goes on."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def every(seconds: float, call: Callable[[], object], thread: str) -> Iterator[None]:
    """For the time of the block, call a function every so many seconds, in a thread of that name.

    The last call has returned when the block ends.
    """
    over = threading.Event()

    def work() -> None:
        while not over.wait(seconds):
            call()

    worker = threading.Thread(target=work, name=thread, daemon=True)
    worker.start()
    try:
        yield
    finally:
        over.set()
        worker.join()
