"""The evaluation's judgement where the masks are: IoU and next click of many masks at once, in torch, on any device.

The same results as samref.clicks and samref.metrics, pixel for pixel, so that on a GPU only clicks and counts travel
and masks stay. Everything is whole numbers: squared distances are exact. Knows nothing of models.

Legend: B masks, H W their common frame; a truth smaller than it is padded with ignored pixels, which changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from samref.clicks import Click

_CHECK_EVERY = 16  # offsets between two looks at whether farther ones still matter: a look waits for the device


def squared_distances(wrong_BHW: Tensor) -> Tensor:
    """For each pixel of each map the squared distance to the nearest zero or outside pixel: B×H×W int32, exact.

    By axes, as Felzenszwalb and Huttenlocher (2012) tell it: D(y, x) = min over x' of (x - x')² + g(y, x')², where g is
    the distance along the column. All pixels try one offset x - x' after the other; offsets beyond the largest
    distance that is left cannot make one smaller.

    Args:
        wrong_BHW: bool.
    """
    rows = _to_nearest_zero(wrong_BHW)
    columns = _to_nearest_zero(wrong_BHW.transpose(1, 2)).transpose(1, 2)
    column_squared = rows.square()
    # The distance along the row is an upper bound as well, so few offsets are left for most shapes.
    squared = torch.minimum(column_squared, columns.square())
    farthest = int(squared.max()) if squared.numel() else 0
    width = wrong_BHW.shape[2]
    for offset in range(1, width):
        if offset % _CHECK_EVERY == 0:
            farthest = int(squared.max())
        if offset * offset >= farthest:
            break
        near = column_squared[..., :-offset] + offset * offset
        far = column_squared[..., offset:] + offset * offset
        squared[..., offset:] = torch.minimum(squared[..., offset:], near)
        squared[..., :-offset] = torch.minimum(squared[..., :-offset], far)
    return squared


def _to_nearest_zero(wrong_BHW: Tensor) -> Tensor:
    """Along H, the steps to the nearest zero or to the first pixel outside, int32."""
    height = wrong_BHW.shape[1]
    y = torch.arange(height, device=wrong_BHW.device, dtype=torch.int32).view(1, -1, 1)
    above = torch.where(wrong_BHW, -1, y).cummax(1).values
    below = torch.where(wrong_BHW, height, y).flip(1).cummin(1).values.flip(1)
    return torch.minimum(y - above, below - y)


def judge(
    truth_BHW: Tensor, mask_BHW: Tensor, clicks: Sequence[Sequence[Click]]
) -> tuple[list[tuple[int, int, int]], list[Click | None]]:
    """Pixels of the object, missing and extra; and the next click by RITM's rule (samref.clicks.next_click).

    Args:
        truth_BHW: int8; 1 object, 0 background, -1 ignored.
        mask_BHW: bool.
        clicks: so far, of each mask.
    """
    object_BHW = truth_BHW == 1
    wrong_2BHW = torch.stack([object_BHW & ~mask_BHW, (truth_BHW == 0) & mask_BHW])
    counts = torch.stack([object_BHW.sum((1, 2)), *wrong_2BHW.sum((2, 3))], dim=1)
    depth_2BHW = squared_distances(wrong_2BHW.flatten(0, 1)).view(wrong_2BHW.shape)
    places = [(i, click.y, click.x) for i, each in enumerate(clicks) for click in each]
    if places:
        i, y, x = torch.tensor(places, device=truth_BHW.device).unbind(1)
        depth_2BHW[:, i, y, x] = 0
    deepest_2BP = depth_2BHW.flatten(2)
    peaks_2B = deepest_2BP.amax(2)
    # The first of equals in row-major order: torch.max promises no order on a device.
    position = torch.arange(deepest_2BP.shape[2], device=truth_BHW.device)
    first_2B = torch.where(deepest_2BP == peaks_2B[..., None], position, len(position)).amin(2)
    # One transfer for all.
    *columns, missing, extra, on_missing, on_extra = torch.cat([counts.T, peaks_2B, first_2B]).tolist()
    found: list[Click | None] = []
    for peaks, at in zip(zip(missing, extra, strict=True), zip(on_missing, on_extra, strict=True), strict=True):
        positive = peaks[0] > peaks[1]
        y, x = divmod(at[0] if positive else at[1], truth_BHW.shape[2])
        found.append(Click(x, y, positive) if max(peaks) else None)
    return list(zip(*columns, strict=True)), found
