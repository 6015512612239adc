"""The number of CPU threads that torch and OpenCV use, for the time of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import torch


@contextmanager
def on_threads(number: int | None) -> Iterator[int]:
    """Let torch and OpenCV use so many CPU threads for the block; the rounding of sums depends on the number.

    Args:
        number: of threads; None leaves both as they are.

    Yields:
        How many threads torch had before.
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
