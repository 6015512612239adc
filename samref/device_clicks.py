"""The evaluation's judgement on a GPU: wrong pixels and next click of many masks at once, by Triton's kernels.

The same results as samref.clicks, pixel for pixel, so that only clicks and counts travel and masks stay. Everything is
whole numbers. Only the deepest wrong pixel is wanted, so the exact depth is taken of few pixels:

1. `_columns` walks down and up the columns once: how far the next pixel is that is not wrong in the same way.
2. `_samples` takes the depth of the pixel in the middle of each block, from the distances along its row. The largest is
   what all others must reach.
3. `_blocks` takes the depth of every pixel where one can be as deep, first by blocks and then by smaller parts of them:
   from one pixel to its neighbour depth grows by one at most, and it is no larger than the distance along the column.

A pixel that leads is one number: its squared depth, then whether it is EXTRA (which wins over MISSING), then how early
it comes in row-major order. So the largest number wins, whatever the order in which the card works.

Legend: B masks, H W their common frame; a truth smaller than it is padded with ignored pixels, which changes nothing.
"""

# Triton reads annotations itself, and its functions carry no types that mypy could know.
# mypy: disable-error-code="no-untyped-def, misc, no-untyped-call, untyped-decorator"

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from samref.clicks import Click
from samref.threads import LAUNCHING

LARGEST_IMAGE = 2**15
"""px along a side; more would not fit into the numbers here."""

_ROWS: tl.constexpr = tl.constexpr(16)  # of a block; as many bits have an exact float32
_COLUMNS: tl.constexpr = tl.constexpr(32)
_PARTS: tl.constexpr = tl.constexpr(8)  # of 8×8 pixels in a block
_RADIUS: tl.constexpr = tl.constexpr(18)  # from a block's middle to its farthest pixel, rounded up
_AT_ONCE: tl.constexpr = tl.constexpr(128)  # offsets of a look along a row
_STEPS: tl.constexpr = tl.constexpr(8)  # offsets between two looks at whether farther ones still matter


@triton.jit
def _kind(truth, mask, place, inside):
    """0 right, 1 missing, 2 extra."""
    true = tl.load(truth + place, mask=inside, other=-1)
    predicted = tl.load(mask + place, mask=inside, other=0)
    return tl.where(predicted != 0, tl.where(true == 0, 2, 0), tl.where(true == 1, 1, 0))


@triton.jit
def _highest_bit(bits):
    """Position of the highest bit of a positive number that float32 holds exactly."""
    return (bits.to(tl.float32).to(tl.int32, bitcast=True) >> 23) - 127


@triton.jit
def _columns(truth, mask, sample, columns, highest, counts, height, width):
    """columns: the distance along the column, of extra pixels negative; highest: the largest of each block."""
    b = tl.program_id(1).to(tl.int64)
    x = tl.program_id(0) * _COLUMNS + tl.arange(0, _COLUMNS)[None, :]
    row = tl.arange(0, _ROWS)[:, None]
    truth += tl.load(sample + b) * height * width
    mask += b * height * width
    columns += b * height * width
    missing = tl.zeros((_ROWS, _COLUMNS), tl.int32)
    extra = tl.zeros((_ROWS, _COLUMNS), tl.int32)
    start = tl.zeros((1, _COLUMNS), tl.int32)
    for first in range(0, height, _ROWS):
        y = first + row
        inside = (y < height) & (x < width)
        place = y * width + x
        kind = _kind(truth, mask, place, inside)
        above = _kind(truth, mask, place - width, inside & (y > 0))
        missing += tl.where(kind == 1, 1, 0)
        extra += tl.where(kind == 2, 1, 0)
        # A bit for each row whose pixel differs from the one above: the highest up to a row is where its run starts.
        begins = tl.sum(tl.where(kind != above, 1 << row, 0), axis=0, keep_dims=True)
        so_far = begins & ((2 << row) - 1)
        steps = y - tl.where(so_far > 0, first + _highest_bit(so_far), start) + 1
        tl.store(columns + place, tl.where(kind == 1, steps, tl.where(kind == 2, -steps, 0)).to(tl.int16), mask=inside)
        start = tl.where(begins > 0, first + _highest_bit(begins), start)
    tl.atomic_add(counts + 2 * b, tl.sum(missing))
    tl.atomic_add(counts + 2 * b + 1, tl.sum(extra))
    tl.debug_barrier()  # other threads of the program read what was stored
    num_rows = tl.cdiv(height, _ROWS)
    end = tl.zeros((1, _COLUMNS), tl.int32) + height
    for block in range(0, num_rows):
        first = (num_rows - 1 - block) * _ROWS
        y = first + row
        inside = (y < height) & (x < width)
        place = y * width + x
        own = tl.load(columns + place, mask=inside, other=0).to(tl.int32)
        below = tl.load(columns + place + width, mask=inside & (y + 1 < height), other=0).to(tl.int32)
        differs = (own > 0) != (below > 0)
        differs = differs | ((own < 0) != (below < 0))
        ends = tl.sum(tl.where(differs, 1 << row, 0), axis=0, keep_dims=True)
        from_here = ends >> row
        steps = tl.where(from_here > 0, y + _highest_bit(from_here & -from_here), end) - y + 1
        nearest = tl.minimum(tl.abs(own), steps)
        tl.store(columns + place, tl.where(own > 0, nearest, -nearest).to(tl.int16), mask=inside)
        end = tl.where(ends > 0, first + _highest_bit(ends & -ends), end)
        largest = tl.max(tl.max(nearest, axis=1), axis=0)
        tl.store(highest + (b * num_rows + first // _ROWS) * tl.num_programs(0) + tl.program_id(0), largest)


@triton.jit
def _leader(squared, own, place):
    """The number of a pixel that may lead."""
    number = (
        (squared.to(tl.int64) << 33) | (tl.where(own < 0, 1, 0).to(tl.int64) << 32) | (0xFFFFFFFF - place.to(tl.int64))
    )
    return tl.where(squared > 0, number, 0)


@triton.jit
def _across(columns, place, x, width, own, inside, offset):
    """Squared distance by way of the two pixels of the row that are `offset` away: those wrong in another way are 0."""
    left = tl.load(columns + place - offset, mask=inside & (x >= offset), other=0).to(tl.int32)
    right = tl.load(columns + place + offset, mask=inside & (x + offset < width), other=0).to(tl.int32)
    nearest = tl.minimum(tl.abs(left), tl.abs(right))
    alike = ((left > 0) == (own > 0)) & ((right > 0) == (own > 0)) & (left != 0) & (right != 0)
    return tl.where(alike, nearest * nearest, 0) + offset * offset


@triton.jit
def _bound(near):
    """What squared depths in a part of 8×8 pixels are at most, given that of the pixel in its middle."""
    bound = tl.sqrt(near.to(tl.float32)).to(tl.int32) + 1 + 6
    return bound * bound


@triton.jit(do_not_specialize=["num_clicks"])
def _samples(columns, highest, clicked, num_clicks, depths, best, height, width):
    """depths: squared, of the pixel in the middle of each block."""
    b = tl.program_id(1).to(tl.int64)
    block = tl.program_id(0)
    at = b * tl.num_programs(0) + block
    columns += b * height * width
    if tl.load(highest + at) > 0:
        blocks = tl.cdiv(width, _COLUMNS)
        y = tl.minimum(block // blocks * _ROWS + _ROWS // 2, height - 1)
        x = tl.minimum(block % blocks * _COLUMNS + _COLUMNS // 2, width - 1)
        own = tl.load(columns + y * width + x).to(tl.int32)
        squared = own * own
        offset = 1
        while offset * offset < squared:
            offsets = offset + tl.arange(0, _AT_ONCE)
            by_way = _across(columns, y * width + x, x, width, own, offsets > 0, offsets)
            squared = tl.minimum(squared, tl.min(by_way, axis=0))
            offset += _AT_ONCE
        tl.store(depths + at, squared)
        candidate = squared
        for i in range(num_clicks):
            click = clicked + (b * num_clicks + i) * 2
            is_clicked = (tl.load(click) == x) & (tl.load(click + 1) == y)
            candidate = tl.where(is_clicked, 0, candidate)
        tl.atomic_max(best + b, _leader(candidate, own, y * width + x))


@triton.jit(do_not_specialize=["num_clicks"])
def _blocks(columns, highest, clicked, num_clicks, depths, best, height, width):
    """best: the leading pixel's number; 0 where nothing is wrong, or all that is was clicked."""
    b = tl.program_id(1).to(tl.int64)
    block = tl.program_id(0)
    at = b * tl.num_programs(0) + block
    columns += b * height * width
    largest = tl.load(highest + at)
    if largest > 0:
        # What others find meanwhile may be missed here: that costs time, not truth.
        to_reach = (tl.load(best + b) >> 33).to(tl.int32)
        root = tl.sqrt(tl.load(depths + at).to(tl.float32)).to(tl.int32)
        bound = tl.minimum(largest, root + 1 + _RADIUS)
        if bound * bound >= to_reach:
            # Again by the pixels in the middles, of parts of 8×8 pixels.
            blocks = tl.cdiv(width, _COLUMNS)
            part = tl.arange(0, _PARTS)[:, None]
            top = block // blocks * _ROWS + part // (_COLUMNS // 8) * 8
            left = block % blocks * _COLUMNS + part % (_COLUMNS // 8) * 8
            y = tl.minimum(top + 4, height - 1)
            x = tl.minimum(left + 4, width - 1)
            own = tl.load(columns + y * width + x).to(tl.int32)
            near = own * own
            alive = tl.max(tl.max(tl.where(_bound(near) >= to_reach, near, 0), axis=1), axis=0)
            offset = 1
            while offset * offset < alive:
                offsets = offset + tl.arange(0, 64)[None, :]
                by_way = _across(columns, y * width + x, x, width, own, offsets > 0, offsets)
                near = tl.minimum(near, tl.min(by_way, axis=1, keep_dims=True))
                alive = tl.max(tl.max(tl.where(_bound(near) >= to_reach, near, 0), axis=1), axis=0)
                offset += 64
            pixel = tl.arange(0, 64)[None, :]
            y = top + pixel // 8
            x = left + pixel % 8
            inside = (y < height) & (x < width) & (_bound(near) >= to_reach)
            place = y * width + x
            own = tl.load(columns + place, mask=inside, other=0).to(tl.int32)
            squared = own * own
            alive = tl.max(tl.max(tl.where(squared >= to_reach, squared, 0), axis=1), axis=0)
            offset = 1
            while offset * offset < alive:
                for step in tl.static_range(_STEPS):
                    squared = tl.minimum(squared, _across(columns, place, x, width, own, inside, offset + step))
                alive = tl.max(tl.max(tl.where(squared >= to_reach, squared, 0), axis=1), axis=0)
                offset += _STEPS
            if alive > 0:
                for i in range(num_clicks):
                    click = clicked + (b * num_clicks + i) * 2
                    is_clicked = (tl.load(click) == x) & (tl.load(click + 1) == y)
                    squared = tl.where(is_clicked, 0, squared)
                # RIGHT pixels have a depth of 0; those that cannot lead, whose depth is a bound, do not lead with it.
                tl.atomic_max(best + b, tl.max(tl.max(_leader(squared, own, place), axis=1), axis=0))


def judge(truth_SHW: Tensor, sample_B: Tensor, mask_BHW: Tensor, clicked_BN2: Tensor) -> Tensor:
    """The leading pixel of each mask by RITM's rule (samref.clicks.next_click), and how many are missing and extra.

    Nothing here waits for the device; `clicks` reads the result.

    Args:
        truth_SHW: int8; 1 object, 0 background, -1 ignored; contiguous.
        sample_B: int64; which truth is each mask's.
        mask_BHW: bool; contiguous.
        clicked_BN2: int32; x and y of the clicks so far, -1 where one has fewer.

    Returns:
        B×3 int64.
    """
    (batch, height, width), device = mask_BHW.shape, mask_BHW.device
    if max(height, width) > LARGEST_IMAGE:
        raise ValueError(f"images are {width}×{height} px; a GPU evaluates at most {LARGEST_IMAGE} px along a side")
    grid = (triton.cdiv(width, _COLUMNS.value), triton.cdiv(height, _ROWS.value))
    num_blocks = grid[0] * grid[1]
    columns = torch.empty(mask_BHW.shape, dtype=torch.int16, device=device)
    # Tensors of their own: Triton would compile anew for a part of one, if it began elsewhere in a word.
    highest, depths = (torch.empty(batch, num_blocks, dtype=torch.int32, device=device) for _ in range(2))
    best = torch.zeros(batch, 1, dtype=torch.int64, device=device)
    counts = torch.zeros(batch, 2, dtype=torch.int64, device=device)
    where = (highest, clicked_BN2, clicked_BN2.shape[1], depths, best, height, width)
    with LAUNCHING, torch.cuda.device_of(mask_BHW):
        _columns[(grid[0], batch)](truth_SHW, mask_BHW, sample_B, columns, highest, counts, height, width)
        _samples[(num_blocks, batch)](columns, *where, num_warps=1)
        _blocks[(num_blocks, batch)](columns, *where)
    return torch.cat([best, counts], dim=1)


def load(device: torch.device | str) -> None:
    """Compile the kernels, or read what was compiled: before time is measured."""
    mask_BHW = torch.zeros(1, 32, 32, dtype=torch.bool, device=device)
    sample_B = torch.zeros(1, dtype=torch.int64, device=device)
    clicked_BN2 = torch.zeros(1, 1, 2, dtype=torch.int32, device=device)
    judge(mask_BHW.to(torch.int8), sample_B, mask_BHW, clicked_BN2)


def clicks(leaders: Sequence[int], width: int) -> list[Click | None]:
    """The next clicks, from the first column of what `judge` gives; width W of the common frame."""
    found: list[Click | None] = []
    for leader in leaders:
        y, x = divmod(0xFFFFFFFF - (leader & 0xFFFFFFFF), width)
        found.append(Click(x, y, not (leader >> 32) & 1) if leader else None)
    return found
