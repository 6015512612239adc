"""FocalClick's focus crop: which window of each object the local stage refines, as compiled loops over masks.

The constants and the rule are those of Chen et al., CVPR 2022. The loops let go of Python's lock: those of a large
batch run side by side, and beside what launches a GPU's next work.

Legend: B objects, M side of the grid of the masks. A window is (left, top, right, bottom), end exclusive.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
from numpy.typing import NDArray

from samref.pixel_loops import Clicks, Kinds, Places, compiled
from samref.refiner.resample import Box

_EXPANSION = 1.4
_SMALLEST_SHARE = 1 / 3
_CLICK_SHARE = 0.2
_SMALLEST_AREA = 10
_SMALLEST_SIDE = 8
"""px; a window of fewer would be stretched into noise."""

_THREADS = 4
_AT_ONCE = 8
"""Objects that are worth a thread: each takes 0.1 ms where masks are smooth, and 0.5 where they are noise."""


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="windows")


def load() -> None:
    """Compile everything, or read what was compiled: before time is measured."""
    mask_1MM = np.ones((1, 8, 8), np.uint8)
    focus_windows(mask_1MM, mask_1MM, np.zeros((1, 2), np.int64), np.full((1, 2), 8, np.int64))


def focus_windows(refined_BMM: Kinds, previous_BMM: Kinds, newest_B2: Clicks, frames_B2: Clicks) -> Clicks:
    """The window of each object, in px of its frame: B×4. The change is looked for on the masks' grid.

    Args:
        refined_BMM: 1 inside G_t, else 0.
        previous_BMM: 1 inside M_{t-1}, else 0.
        newest_B2: x and y of the newest click, in px of the frame.
        frames_B2: height and width of each object's frame.
    """
    if len(refined_BMM) <= _AT_ONCE:
        return _focus_windows(refined_BMM, previous_BMM, newest_B2, frames_B2)
    count = -(-len(refined_BMM) // _AT_ONCE)
    parts = (np.array_split(values, count) for values in (refined_BMM, previous_BMM, newest_B2, frames_B2))
    return np.concatenate(list(_threads().map(_focus_windows, *parts)))


@compiled
def _focus_windows(refined_BMM: Kinds, previous_BMM: Kinds, newest_B2: Clicks, frames_B2: Clicks) -> Clicks:
    windows_B4 = np.empty((len(refined_BMM), 4), np.int64)
    for i in range(len(refined_BMM)):
        side = refined_BMM.shape[1]
        height, width = frames_B2[i]
        scale_x, scale_y = width / side, height / side
        x, y = int(newest_B2[i, 0] / scale_x), int(newest_B2[i, 1] / scale_y)
        left, top, right, bottom = focus_window(refined_BMM[i], previous_BMM[i], x, y)
        windows_B4[i, 0], windows_B4[i, 1] = int(left * scale_x), int(top * scale_y)
        windows_B4[i, 2] = min(width, int(np.ceil(right * scale_x)))
        windows_B4[i, 3] = min(height, int(np.ceil(bottom * scale_y)))
    return windows_B4


@compiled
def focus_window(refined_HW: Kinds, previous_HW: Kinds, x: int, y: int) -> Box:
    """The connected change that holds the newest click, else the largest one; expanded by 1.4 and clipped.

    An empty previous mask, or no change at all, gives the object's box; a change smaller than a third of the object's
    height or width gives a square around the click.

    Args:
        refined_HW: 1 inside G_t, else 0.
        previous_HW: 1 inside M_{t-1}, else 0.
        x: column of the newest click, in the masks' frame.
        y: its row.
    """
    height, width = refined_HW.shape
    left, top, right, bottom = _object_box(refined_HW)
    object_width, object_height = right - left, bottom - top
    changed_HW = refined_HW ^ previous_HW
    if previous_HW.any() and changed_HW.any():
        left, top, right, bottom = component(changed_HW, min(x, width - 1), min(y, height - 1))
        if right - left < object_width * _SMALLEST_SHARE or bottom - top < object_height * _SMALLEST_SHARE:
            half = _CLICK_SHARE * max(object_width, object_height)
            left, right = int(x - half), int(x + half) + 1
            top, bottom = int(y - half), int(y + half) + 1
    left, right = _expanded(left, right, width)
    top, bottom = _expanded(top, bottom, height)
    return left, top, right, bottom


@compiled
def _object_box(mask_HW: Kinds) -> Box:
    """The box of what is set; all of the map where that is next to nothing."""
    height, width = mask_HW.shape
    area, left, top, right, bottom = 0, width, height, 0, 0
    for y in range(height):
        row = mask_HW[y]
        count = 0
        for x in range(width):
            count += row[x]
        if count:
            area, top, bottom = area + count, min(top, y), y + 1
            first, last = 0, width - 1
            while not row[first]:
                first += 1
            while not row[last]:
                last -= 1
            left, right = min(left, first), max(right, last + 1)
    return (left, top, right, bottom) if area >= _SMALLEST_AREA else (0, 0, width, height)


@compiled
def _expanded(start: int, end: int, limit: int) -> tuple[int, int]:
    """A stretch expanded about its centre, clipped, and not too short."""
    center, half = (start + end) / 2, (end - start) * _EXPANSION / 2
    start, end = max(0, int(center - half)), min(limit, int(np.ceil(center + half)))
    smallest = min(_SMALLEST_SIDE, limit)
    if end - start < smallest:
        start = max(0, min((start + end - smallest) // 2, limit - smallest))
        end = start + smallest
    return start, end


@compiled
def component(set_HW: Kinds, x: int, y: int) -> Box:
    """The box of the 8-connected component of a pixel, or where that is 0, of the component of most pixels.

    Among equals it is the one whose first 2×2 block of pixels comes first, in row-major order, as OpenCV counts
    components. A row's runs are joined with those that they touch in the row before.
    """
    height, width = set_HW.shape
    most = height * ((width + 1) // 2)
    parent, ends = np.empty(most, np.int32), np.empty((most, 2), np.int32)
    # Of each component, at its root: pixels, first block, and box.
    area, first, box = np.empty(most, np.int64), np.empty(most, np.int64), np.empty((most, 4), np.int32)
    runs = above_from = 0
    best = -1
    for row in range(height):
        row_from, candidate, column = runs, above_from, 0
        while column < width:
            if not set_HW[row, column]:
                column += 1
                continue
            start = column
            while column < width and set_HW[row, column]:
                column += 1
            parent[runs], ends[runs, 0], ends[runs, 1] = runs, start, column
            area[runs], first[runs] = column - start, (row // 2) * ((width + 1) // 2) + start // 2
            box[runs, 0], box[runs, 1], box[runs, 2], box[runs, 3] = start, row, column, row + 1
            while candidate < row_from and ends[candidate, 1] < start:
                candidate += 1
            touching = candidate
            while touching < row_from and ends[touching, 0] <= column:
                _join(parent, area, first, box, _root(parent, touching), _root(parent, runs))
                touching += 1
            if row == y and start <= x < column:
                best = runs
            runs += 1
        above_from = row_from
    if best >= 0:
        best = _root(parent, best)
    else:
        for run in range(runs):
            if parent[run] == run and (
                best < 0 or area[run] > area[best] or (area[run] == area[best] and first[run] < first[best])
            ):
                best = run
    return box[best, 0], box[best, 1], box[best, 2], box[best, 3]


@compiled
def _root(parent: Places, run: int) -> int:
    while parent[run] != run:
        parent[run] = parent[parent[run]]
        run = parent[run]
    return run


@compiled
def _join(parent: Places, area: Clicks, first: Clicks, box: NDArray[np.int32], root: int, other: int) -> None:
    if root == other:
        return
    parent[other] = root
    area[root] += area[other]
    first[root] = min(first[root], first[other])
    for side in range(2):
        box[root, side] = min(box[root, side], box[other, side])
        box[root, 2 + side] = max(box[root, 2 + side], box[other, 2 + side])
