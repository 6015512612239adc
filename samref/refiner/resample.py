"""Resizing boxes of many maps at once, each of a size of its own, as products with matrices of weights.

A bilinear resize, antialiased where it shrinks, is a weighted sum along the rows and then along the columns. With the
weights of every object in a matrix the whole batch takes two products, whatever its boxes are. The same as
`torch.nn.functional.interpolate` to rounding, which has one size for all of a batch.

Legend: B objects, H W the largest of their frames (smaller ones lie in its upper left), h w that of their images,
P side of the patch, M side of the low-resolution logits. A box is (left, top, right, bottom), end exclusive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from samref.transfers import to_device

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Images:
    """Images of several sizes in one tensor; what a smaller one lacks is 0."""

    pixels_B3hw: Tensor
    """RGB, uint8."""
    sizes: Sequence[tuple[int, int]]
    """Height and width of each."""

    @staticmethod
    def stack(images: Sequence[Tensor], *, pinned: bool = False) -> Images:
        """Copies images 3×h×w into one tensor; `pinned` in memory from which CUDA copies while the host goes on."""
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        # Sides are multiples of 32, so that most batches of a dataset are of one shape.
        shape = len(images), 3, *(-(-max(each) // 32) * 32 for each in zip(*sizes, strict=True))
        pixels = torch.zeros(shape, dtype=torch.uint8, device=images[0].device, pin_memory=pinned)
        for image, own in zip(images, pixels, strict=True):
            own[:, : image.shape[1], : image.shape[2]] = image
        return Images(pixels, sizes)

    def to(self, device: torch.device | str) -> Images:
        """Copy the images to a device; the host does not wait until they are there."""
        return Images(to_device(self.pixels_B3hw, device), self.sizes)

    def select(self, index: Sequence[int]) -> Images:
        """Selects the images at these positions, by a copy."""
        positions = to_device(torch.tensor(index), self.pixels_B3hw.device)
        return Images(self.pixels_B3hw[positions], [self.sizes[i] for i in index])


def weights(
    source_B2: Tensor, target_B2: Tensor, num_source: int, num_target: int, *, antialias: bool = True
) -> Tensor:
    """B×num_target×num_source: what each place of the target takes from each of the source; 0 outside of the stretches.

    Args:
        source_B2: the stretch (start, end) that is resized, in px of the source's line.
        target_B2: the stretch that it becomes.
        num_source: length of the source's line.
        num_target: length of the target's line.
        antialias: average where the target is the shorter one; else only the two nearest places count.
    """
    source_extent, target_extent = (ends[:, 1:] - ends[:, :1] for ends in (source_B2, target_B2))
    # In px from the stretches' starts: small numbers have the finest fractions.
    source = torch.arange(num_source, device=source_B2.device) + 0.5 - source_B2[:, :1]
    target = torch.arange(num_target, device=source_B2.device) + 0.5 - target_B2[:, :1]
    scale = source_extent / target_extent
    reach = scale.clamp(min=1) if antialias else torch.ones_like(scale)
    found = 1 - (source[:, None] - (target * scale)[..., None]).abs() / reach[..., None]
    found = found.clamp_(min=0) * ((source > 0) & (source < source_extent))[:, None]
    found /= found.sum(2, keepdim=True).clamp_(min=1e-6)
    return found * ((target > 0) & (target < target_extent))[..., None]


def _stretches(boxes_B4: Tensor) -> tuple[Tensor, Tensor]:
    """Splits boxes into their stretches along the rows (left, right) and along the columns (top, bottom), each B×2."""
    boxes_B22 = boxes_B4.view(-1, 2, 2)
    return boxes_B22[..., 0], boxes_B22[..., 1]


def _whole(boxes_B4: Tensor, size: int) -> Tensor:
    """The stretch from 0 to size, B×2."""
    return torch.arange(2, device=boxes_B4.device).mul(size).float().expand(len(boxes_B4), 2)


def crop(pixels_B3hw: Tensor, boxes_B4: Tensor, size: int) -> Tensor:
    """Crops a box of each image and resizes it, antialiased: B×3×size×size float, 0..255."""
    height, width = pixels_B3hw.shape[2:]
    (across, down), whole = _stretches(boxes_B4), _whole(boxes_B4, size)
    across_BPw = weights(across, whole, width, size)
    down_BPh = weights(down, whole, height, size)
    with torch.autocast(pixels_B3hw.device.type, enabled=False):
        wide = torch.bmm(pixels_B3hw.float().flatten(1, 2), across_BPw.mT).view(-1, 3, height, size)
        return torch.einsum("bph,bchq->bcpq", down_BPh, wide)


def upscale(logits_BMM: Tensor, down_BHM: Tensor, across_BWM: Tensor) -> Tensor:
    """Resizes logits to the frames of these matrices, bilinear: B×H×W, 0 beyond a smaller frame."""
    with torch.autocast(logits_BMM.device.type, enabled=False):
        return torch.bmm(torch.bmm(down_BHM, logits_BMM.float()), across_BWM.mT)


def paste(logits_BHW: Tensor, change_BPP: Tensor, windows_B4: Tensor) -> tuple[Tensor, Tensor]:
    """Adds a patch's change to logits, resized to a window of each; also says where the windows are (bool)."""
    (height, width), size, device = logits_BHW.shape[1:], change_BPP.shape[1], logits_BHW.device
    (across, down), whole = _stretches(windows_B4), _whole(windows_B4, size)
    down_BHP = weights(whole, down, size, height)
    across_BWP = weights(whole, across, size, width)
    with torch.autocast(device.type, enabled=False):
        pasted = torch.baddbmm(logits_BHW, torch.bmm(down_BHP, change_BPP.float()), across_BWP.mT)
    y, x = torch.arange(height, device=device), torch.arange(width, device=device)
    rows = (y >= down[:, :1]) & (y < down[:, 1:])
    columns = (x >= across[:, :1]) & (x < across[:, 1:])
    return pasted, rows[:, :, None] & columns[:, None]


@dataclass(frozen=True)
class Frames:
    """The frames of a batch's masks and clicks, in one that holds the largest; and what resizes logits to them."""

    sizes: Sequence[tuple[int, int]]
    """Height and width of each."""
    largest: tuple[int, int]
    down_BHM: Tensor
    across_BWM: Tensor

    @staticmethod
    def of(sizes: Sequence[tuple[int, int]], mask_size: int, device: torch.device) -> Frames:
        """Make frames of these heights and widths; M is `mask_size`. Sides become multiples of 32, for kernels."""
        height, width = (-(-max(each) // 32) * 32 for each in zip(*sizes, strict=True))
        boxes_B4 = to_device(torch.tensor([(0, 0, w, h) for h, w in sizes], dtype=torch.float32), device)
        (across, down), grid = _stretches(boxes_B4), _whole(boxes_B4, mask_size)
        down_BHM = weights(grid, down, mask_size, height, antialias=False)
        across_BWM = weights(grid, across, mask_size, width, antialias=False)
        return Frames(sizes, (height, width), down_BHM, across_BWM)

    def select(self, index: Sequence[int]) -> Frames:
        """Selects the frames of the objects at these positions; all in their order without a copy."""
        if list(index) == list(range(len(self.sizes))):
            return self
        positions = to_device(torch.tensor(index), self.down_BHM.device)
        sizes = [self.sizes[i] for i in index]
        return Frames(sizes, self.largest, self.down_BHM[positions], self.across_BWM[positions])

    def on_grid(self, masks_BHW: Tensor, side: int) -> Tensor:
        """Samples masks at the centres of the cells of a grid: B×side×side, nearest neighbour."""
        device = masks_BHW.device
        sizes_B2 = to_device(torch.tensor(self.sizes, dtype=torch.float32), device)
        places = ((torch.arange(side, device=device) + 0.5) * (sizes_B2[..., None] / side)).long()  # B×2×side
        sample = torch.arange(len(masks_BHW), device=device)[:, None, None]
        return masks_BHW[sample, places[:, 0, :, None], places[:, 1, None, :]]
