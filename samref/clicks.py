"""Simulated clicks: where a user would click next, in evaluation and in training.

Knows nothing of models or datasets: a truth, a mask and the clicks so far go in, a click comes out. All functions are
pure and thread-safe.

Distances are compared as what they are, whole numbers squared. `cv2.distanceTransform`, by which the published line
takes them, gives their float32 roots, and x86 builds of OpenCV take Intel's IPP for it where the map is small or
`cv2.getNumThreads()` is 1: its roots are at times one last bit off, differently at equal distances (OpenCV 5.0). There
ties, and with them clicks, depend on the number of threads (4 of 522 clicks on DAVIS).
"""

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from samref import pixel_loops, plugins
from samref.pixel_loops import HIGHEST_IMAGE, MISSING, RIGHT
from samref.plugins import is_plugin

Rng = np.random.Generator
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


class Errors(NamedTuple):
    """Where a mask is wrong."""

    kind_HW: NDArray[np.uint8]
    """RIGHT, MISSING (of the object) or EXTRA (background that the mask has)."""
    num_missing: int
    num_extra: int


def next_click(
    truth_HW: Truth, mask_HW: Mask, clicks: Sequence[Click], *, clicker: str = "ritm", rng: Rng | None = None
) -> Click | None:
    """The evaluation's next click: the deepest pixel of the larger error, missing object or extra background.

    `ritm` (RITM, SimpleClick, FocalClick, SegNext): pixels that were clicked count as wrong while distances
    are taken, and cannot be clicked again; among equals the first in row-major order. `interformer`
    (InterFormer, FocSAM): clicked pixels are cut out first, equals are drawn with `rng`. For both the click
    is positive only if the missing object is strictly deeper.

    truth_HW: 1 object, 0 background, -1 ignored; mask_HW: non-zero is object. None: nothing is wrong, or every wrong
    pixel has been clicked. RITM's line would then put a negative click on pixel (0, 0), again and again; here the loop
    knows that there is nothing left to click. Raises ValueError for shapes that differ, a click outside, more than
    HIGHEST_IMAGE rows, an unknown clicker, or `interformer` without `rng`.
    """
    _check(truth_HW, mask_HW, clicks)
    return click_on(errors(truth_HW, mask_HW), clicks, clicker=clicker, rng=rng)


def errors(truth_HW: Truth, mask_HW: Mask) -> Errors:
    """Where a mask is wrong; shapes as in `next_click`. ValueError above HIGHEST_IMAGE rows."""
    kind_HW = pixel_loops.kinds(*_as_compiled(truth_HW, mask_HW))
    num_wrong = cv2.countNonZero(kind_HW)
    num_extra = round(cv2.norm(kind_HW, cv2.NORM_L1)) - num_wrong  # MISSING counts 1 there, EXTRA 2
    return Errors(kind_HW, num_wrong - num_extra, num_extra)


def click_on(wrong: Errors, clicks: Sequence[Click], *, clicker: str = "ritm", rng: Rng | None = None) -> Click | None:
    """`next_click`, given the errors; `interformer` cuts the clicks out of them in place."""
    if clicker not in ("ritm", "interformer"):
        raise ValueError(f"clicker is {clicker!r}; there are: ritm, interformer")
    if clicker == "ritm":
        kind, peak, place = pixel_loops.deepest(wrong.kind_HW, _clicked(clicks))
        y, x = divmod(place, wrong.kind_HW.shape[1])
        return Click(x, y, kind == MISSING) if peak else None
    if rng is None:
        raise ValueError("clicker interformer draws among equals: pass rng, a seeded numpy Generator")
    for click in clicks:
        wrong.kind_HW[click.y, click.x] = RIGHT
    return _drawn(*pixel_loops.inner(wrong.kind_HW, 1, 1, 1), wrong.kind_HW.shape[1], rng)


def check(clicker: str) -> None:
    """Refuse a clicker of a person's own that cannot be called: it makes a first click on a small square."""
    if is_plugin(clicker):
        truth_HW = np.zeros((32, 32), np.int8)
        truth_HW[8:24, 8:24] = 1
        plugins.bind(clicker, truth_HW, truth_HW < 0, (), np.random.default_rng(0))
        own_click(clicker, truth_HW, truth_HW < 0, (), np.random.default_rng(0))


def own_click(name: str, truth_HW: Truth, mask_HW: Mask, clicks: Sequence[Click], rng: Rng | None) -> Click | None:
    """The next click by a person's own rule: `next_click(truth_HW, mask_HW, clicks, rng)`.

    It is called from several threads with the arrays as in `next_click` (the mask of bools), which it must not change,
    and a generator that depends on the seed, the sample and the number of clicks alone. It returns (x, y, positive), or
    None where it makes no further click, which may not be the first while a pixel is wrong. Raises PluginError: it
    fails, or what it returns is no click within the image.
    """
    function, options = plugins.ready(name)
    with plugins.told(name):
        found = function(truth_HW, mask_HW, clicks, rng, **options)
    if found is None:
        if not clicks and (left := int(np.count_nonzero((truth_HW >= 0) & (mask_HW != (truth_HW == 1))))):
            raise plugins.PluginError(
                f"{name}: {plugins.place_of(function)}: it makes no first click, though {left} pixels are wrong, and a "
                "sample without clicks counts as segmented; return (x, y, positive)"
            )
        return None
    height, width = truth_HW.shape
    try:
        x, y, positive = found
        click = Click(operator.index(x), operator.index(y), bool(positive))
    except (TypeError, ValueError):
        click = Click(-1, -1, False)
    if not (0 <= click.x < width and 0 <= click.y < height):
        raise plugins.PluginError(
            f"{name}: {plugins.place_of(function)}: it returned {found!r} on an image of {width}×{height} px; return "
            "(x, y, positive) in whole pixels within it, or None"
        )
    return click


def simulate_click(truth_HW: Truth, mask_HW: Mask, clicks: Sequence[Click], rng: Rng) -> Click | None:
    """The training's next click (InterFormer's): random, but well inside the larger error.

    Without clicks so far: the centre of the object (its deepest pixel, first in row-major order), whatever
    the mask. Else drawn uniformly among the pixels of the larger error with distance > max / 1.7, earlier
    clicks cut out first. Shapes, None and errors as in `next_click`.
    """
    if not clicks:
        return next_click(truth_HW, np.zeros(truth_HW.shape, bool), ())
    _check(truth_HW, mask_HW, clicks)
    # Compiled as one, as threads that place the clicks of a batch wait for each other wherever Python is asked.
    given = *_as_compiled(truth_HW, mask_HW), _clicked(clicks)
    # Squared distances are whole: d² > peak · 100/289 is d² > floor(peak · 100/289).
    return _drawn(*pixel_loops.inner_error(*given, *INNER_SQUARED, 0), truth_HW.shape[1], rng)


def num_rounds(gamma: float, max_clicks: int, rng: Rng) -> int:
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


def _as_compiled(truth_HW: Truth, mask_HW: Mask) -> tuple[Truth, NDArray[np.bool_]]:
    """Both as the compiled loops take them."""
    if len(truth_HW) > HIGHEST_IMAGE:
        raise ValueError(f"truth is {len(truth_HW)} px high; distances are kept for at most {HIGHEST_IMAGE}")
    mask = mask_HW if mask_HW.dtype == np.bool_ else mask_HW != 0
    return np.ascontiguousarray(truth_HW, np.int8), np.ascontiguousarray(mask)


def _clicked(clicks: Sequence[Click]) -> NDArray[np.int64]:
    return np.array([(click.x, click.y) for click in clicks], np.int64).reshape(-1, 2)


def _drawn(kind: int, places: NDArray[np.int64], width: int, rng: Rng) -> Click | None:
    """One of the places of an error, if there are any."""
    if not len(places):
        return None
    y, x = divmod(int(rng.choice(places)), width)
    return Click(x, y, kind == MISSING)
