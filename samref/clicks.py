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
Wrong = NDArray[np.uint8]
"""H×W; 1 where the mask is wrong in one of the two ways, else 0."""

INNER_SQUARED = (100, 289)
"""InterFormer draws training clicks among distances above max / 1.7; (1 / 1.7)² as a whole-number ratio."""

_BLOCK = 4
"""Side of the blocks by which the deep part of an error is found; a row of one is a 32-bit word."""
_BLOCK_SLACK = (_BLOCK - 1) * sqrt(2)
"""What the distance between two pixels and that between their blocks can differ by, in px."""
_CHAMFER = (0.9824, 1.0193)
"""OpenCV's 5×5 chamfer distance over the Euclidean one: steps of 1, 1.4 and 2.1969 along a row, a diagonal and a
knight's move come short most on the last, 2.1969 / √5, and are too long most at 1 : 0.1969, √(1 + 0.1969²)."""
_CELL = 16
"""Side, in px, of the cells by which the deepest pixel of an error is found."""
_Box = Sequence[int]
"""Left, top, right and bottom in px, the latter two outside."""


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

    @property
    def deepest(self) -> tuple[int, int]:
        """Row and column of the first of the deepest pixels, in row-major order."""
        y, x = divmod(int(self.beyond(self.peak - 1).argmax()), self.distance_hw.shape[1])  # argmax: the first True
        return self.y0 + y, self.x0 + x

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
    _check(truth_HW, mask_HW, clicks)
    return click_on(*errors(truth_HW, mask_HW), clicks, clicker=clicker, rng=rng)


def errors(truth_HW: Truth, mask_HW: Mask) -> tuple[Wrong, Wrong]:
    """What of the object is missing in the mask, and what of the background it has too much."""
    predicted_HW = mask_HW if mask_HW.dtype == np.bool_ else mask_HW != 0
    return ((truth_HW == 1) & ~predicted_HW).view(np.uint8), ((truth_HW == 0) & predicted_HW).view(np.uint8)


def click_on(
    missing_HW: Wrong,
    extra_HW: Wrong,
    clicks: Sequence[Click],
    *,
    clicker: Clicker = "ritm",
    rng: np.random.Generator | None = None,
) -> Click | None:
    """`next_click`, given the errors; `interformer` cuts the clicks out of them in place."""
    if clicker not in ("ritm", "interformer"):
        raise ValueError(f"clicker is {clicker!r}; there are: ritm, interformer")
    if clicker == "interformer" and rng is None:
        raise ValueError("clicker interformer draws among equals: pass rng, a seeded numpy Generator")
    depth, positive = _larger_error(missing_HW, extra_HW, clicks, cut_first=clicker == "interformer")
    if depth is None:
        return None
    if clicker == "interformer" and rng is not None:
        return _click(depth, int(rng.choice(np.flatnonzero(depth.beyond(depth.peak - 1)))), positive)
    y, x = depth.deepest
    return Click(x, y, positive)


def simulate_click(truth_HW: Truth, mask_HW: Mask, clicks: Sequence[Click], rng: np.random.Generator) -> Click | None:
    """The training's next click (InterFormer's): random, but well inside the larger error.

    Without clicks so far: the centre of the object (its deepest pixel, first in row-major order), whatever
    the mask. Else drawn uniformly among the pixels of the larger error with distance > max / 1.7, earlier
    clicks cut out first. Shapes, None and errors as in `next_click`.
    """
    if not clicks:
        return next_click(truth_HW, np.zeros(truth_HW.shape, bool), ())
    _check(truth_HW, mask_HW, clicks)
    depth, positive = _larger_error(*errors(truth_HW, mask_HW), clicks, cut_first=True, share=1 / 1.7)
    if depth is None:
        return None
    # Squared distances are whole: d² > peak · 100/289 is d² > floor(peak · 100/289).
    inner_hw = depth.beyond(depth.peak * INNER_SQUARED[0] // INNER_SQUARED[1])
    return _click(depth, int(rng.choice(np.flatnonzero(inner_hw))), positive)


def num_rounds(gamma: float, max_clicks: int, rng: np.random.Generator) -> int:
    """Extra click rounds of one training step: n in 0..max_clicks with P(n) ∝ gamma^n (0⁰ = 1)."""
    weights = np.power(float(gamma), np.arange(max_clicks + 1))
    return int(rng.choice(max_clicks + 1, p=weights / weights.sum()))


def _check(truth_HW: Truth, mask_HW: Mask, clicks: Sequence[Click]) -> None:
    if truth_HW.shape != mask_HW.shape:
        raise ValueError(f"truth is {truth_HW.shape}, mask is {mask_HW.shape}: they must be of one size")
    height, width = truth_HW.shape
    for click in clicks:
        if not (0 <= click.x < width and 0 <= click.y < height):
            raise ValueError(f"{click} lies outside the truth of {width}×{height} px")


def _larger_error(
    missing_HW: Wrong, extra_HW: Wrong, clicks: Sequence[Click], *, cut_first: bool, share: float = 1.0
) -> tuple[_Depth | None, bool]:
    """The error to click next and the click's sign; of its depths those above `share` of the largest are there."""
    regions = [_region(wrong, clicks if cut_first else ()) for wrong in (missing_HW, extra_HW)]
    depths: list[_Depth | None] = [None, None]
    # The one that is deeper by its blocks goes first: often the other cannot be deeper, and is not looked at.
    for kind in sorted((0, 1), key=lambda kind: -regions[kind].highest):
        other = depths[1 - kind]
        if other is None or regions[kind].most ** 2 >= other.peak:
            depths[kind] = _depth(regions[kind], () if cut_first else clicks, share, first_only=not cut_first)
    missing, extra = depths
    if missing is not None and (extra is None or missing.peak > extra.peak):
        return missing, True
    return extra, False


class _Region(NamedTuple):
    """An error's bounding box, seen in blocks.

    A block is full if all its pixels are wrong. Let c be the distance, in blocks of k×k, from a full block to the
    nearest one that is not. A pixel of the block has a zero within k·c + (k - 1)·√2 px, as that other block holds one;
    and none nearer than k·c - (k - 1)·√2, as every block that holds one is at least c away. Transforming blocks costs a
    sixteenth, and a chamfer transform, which tells c to two percent, a quarter of that.
    """

    padded: Wrong
    """The box, a ring of zeros, and zeros up to whole blocks."""
    x0: int
    y0: int
    """Where it begins."""
    blocks: NDArray[np.float32]
    """The chamfer distance of each in place of c."""
    highest: float
    """The largest of them; -1 where nothing is wrong."""

    @property
    def most(self) -> float:
        """No distance is larger, in px."""
        return _BLOCK * self.highest / _CHAMFER[0] + _BLOCK_SLACK

    @property
    def least(self) -> float:
        """Some distance is at least that, in px."""
        return _BLOCK * self.highest / _CHAMFER[1] - _BLOCK_SLACK

    def above(self, distance: float) -> NDArray[np.uint8]:
        """1 for the blocks in which some distance may be above this one, in px."""
        return (self.blocks > _CHAMFER[0] * (distance - _BLOCK_SLACK) / _BLOCK).view(np.uint8)


def _region(wrong_HW: Wrong, cut: Sequence[Click]) -> _Region:
    """The clicks to cut are cut in place.

    Only the bounding box and one pixel around it are looked at, which changes no distance. Proof: the plain way pads
    the image by one pixel of zeros; outside the box everything is zero there too. Take a pixel p of the box and its
    nearest zero z. If z is outside the box, the straight way from p to z crosses the ring around the box: clamp z's
    coordinates to the box grown by one. The clamped pixel lies on the ring, so it is a zero; each coordinate moved
    towards p or stayed, so it is not farther. Hence a nearest zero lies in the grown box.
    """
    for click in cut:
        wrong_HW[click.y, click.x] = 0
    x0, y0, width, height = cv2.boundingRect(wrong_HW)
    rows, columns = (-(-(side + 2) // _BLOCK) * _BLOCK for side in (height, width))
    padded = np.zeros((rows, columns), np.uint8)
    if width == 0:
        return _Region(padded, x0, y0, np.zeros((1, 1), np.float32), -1)
    padded[1 : height + 1, 1 : width + 1] = wrong_HW[y0 : y0 + height, x0 : x0 + width]
    lines = padded.reshape(rows // _BLOCK, _BLOCK, columns)
    # Four wrong pixels in a row are the bytes 1, 1, 1, 1.
    words = (lines[:, 0] & lines[:, 1] & lines[:, 2] & lines[:, 3]).view(np.uint32)
    full = (words == 0x01010101).view(np.uint8)
    blocks = cv2.distanceTransform(full, cv2.DIST_L2, cv2.DIST_MASK_5).astype(np.float32, copy=False)
    return _Region(padded, x0 - 1, y0 - 1, blocks, float(blocks.max()))


def _depth(region: _Region, clicks: Sequence[Click], share: float, *, first_only: bool) -> _Depth | None:
    """Distances where they are large, clicked pixels at 0; None where no pixel is left.

    The largest distance is at least `region.least`, unless it is a clicked pixel's. Where the upper bound is below
    that, or below the share of it, nothing needs to be looked at. `first_only`: the part that holds the first of the
    deepest pixels is enough.
    """
    if region.highest < 0:
        return None
    look = _first_deepest if first_only else _distances
    if region.least > 0:
        x, y, width, height = (_BLOCK * side for side in cv2.boundingRect(region.above(share * region.least)))
        found = look(region, (x, y, x + width, y + height), region.most, clicks)
        if found.peak >= region.least**2:
            return found
    rows, columns = region.padded.shape
    found = look(region, (0, 0, columns, rows), 0, clicks)
    return found if found.peak else None


def _distances(
    region: _Region, box: _Box, most: float, clicks: Sequence[Click], mask: int = cv2.DIST_MASK_PRECISE
) -> _Depth:
    """Of the pixels of a box, none of which is above `most`: what is farther from it makes no distance smaller."""
    left, top, right, bottom = box
    reach = int(most) + 1
    y, x = max(0, top - reach), max(0, left - reach)
    distances = cv2.distanceTransform(region.padded[y : bottom + reach, x : right + reach], cv2.DIST_L2, mask)
    distance = distances[top - y : bottom - y, left - x : right - x].astype(np.float32, copy=False)
    x0, y0 = region.x0 + left, region.y0 + top
    for click in clicks:
        if 0 <= click.x - x0 < right - left and 0 <= click.y - y0 < bottom - top:
            distance[click.y - y0, click.x - x0] = 0
    return _Depth(distance, x0, y0, round(float(distance.max()) ** 2))


def _first_deepest(region: _Region, box: _Box, most: float, clicks: Sequence[Click]) -> _Depth:
    """The cell of a box that holds the first of its deepest pixels, or all of it where that is less work.

    A chamfer transform takes a sixth of an exact one's time, and leaves few pixels that may be the deepest.
    """
    left, top, right, bottom = box
    rough = _distances(region, box, most, clicks, cv2.DIST_MASK_5).distance_hw
    highest = float(rough.max())
    rows, columns = np.divmod(np.flatnonzero(rough >= highest * (_CHAMFER[0] / _CHAMFER[1])), right - left)
    cells = set(zip((rows // _CELL).tolist(), (columns // _CELL).tolist(), strict=True))
    if not highest or len(cells) * (_CELL + 2 * highest) ** 2 > rough.size:
        return _distances(region, box, most, clicks)
    found: _Depth | None = None
    for row, column in cells:
        x, y = left + _CELL * column, top + _CELL * row
        cell = (x, y, min(right, x + _CELL), min(bottom, y + _CELL))
        depth = _distances(region, cell, highest / _CHAMFER[0], clicks)
        if found is None or (depth.peak, found.deepest) > (found.peak, depth.deepest):
            found = depth
    assert found is not None
    return found


def _click(depth: _Depth, flat_index: int, positive: bool) -> Click:
    y, x = divmod(flat_index, depth.distance_hw.shape[1])
    return Click(depth.x0 + x, depth.y0 + y, positive)
