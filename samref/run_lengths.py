"""Masks as COCO's run lengths: how many pixels of 0, of 1, of 0, … follow each other, down the columns.

Any reader of COCO takes `{"size": [height, width], "counts": counts}`. A mask of 640×480 px is some hundred numbers.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray


class RunLengths(NamedTuple):
    """One mask."""

    height: int
    """px"""
    width: int
    """px"""
    counts: NDArray[np.int32]
    """px; of 0 first (none where the first pixel is 1), then of 1, in turn; their sum is height × width."""


def encode(mask_HW: NDArray[Any]) -> RunLengths:
    """The run lengths of a mask, in which non-zero is object."""
    height, width = mask_HW.shape
    # cv2 transposes six times as fast as numpy copies in another order.
    flat = cv2.transpose((mask_HW != 0).view(np.uint8)).ravel()
    starts = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    if flat.size and flat[0]:
        starts = np.concatenate(([0], starts))
    return RunLengths(height, width, np.diff(starts, prepend=0, append=flat.size).astype(np.int32))


def decode(height: int, width: int, counts: ArrayLike) -> NDArray[np.bool_]:
    """The mask H×W; ValueError where the counts are not those of so many pixels."""
    runs = np.asarray(counts, np.int64)
    if (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"runs of {runs.sum()} pixels in all for {width}×{height} px")
    return np.ascontiguousarray(np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T)
