"""Metrics of interactive segmentation: IoU and boundary IoU of a mask; NoC, NoF and n-mIoU of click trajectories.

A trajectory is the sequence of IoUs after click 1, 2, …; trajectories may be ragged, where a loop stopped early. What a
trajectory does not tell is an error (ValueError), never a made-up number. Pure functions; nothing is read or written.
"""

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Truth = NDArray[np.int8]
Region = NDArray[np.bool_]


def iou(truth_HW: Truth, mask_HW: NDArray[Any]) -> float:
    """Intersection over union in [0, 1], at the resolution given; ignored pixels count for nothing.

    truth_HW: 1 object, 0 background, -1 ignored; mask_HW: non-zero is object. Where both are empty outside
    the ignored pixels the mask is what the truth says, so 1.0 (datasets refuse such truths).
    """
    predicted_HW = _predicted(truth_HW, mask_HW)
    object_HW = truth_HW == 1
    return iou_of_counts(_count(object_HW), _count(object_HW & ~predicted_HW), _count((truth_HW == 0) & predicted_HW))


def iou_of_counts(num_object: int, num_missing: int, num_extra: int) -> float:
    """`iou` from pixels: of the object, of it that the mask misses, and that the mask has beyond it."""
    union = num_object + num_extra
    return (num_object - num_missing) / union if union else 1.0


def boundary_iou(
    truth_HW: Truth, mask_HW: NDArray[Any], *, dilation: float = 0.02, true_boundary_HW: Region | None = None
) -> float:
    """Boundary IoU in [0, 1] (Cheng et al., CVPR 2021): IoU of what lies near the contours, inside of them.

    Ignored pixels, of which the paper has none, are taken out of both regions first, so nothing depends on what is
    predicted there. `true_boundary_HW`: `boundary(truth_HW == 1)`, where it is known. Other arguments, errors and empty
    unions as in `iou`.
    """
    predicted_HW = boundary(_predicted(truth_HW, mask_HW) & (truth_HW >= 0), dilation=dilation)
    true_HW = boundary(truth_HW == 1, dilation=dilation) if true_boundary_HW is None else true_boundary_HW
    union = _count(true_HW | predicted_HW)
    return _count(true_HW & predicted_HW) / union if union else 1.0


def boundary(region_HW: Region, *, dilation: float = 0.02) -> Region:
    """The pixels of a region at most d from one outside it or from outside the image, by the larger of the two
    coordinates' differences; d is `dilation` times the image's diagonal, at least 1 px."""
    distance = max(1, round(dilation * math.hypot(*region_HW.shape)))
    side = 2 * distance + 1
    found = np.zeros(region_HW.shape, bool)
    # Outside of the region there is no boundary, and what is cut off counts as outside, which it is.
    x, y, width, height = cv2.boundingRect(region_HW.view(np.uint8))
    if width:
        region = np.ascontiguousarray(region_HW[y : y + height, x : x + width])
        # A window without a gap is inside. Sums of a running window cost the same whatever its side.
        filled = cv2.boxFilter(
            region.view(np.uint8), cv2.CV_32S, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT
        )
        found[y : y + height, x : x + width] = region & (filled < side * side)
    return found


def noc(ious_NT: Sequence[Sequence[float]], k: float, max_clicks: int = 20) -> NDArray[np.int64]:
    """Number of clicks of each sample (N): the first, from 1, with IoU ≥ k (k in 0..1), else `max_clicks`.

    Clicks after `max_clicks` are not looked at. A trajectory that stopped before `max_clicks` is exact for
    every k that it reached; for a higher one the answer is unknown: ValueError.
    """
    counts = []
    for sample, trajectory in enumerate(ious_NT):
        reached = np.flatnonzero(np.asarray(trajectory[:max_clicks], np.float64) >= k)
        if not len(reached) and len(trajectory) < max_clicks:
            raise ValueError(
                f"sample {sample} stopped after {len(trajectory)} of {max_clicks} clicks below IoU {k}: "
                f"its NoC@{k:g} is unknown; evaluate without an early stop, or with one of at least {k:g}"
            )
        counts.append(int(reached[0]) + 1 if len(reached) else max_clicks)
    return np.array(counts, np.int64)


def nof(ious_NT: Sequence[Sequence[float]], k: float, max_clicks: int = 20) -> int:
    """Number of failures: samples whose NoC@k is `max_clicks`.

    As in RITM's code this counts a sample that succeeds exactly at the last click as a failure. Ragged
    trajectories as in `noc`.
    """
    return int(np.count_nonzero(noc(ious_NT, k, max_clicks) == max_clicks))


def mean_iou_at(ious_NT: Sequence[Sequence[float]], n: int) -> float:
    """n-mIoU in [0, 1]: the mean over samples of the IoU after click n (from 1).

    ValueError where there is no sample, or a trajectory has fewer than n clicks (it stopped early).
    """
    if n < 1:
        raise ValueError(f"n is {n}; clicks count from 1")
    if not len(ious_NT):
        raise ValueError("there is no sample to take a mean over")
    short = [sample for sample, trajectory in enumerate(ious_NT) if len(trajectory) < n]
    if short:
        raise ValueError(
            f"{len(short)} of {len(ious_NT)} samples have fewer than {n} clicks (first: sample {short[0]}, "
            f"{len(ious_NT[short[0]])}): {n}-mIoU needs trajectories without an early stop"
        )
    return float(np.mean([trajectory[n - 1] for trajectory in ious_NT]))


def _predicted(truth_HW: Truth, mask_HW: NDArray[Any]) -> Region:
    if truth_HW.shape != mask_HW.shape:
        raise ValueError(f"truth is {truth_HW.shape}, mask is {mask_HW.shape}: they must be of one size")
    return mask_HW if mask_HW.dtype == np.bool_ else mask_HW != 0


def _count(true_HW: Region) -> int:
    # cv2 counts bytes with SIMD: 12 µs for 480×854, half of numpy's time.
    return int(cv2.countNonZero(true_HW.view(np.uint8)))
