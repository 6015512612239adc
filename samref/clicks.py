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
from itertools import product
from math import pi, sqrt
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Clicker = Literal["ritm", "interformer"]
Truth = NDArray[np.int8]
Mask = NDArray[Any]
"""H×W; what is not zero (or not False) is predicted object."""
Bits = NDArray[np.uint8]
"""H×⌈W/8⌉: one bit a pixel (`numpy.packbits` of the rows), 0 beyond a row's end. The passes over whole images are bound
by memory, which this is an eighth of."""


class Errors(NamedTuple):
    """What of the object is missing in a mask, and what of the background it has too much; the pixels of each."""

    missing: Bits
    extra: Bits
    num_missing: int
    num_extra: int


INNER_SQUARED = (100, 289)
"""InterFormer draws training clicks among distances above max / 1.7; (1 / 1.7)² as a whole-number ratio."""

_BLOCK = 4
"""Side of the blocks by which the deep part of an error is found; a row of two is a byte."""
_TWO_BLOCKS = np.array([[bits >> 4 == 0xF, bits & 0xF == 0xF] for bits in range(256)], np.uint8).view(np.uint16)
_BLOCK_SLACK = (_BLOCK - 1) * sqrt(2)
"""What the distance between two pixels and that between their blocks can differ by, in px."""
_CHAMFER = (0.9824, 1.0193)
"""OpenCV's 5×5 chamfer distance over the Euclidean one: steps of 1, 1.4 and 2.1969 along a row, a diagonal and a
knight's move come short most on the last, 2.1969 / √5, and are too long most at 1 : 0.1969, √(1 + 0.1969²)."""
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
_PAIRS = 12
"""Distances between two pixels that are computed as fast as the exact transform of one."""


class _Box(NamedTuple):
    """In px; right and bottom are outside."""

    left: int
    top: int
    right: int
    bottom: int


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
    return click_on(errors(*sides(truth_HW), mask_HW), clicks, clicker=clicker, rng=rng)


def sides(truth_HW: Truth) -> tuple[Bits, Bits]:
    """Where the object is, and where the background; ignored pixels are neither."""
    return np.packbits(truth_HW == 1, axis=1), np.packbits(truth_HW == 0, axis=1)


def errors(is_object: Bits, is_background: Bits, mask_HW: Mask) -> Errors:
    """Where a mask is wrong."""
    predicted = np.packbits(mask_HW if mask_HW.dtype == np.bool_ else mask_HW != 0, axis=1)
    missing, extra = is_object & ~predicted, is_background & predicted
    return Errors(missing, extra, num_pixels(missing), num_pixels(extra))


def num_pixels(bits: Bits) -> int:
    """How many are set."""
    return int(cv2.norm(bits, cv2.NORM_HAMMING))


def click_on(
    wrong: Errors, clicks: Sequence[Click], *, clicker: Clicker = "ritm", rng: np.random.Generator | None = None
) -> Click | None:
    """`next_click`, given the errors; `interformer` cuts the clicks out of them in place."""
    if clicker not in ("ritm", "interformer"):
        raise ValueError(f"clicker is {clicker!r}; there are: ritm, interformer")
    if clicker == "interformer" and rng is None:
        raise ValueError("clicker interformer draws among equals: pass rng, a seeded numpy Generator")
    depth, positive = _larger_error(wrong, clicks, cut_first=clicker == "interformer")
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
    wrong = errors(*sides(truth_HW), mask_HW)
    depth, positive = _larger_error(wrong, clicks, cut_first=True, share=1 / 1.7)
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
    wrong: Errors, clicks: Sequence[Click], *, cut_first: bool, share: float = 1.0
) -> tuple[_Depth | None, bool]:
    """The error to click next and the click's sign; of its depths those above `share` of the largest are there."""
    if cut_first:
        for click, bits in product(clicks, wrong[:2]):
            bits[click.y, click.x // 8] &= ~(0x80 >> click.x % 8) & 0xFF
    # The one of more pixels is seen in blocks first, and the deeper one by what is known is measured first: often
    # the other cannot be deeper, and is not looked at.
    bounds = [_deepest_disc(wrong.num_missing), _deepest_disc(wrong.num_extra)]
    regions: list[_Region | None] = [None, None]
    least = 0.0
    for kind in sorted((0, 1), key=lambda kind: -bounds[kind]):
        if bounds[kind] > least:
            regions[kind] = region = _region(wrong[:2][kind])
            bounds[kind] = min(bounds[kind], region.most)
            least = max(least, region.least)
    depths: list[_Depth | None] = [None, None]
    for kind in sorted((0, 1), key=lambda kind: -bounds[kind]):
        other = depths[1 - kind]
        if other is None or bounds[kind] ** 2 >= other.peak:
            region = regions[kind] or _region(wrong[:2][kind])
            depths[kind] = _depth(region, () if cut_first else clicks, share, first_only=not cut_first)
    missing, extra = depths
    if missing is not None and (extra is None or missing.peak > extra.peak):
        return missing, True
    return extra, False


def _deepest_disc(num_pixels: int) -> float:
    """No distance within an error of that many pixels is larger, in px.

    All pixels nearer than d to one of depth d are wrong, and the unit squares around them cover a disc whose radius is
    less than d by no more than half a pixel's diagonal.
    """
    return sqrt(num_pixels / pi) + sqrt(0.5) if num_pixels else 0.0


class _Region(NamedTuple):
    """An error, seen in blocks.

    A block is full if all its pixels are wrong. Let c be the distance, in blocks of k×k, from a full block to the
    nearest one that is not. A pixel of the block has a zero within k·c + (k - 1)·√2 px, as that other block holds one;
    and none nearer than k·c - (k - 1)·√2, as every block that holds one is at least c away. Transforming blocks costs a
    sixteenth, and a chamfer transform, which tells c to two percent, a quarter of that.
    """

    wrong: Bits
    blocks: NDArray[np.float32]
    """The chamfer distance of each in place of c, for all full blocks and a ring around them."""
    x0: int
    y0: int
    """Where the first of them begins, in px; the ring may lie outside the image."""
    highest: float
    """The largest of them."""

    @property
    def most(self) -> float:
        """No distance is larger, in px."""
        return _BLOCK * self.highest / _CHAMFER[0] + _BLOCK_SLACK

    @property
    def least(self) -> float:
        """Some distance is at least that, in px."""
        return max(0.0, _BLOCK * self.highest / _CHAMFER[1] - _BLOCK_SLACK)

    def above(self, distance: float) -> _Box:
        """A box that holds all pixels whose distance is larger than this one, in px.

        Distances up to `_BLOCK_SLACK` occur in blocks that are not full, which may be anywhere.
        """
        if distance <= _BLOCK_SLACK:
            x, y, width, height = cv2.boundingRect(np.unpackbits(self.wrong, axis=1))
            return _Box(x, y, x + width, y + height)
        deep = (self.blocks > _CHAMFER[0] * (distance - _BLOCK_SLACK) / _BLOCK).view(np.uint8)
        x, y, width, height = (_BLOCK * side for side in cv2.boundingRect(deep))
        return _Box(self.x0 + x, self.y0 + y, self.x0 + x + width, self.y0 + y + height)


def _region(wrong: Bits) -> _Region:
    """Blocks that reach outside the image are not full, so rows and columns beyond the last whole block are left out.

    Nor is anything but the full blocks' bounding box and the ring around it looked at. That changes no distance: a
    nearest block that is not full and lies farther out has one on the ring on the way to it, which is not farther.
    """
    rows = len(wrong) // _BLOCK
    lines = wrong[: rows * _BLOCK].reshape(rows, _BLOCK, wrong.shape[1])
    full = _TWO_BLOCKS.take(lines[:, 0] & lines[:, 1] & lines[:, 2] & lines[:, 3]).view(np.uint8)
    x, y, width, height = cv2.boundingRect(full) if full.size else (0, 0, 0, 0)
    blocks = cv2.distanceTransform(_ringed(full[y : y + height, x : x + width]), cv2.DIST_L2, cv2.DIST_MASK_5)
    return _Region(
        wrong, blocks.astype(np.float32, copy=False), _BLOCK * (x - 1), _BLOCK * (y - 1), float(blocks.max())
    )


def _ringed(map_hw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    ringed = np.zeros((map_hw.shape[0] + 2, map_hw.shape[1] + 2), np.uint8)
    ringed[1:-1, 1:-1] = map_hw
    return ringed


def _depth(region: _Region, clicks: Sequence[Click], share: float, *, first_only: bool) -> _Depth | None:
    """Distances where they are large, clicked pixels at 0; None where no pixel is left.

    The deepest block's chamfer distances tell what the largest distance is at least. What is below that, or below the
    share of it, need not be looked at. `first_only`: the first of the deepest pixels is enough.
    """
    x, y = (_BLOCK * place for place in cv2.minMaxLoc(region.blocks)[3])
    top = _Box(region.x0 + x, region.y0 + y, region.x0 + x + _BLOCK, region.y0 + y + _BLOCK)
    least = 0.0
    if region.highest:
        least = float(_transform(region, top, clicks, cv2.DIST_MASK_5)[0].max()) / _CHAMFER[1]
    look = _first_deepest if first_only else _distances
    return look(region, region.above(share * least), clicks)


def _transform(
    region: _Region, box: _Box, clicks: Sequence[Click], mask: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8], int, int]:
    """Distances of the pixels of a box, by OpenCV's `mask`, clicked ones at 0; the pixels that they hang on, and the
    column and row of the first of these.

    No distance is larger than `region.most`, so what is farther from the box makes none smaller. Nor does the ring of
    zeros: where it is not outside the image, which counts as zero, it is farther than that as well.
    """
    reach = int(region.most) + 1
    x0, y0 = max(0, box.left - reach) // 8 * 8, max(0, box.top - reach)
    window = np.unpackbits(region.wrong[y0 : box.bottom + reach, x0 // 8 : -(-(box.right + reach) // 8)], axis=1)
    ringed, x0, y0 = _ringed(window), x0 - 1, y0 - 1
    distances = cv2.distanceTransform(ringed, cv2.DIST_L2, mask).astype(np.float32, copy=False)
    distances = distances[box.top - y0 : box.bottom - y0, box.left - x0 : box.right - x0]
    height, width = distances.shape
    for click in clicks:
        if 0 <= click.x - box.left < width and 0 <= click.y - box.top < height:
            distances[click.y - box.top, click.x - box.left] = 0
    return distances, ringed, x0, y0


def _distances(region: _Region, box: _Box, clicks: Sequence[Click]) -> _Depth | None:
    """Of the pixels of a box; None where all are 0."""
    distances, *_ = _transform(region, box, clicks, cv2.DIST_MASK_PRECISE)
    peak = round(float(distances.max(initial=0)) ** 2)
    return _Depth(distances, box.left, box.top, peak) if peak else None


def _first_deepest(region: _Region, box: _Box, clicks: Sequence[Click]) -> _Depth | None:
    """The first of a box's deepest pixels alone; None where all distances are 0.

    A chamfer transform takes a fifth of an exact one's time, and leaves few pixels that may be the deepest. They are
    compared with all zeros on the error's edge: a nearest zero has a wrong pixel beside it, one step on the way.
    """
    rough, window, x0, y0 = _transform(region, box, clicks, cv2.DIST_MASK_5)
    highest = float(rough.max(initial=0))
    if not highest:
        return None
    pixels = np.flatnonzero(rough >= highest * (_CHAMFER[0] / _CHAMFER[1]))
    edge = np.flatnonzero(cv2.dilate(window, _CROSS) != window)
    if len(pixels) * len(edge) > _PAIRS * window.size:
        return _distances(region, box, clicks)
    (rows, columns), (edge_rows, edge_columns) = np.divmod(pixels, rough.shape[1]), np.divmod(edge, window.shape[1])
    squared = _squared_differences(rows + (box.top - y0), edge_rows)
    squared += _squared_differences(columns + (box.left - x0), edge_columns)
    squared = squared.min(axis=1)
    first = int(squared.argmax())
    x, y, peak = box.left + int(columns[first]), box.top + int(rows[first]), int(squared[first])
    return _Depth(np.full((1, 1), sqrt(peak), np.float32), x, y, peak)


def _squared_differences(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int32]:
    """Of each number on the left to each on the right."""
    differences = right.astype(np.int32) - left.astype(np.int32)[:, None]
    differences *= differences
    return differences


def _click(depth: _Depth, flat_index: int, positive: bool) -> Click:
    y, x = divmod(flat_index, depth.distance_hw.shape[1])
    return Click(depth.x0 + x, depth.y0 + y, positive)
