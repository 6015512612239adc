"""Simulated clicks: where a user would click next, in evaluation and in training.

Knows nothing of models or datasets: a truth, a mask and the clicks so far go in, a click comes out. All
functions are pure and thread-safe (no state; OpenCV's distance transform keeps none either).

Distances are compared as what they are, whole numbers squared. `cv2.distanceTransform` gives their float32
roots, and x86 builds of OpenCV take Intel's IPP for it where the map is small or `cv2.getNumThreads()` is 1:
its roots are at times one last bit off, differently at equal distances (OpenCV 5.0). The published line
compares these floats, so there ties, and with them clicks, hang on the number of threads (4 of 522 clicks on
DAVIS). Rounding the squares gives back the result of OpenCV's own code everywhere (up to distances of 1448
px, where one last bit of the root is half a square).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Clicker = Literal["ritm", "interformer"]
Truth = NDArray[np.int8]
Mask = NDArray[Any]
"""H×W; what is not zero (or not False) is predicted object."""

INNER_SQUARED = (100, 289)
"""InterFormer draws training clicks among distances above max / 1.7; (1 / 1.7)² as a whole-number ratio."""


class Click(NamedTuple):
    """One click, in whole pixels of the truth it was placed on: x is the column, y the row, from 0."""

    x: int
    y: int
    positive: bool


class _Depth(NamedTuple):
    """How deep the pixels of one kind of error lie in it: distances to the nearest pixel outside it."""

    distance_hw: NDArray[np.float32]
    x0: int
    y0: int
    peak: int
    """The largest distance, squared, in px²."""

    def beyond(self, squared: int) -> NDArray[np.bool_]:
        """h×w: the pixels whose squared distance is above `squared`."""
        # Half-way between two squares: a root that is one bit off cannot cross it.
        return self.distance_hw > np.float32(sqrt(squared + 0.5))


def next_click(
    truth_HW: Truth,
    mask_HW: Mask,
    clicks: Sequence[Click],
    *,
    clicker: Clicker = "ritm",
    rng: np.random.Generator | None = None,
) -> Click | None:
    """The evaluation's next click: the deepest pixel of the larger error, missing object or extra background.

    `ritm` (RITM, SimpleClick, FocalClick, SegNext): pixels that were clicked count as wrong while distances
    are taken, and cannot be clicked again; among equals the first in row-major order. `interformer`
    (InterFormer, FocSAM): clicked pixels are cut out first, equals are drawn with `rng`. For both the click
    is positive only if the missing object is strictly deeper.

    truth_HW: 1 object, 0 background, -1 ignored; mask_HW: non-zero is object.
    None: nothing is wrong, or every wrong pixel has been clicked. RITM's line would then put a negative click
    on pixel (0, 0), again and again; here the loop knows that there is nothing left to click.
    Raises ValueError for shapes that differ, a click outside, an unknown clicker, or `interformer` without
    `rng`.
    """
    if clicker not in ("ritm", "interformer"):
        raise ValueError(f"clicker is {clicker!r}; there are: ritm, interformer")
    if clicker == "interformer" and rng is None:
        raise ValueError("clicker interformer draws among equals: pass rng, a seeded numpy Generator")
    depth, positive = _larger_error(truth_HW, mask_HW, clicks, cut_first=clicker == "interformer")
    if depth is None:
        return None
    deepest_hw = depth.beyond(depth.peak - 1)
    if clicker == "interformer" and rng is not None:
        return _click(depth, int(rng.choice(np.flatnonzero(deepest_hw))), positive)
    return _click(depth, int(deepest_hw.argmax()), positive)  # argmax: the first True


def simulate_click(truth_HW: Truth, mask_HW: Mask, clicks: Sequence[Click], rng: np.random.Generator) -> Click | None:
    """The training's next click (InterFormer's): random, but well inside the larger error.

    Without clicks so far: the centre of the object (its deepest pixel, first in row-major order), whatever
    the mask. Else drawn uniformly among the pixels of the larger error with distance > max / 1.7, earlier
    clicks cut out first. Shapes, None and errors as in `next_click`.
    """
    if not clicks:
        return next_click(truth_HW, np.zeros(truth_HW.shape, bool), ())
    depth, positive = _larger_error(truth_HW, mask_HW, clicks, cut_first=True)
    if depth is None:
        return None
    # Squared distances are whole: d² > peak · 100/289 is d² > floor(peak · 100/289).
    inner_hw = depth.beyond(depth.peak * INNER_SQUARED[0] // INNER_SQUARED[1])
    return _click(depth, int(rng.choice(np.flatnonzero(inner_hw))), positive)


def num_rounds(gamma: float, max_clicks: int, rng: np.random.Generator) -> int:
    """Extra click rounds of one training step: n in 0..max_clicks with P(n) ∝ gamma^n (0⁰ = 1)."""
    weights = np.power(float(gamma), np.arange(max_clicks + 1))
    return int(rng.choice(max_clicks + 1, p=weights / weights.sum()))


def _larger_error(
    truth_HW: Truth, mask_HW: Mask, clicks: Sequence[Click], *, cut_first: bool
) -> tuple[_Depth | None, bool]:
    """The error to click next and the click's sign."""
    if truth_HW.shape != mask_HW.shape:
        raise ValueError(f"truth is {truth_HW.shape}, mask is {mask_HW.shape}: they must be of one size")
    height, width = truth_HW.shape
    for click in clicks:
        if not (0 <= click.x < width and 0 <= click.y < height):
            raise ValueError(f"{click} lies outside the truth of {width}×{height} px")
    predicted_HW = mask_HW if mask_HW.dtype == np.bool_ else mask_HW != 0
    missing = _depth((truth_HW == 1) & ~predicted_HW, clicks, cut_first=cut_first)
    extra = _depth((truth_HW == 0) & predicted_HW, clicks, cut_first=cut_first)
    if missing is not None and (extra is None or missing.peak > extra.peak):
        return missing, True
    return extra, False


def _depth(wrong_HW: NDArray[np.bool_], clicks: Sequence[Click], *, cut_first: bool) -> _Depth | None:
    """Distances inside `wrong_HW` (changed in place) on its bounding box; None where no pixel is left."""
    wrong = wrong_HW.view(np.uint8)
    if cut_first:
        for click in clicks:
            wrong[click.y, click.x] = 0
    # Only the bounding box and one pixel around it are looked at, which changes no distance. Proof: the plain
    # way pads the image by one pixel of zeros; outside the box everything is zero there too. Take a pixel p
    # of the box and its nearest zero z. If z is outside the box, the straight way from p to z crosses the
    # ring around the box: clamp z's coordinates to the box grown by one. The clamped pixel lies on the ring,
    # so it is a zero; each coordinate moved towards p or stayed, so it is not farther. Hence a nearest zero
    # lies in the grown box.
    x0, y0, width, height = cv2.boundingRect(wrong)
    if width == 0:
        return None
    padded = np.zeros((height + 2, width + 2), np.uint8)
    padded[1:-1, 1:-1] = wrong[y0 : y0 + height, x0 : x0 + width]
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    if not cut_first:
        for click in clicks:
            if 0 <= click.x - x0 < width and 0 <= click.y - y0 < height:
                distance[click.y - y0, click.x - x0] = 0
    peak = round(float(distance.max()) ** 2)
    return _Depth(distance.astype(np.float32, copy=False), x0, y0, peak) if peak else None


def _click(depth: _Depth, flat_index: int, positive: bool) -> Click:
    y, x = divmod(flat_index, depth.distance_hw.shape[1])
    return Click(depth.x0 + x, depth.y0 + y, positive)
