"""Work on several CPU threads, and the number of those that torch and OpenCV use for the time of a block."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any

import cv2
import torch

Map = Callable[[Callable[[int], Any], Sequence[int]], Iterator[Any]]
"""Calls a function with each of some numbers, one after the other as `map` does, or in threads."""
LAUNCHING = Lock()
"""Held where Triton compiles and launches: two threads need not compile the same, and its interpreter, which changes
its own modules while it works, bears one at a time."""


@contextmanager
def on_threads(number: int | None) -> Iterator[int]:
    """Let torch and OpenCV use so many CPU threads for the block (None: as they do); gives how many torch had before.

    The rounding of sums depends on the number.
    """
    before = torch.get_num_threads(), cv2.getNumThreads()
    if number is not None:
        torch.set_num_threads(number)
        cv2.setNumThreads(number)
    try:
        yield before[0]
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
