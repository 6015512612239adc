"""The loops over pixels that no library has as one pass, compiled by numba when first called.

The compiled code is kept beside this file or in the user's cache, so it is made once a machine, in seconds. The loops
let go of Python's lock: threads run them side by side. Loops over one row are functions of their own, as the compiler
turns those into vector instructions and longer ones not (numba 0.68; five times slower).

The depth of a wrong pixel is its distance to the nearest pixel that is not wrong in the same way, or lies outside the
image. Squared it is a whole number, and nothing here is rounded. As by Felzenszwalb and Huttenlocher (2012) it is the
least (x - x')² + c(y, x')² over the pixels x' of its row, where c is the distance along the column; but a pixel whose
c, or whose neighbour's depth, is too small to matter is not looked at further.

Legend: H W the image, kind_HW what is wrong (RIGHT, MISSING or EXTRA), column_HW distances along the column in px.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

RIGHT, MISSING, EXTRA = 0, 1, 2
HIGHEST_IMAGE = 2**16 - 1
"""px; distances along a column are kept in 16 bits."""

_STRIDE = 32
"""How far apart the rows are that are looked at first; measured on DAVIS, like `_CHUNK`, and of little effect."""
_CHUNK = 64
"""Pixels of a row that are passed over at once."""

Kinds = NDArray[np.uint8]
Steps = NDArray[np.uint16]
Logits = NDArray[np.float32]
Places = NDArray[np.int32]
Clicks = NDArray[np.int64]
Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile a function, when it is first called or for good."""
    try:
        return cast(Function, njit(nogil=True, cache=True)(function))
    except RuntimeError:  # neither the installation nor the user's home can be written
        return cast(Function, njit(nogil=True)(function))


def load() -> None:
    """Compile everything, or read what was compiled: before time is measured."""
    truth_11, mask_11, none = np.ones((1, 1), np.int8), np.zeros((1, 1), np.bool_), np.zeros((0, 2), np.int64)
    kind_11 = kinds(truth_11, mask_11)
    deepest(kind_11, none)
    above(np.zeros((1, 1), np.float32), 1, 1, 0.0)
    inner_error(truth_11, mask_11, none, 1, 1, 1)


@compiled
def kinds(truth_HW: NDArray[np.int8], mask_HW: NDArray[np.bool_]) -> Kinds:
    """What is wrong at each pixel. truth_HW: 1 object, 0 background, -1 ignored, which is never wrong."""
    kind_HW = np.empty(truth_HW.shape, np.uint8)
    for y in range(truth_HW.shape[0]):
        _kinds_of_row(truth_HW[y], mask_HW[y], kind_HW[y])
    return kind_HW


@compiled
def _kinds_of_row(truth: NDArray[np.int8], mask: NDArray[np.bool_], kind: Kinds) -> None:
    for x in range(truth.shape[0]):
        missing = (truth[x] == 1) & (not mask[x])
        extra = (truth[x] == 0) & mask[x]
        kind[x] = np.uint8(missing) | (np.uint8(extra) << np.uint8(1))


@compiled
def _wrong_rows(kind_HW: Kinds) -> tuple[int, Kinds]:
    """The first row where something is wrong, and those from it to the last. Others are like rows outside the image."""
    first, end = 0, kind_HW.shape[0]
    while first < end and not _any(kind_HW[first]):
        first += 1
    while end > first and not _any(kind_HW[end - 1]):
        end -= 1
    return first, kind_HW[first:end]


@compiled
def _any(kind: Kinds) -> bool:
    every = np.uint8(0)
    for x in range(kind.shape[0]):
        every |= kind[x]
    return bool(every != 0)


@compiled
def columns(kind_HW: Kinds) -> Steps:
    """For each pixel the steps along its column to one of another kind or outside, 0 where nothing is wrong. At most
    HIGHEST_IMAGE rows."""
    height, width = kind_HW.shape
    column_HW = np.empty((height, width), np.uint16)
    outside, zeros = np.zeros(width, np.uint8), np.zeros(width, np.uint16)
    for y in range(height):
        _steps(kind_HW[y], kind_HW[y - 1] if y else outside, column_HW[y - 1] if y else zeros, column_HW[y])
    for y in range(height - 1, -1, -1):
        last = y == height - 1
        _fewer_steps(kind_HW[y], outside if last else kind_HW[y + 1], zeros if last else column_HW[y + 1], column_HW[y])
    return column_HW


@compiled
def _steps(kind: Kinds, kind_before: Kinds, before: Steps, column: Steps) -> None:
    for x in range(kind.shape[0]):
        steps = np.uint16((before[x] if kind[x] == kind_before[x] else np.uint16(0)) + np.uint16(1))
        column[x] = steps if kind[x] != RIGHT else np.uint16(0)


@compiled
def _fewer_steps(kind: Kinds, kind_before: Kinds, before: Steps, column: Steps) -> None:
    for x in range(kind.shape[0]):
        steps = np.uint16((before[x] if kind[x] == kind_before[x] else np.uint16(0)) + np.uint16(1))
        column[x] = steps if steps < column[x] else column[x]


@compiled
def _squared_depth(kind: Kinds, column: Steps, x: int, above: int) -> int:
    """The squared depth of a wrong pixel of a row; where that is at most `above`, a number between it and `above`."""
    own, width = kind[x], kind.shape[0]
    squared = np.int64(column[x]) ** 2
    offset = 1
    while offset * offset < squared and squared > above:
        nearest = np.int64(0)
        if offset <= x < width - offset and kind[x - offset] == own and kind[x + offset] == own:
            nearest = np.int64(min(column[x - offset], column[x + offset]))
        squared = min(squared, nearest**2 + offset**2)
        offset += 1
    return int(squared)


@compiled
def deepest(kind_HW: Kinds, clicked_N2: Clicks) -> tuple[int, int, int]:
    """The kind of the deepest pixel that was not clicked (EXTRA, if both are as deep), its squared depth in px², and
    its place, y·W + x: the first of equals. Depth 0: there is none.

    clicked_N2: x and y of each click.
    """
    first, wrong_HW = _wrong_rows(kind_HW)
    clicked = clicked_N2.copy()
    clicked[:, 1] -= first
    kind, squared, place = _deepest(wrong_HW, columns(wrong_HW), clicked)
    return kind, squared, first * kind_HW.shape[1] + place


@compiled
def _deepest(wrong_HW: Kinds, column_HW: Steps, clicked: Clicks) -> tuple[int, int, int]:
    # A few rows tell what is worth looking at in the others.
    missing, _, extra, _ = _look(wrong_HW, column_HW, clicked, _STRIDE // 2, _STRIDE, 0, 0)
    missing, extra = max(0, missing - 1), max(0, extra - 1)
    missing, place_missing, extra, place_extra = _look(wrong_HW, column_HW, clicked, 0, 1, missing, extra)
    return (MISSING, missing, place_missing) if missing > extra else (EXTRA, extra, place_extra)


@compiled
def inner(kind_HW: Kinds, numerator: int, denominator: int, less: int) -> tuple[int, Clicks]:
    """The kind of the deepest pixel, and the places y·W + x, in rising order, of all of that kind that are deep enough.

    Those are deeper, squared and in px², than the deepest one's numerator / denominator, rounded down, less `less`.
    """
    first, wrong_HW = _wrong_rows(kind_HW)
    column_HW = columns(wrong_HW)
    kind, peak, _ = _deepest(wrong_HW, column_HW, np.zeros((0, 2), np.int64))
    places = deeper(wrong_HW, column_HW, kind, peak * numerator // denominator - less)
    return kind, first * kind_HW.shape[1] + places


@compiled
def inner_error(
    truth_HW: NDArray[np.int8],
    mask_HW: NDArray[np.bool_],
    clicked_N2: Clicks,
    numerator: int,
    denominator: int,
    less: int,
) -> tuple[int, Clicks]:
    """What `inner` gives for the errors of a mask, of which the clicked pixels are cut out."""
    kind_HW = kinds(truth_HW, mask_HW)
    for i in range(len(clicked_N2)):
        kind_HW[clicked_N2[i, 1], clicked_N2[i, 0]] = RIGHT
    return inner(kind_HW, numerator, denominator, less)


@compiled
def deeper(wrong_HW: Kinds, column_HW: Steps, own: int, above: int) -> Clicks:
    """The places y·W + x, in rising order, of the pixels of a kind whose squared depth is more than `above`, in px².

    Each pixel of a row keeps from it those that are as near as its own distance along its column leaves room for.
    """
    height, width = wrong_HW.shape
    above = max(above, 0)
    root = int(np.sqrt(above))
    reach = np.empty(root + 1, np.int32)
    for away in range(root + 1):
        reach[away] = int(np.sqrt(above - away * away))
    places = np.empty(wrong_HW.size, np.int64)
    steps, near = np.empty(width, np.int32), np.empty(width, np.bool_)
    count = 0
    for y in range(height):
        if _steps_of(wrong_HW[y], column_HW[y], own, steps) <= root:
            continue
        _near(steps, reach, near)
        for x in range(width):
            if not near[x]:
                places[count] = y * width + x
                count += 1
    return places[:count].copy()


@compiled
def _steps_of(kind: Kinds, column: Steps, own: int, steps: Places) -> int:
    """The steps along the column, 0 for other kinds; gives the most."""
    most = np.int32(0)
    for x in range(kind.shape[0]):
        steps[x] = np.int32(column[x]) if kind[x] == own else np.int32(0)
        most = max(most, steps[x])
    return int(most)


@compiled
def _near(steps: Places, reach: Places, near: NDArray[np.bool_]) -> None:
    """Say which pixels of a row are as near to another, or to one outside, as `reach` tells for that one's steps."""
    width, last = steps.shape[0], reach.shape[0] - 1
    end = last - 1
    for x in range(width):
        if steps[x] <= last:
            end = max(end, x + reach[steps[x]])
        near[x] = x <= end
    start = width - last
    for x in range(width - 1, -1, -1):
        if steps[x] <= last:
            start = min(start, x - reach[steps[x]])
        near[x] |= x >= start


@compiled
def _look(
    kind_HW: Kinds, column_HW: Steps, clicked_N2: Clicks, row: int, stride: int, missing: int, extra: int
) -> tuple[int, int, int, int]:
    """In every stride-th row, from `row`: the largest squared depth and its first place, of either kind.

    `missing`, `extra`: what these must exceed, and are where nothing does. The less deep kind may be passed over.
    """
    height, width = kind_HW.shape
    place_missing = place_extra = 0
    for y in range(row, height, stride):
        kind, column = kind_HW[y], column_HW[y]
        # Missing ones must be deeper than all others. The extra ones' bound is the lower one.
        above_missing, above_extra = max(missing, extra), max(extra, missing - 1)
        root = int(np.sqrt(above_extra))
        if _largest(column) <= root:
            continue
        x = 0
        while x < width:
            if x % _CHUNK == 0 and _largest(column[x : x + _CHUNK]) <= root:
                x += _CHUNK
                continue
            if column[x] <= root:
                x += 1
                continue
            above = above_missing if kind[x] == MISSING else above_extra
            squared = _squared_depth(kind, column, x, above)
            if squared <= above:
                # From one pixel to the next, depth grows by one at most.
                x += 1 + int(np.sqrt(above) - np.sqrt(squared))
                continue
            if not _is_clicked(clicked_N2, x, y):
                if kind[x] == MISSING:
                    missing, place_missing = squared, y * width + x
                else:
                    extra, place_extra = squared, y * width + x
                above_missing, above_extra = max(missing, extra), max(extra, missing - 1)
                root = int(np.sqrt(above_extra))
            x += 1
    return missing, place_missing, extra, place_extra


@compiled
def _largest(values: Steps) -> int:
    largest = np.uint16(0)
    for x in range(values.shape[0]):
        largest = values[x] if values[x] > largest else largest
    return int(largest)


@compiled
def _is_clicked(clicked_N2: Clicks, x: int, y: int) -> bool:
    for i in range(clicked_N2.shape[0]):  # noqa: SIM110 (numba has no any())
        if clicked_N2[i, 0] == x and clicked_N2[i, 1] == y:
            return True
    return False


@compiled
def above(logits_MM: Logits, height: int, width: int, threshold: float) -> NDArray[np.bool_]:
    """Where logits, resized to height×width (bilinear, as torch's without aligned corners), exceed the threshold.

    Rows are compared while they are resized, so that no logits are written for every pixel.
    """
    left, right, share = _neighbours(logits_MM.shape[1], width)
    wide_MW = np.empty((logits_MM.shape[0], width), np.float32)
    for i in range(logits_MM.shape[0]):
        _resize_row(logits_MM[i], left, right, share, wide_MW[i])
    upper, lower, share = _neighbours(logits_MM.shape[0], height)
    mask_HW = np.empty((height, width), np.bool_)
    for y in range(height):
        _above_between(wide_MW[upper[y]], wide_MW[lower[y]], share[y], np.float32(threshold), mask_HW[y])
    return mask_HW


@compiled
def _neighbours(source: int, target: int) -> tuple[Places, Places, Logits]:
    """For each of `target` places along a side of `source` pixels, the two beside it and the share of the second."""
    first, second = np.empty(target, np.int32), np.empty(target, np.int32)
    share = np.empty(target, np.float32)
    scale = np.float32(source) / np.float32(target)
    for i in range(target):
        place = max(np.float32(0), scale * (np.float32(i) + np.float32(0.5)) - np.float32(0.5))
        first[i] = min(int(place), source - 1)
        second[i] = min(first[i] + 1, source - 1)
        share[i] = place - first[i]
    return first, second, share


@compiled
def _resize_row(row: Logits, left: Places, right: Places, share: Logits, wide: Logits) -> None:
    for x in range(wide.shape[0]):
        wide[x] = row[left[x]] * (np.float32(1) - share[x]) + row[right[x]] * share[x]


@compiled
def _above_between(
    upper: Logits, lower: Logits, share: np.float32, threshold: np.float32, mask: NDArray[np.bool_]
) -> None:
    rest = np.float32(1) - share
    for x in range(mask.shape[0]):
        mask[x] = upper[x] * rest + lower[x] * share > threshold
