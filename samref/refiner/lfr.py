"""LFR, the local fusion refiner: one window, at the image's own resolution, where this click changed the mask.

Legend: B objects, H W the frame of masks and clicks (the original image; in training the network's input),
P side of the patch, M side of the low-resolution logits. A window is (left, top, right, bottom), end exclusive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from samref.click_disks import click_disks
from samref.clicks import Click
from samref.pixel_loops import largest_component
from samref.refiner.fusion import Fusion
from samref.refiner.resample import Box, Images, crop
from samref.transfers import to_device

Window = Box

# The constants of FocalClick's focus crop (Chen et al., CVPR 2022), taken over here.
_EXPANSION = 1.4
_SMALLEST_SHARE = 1 / 3
_CLICK_SHARE = 0.2
_SMALLEST_AREA = 10


def _box(mask: NDArray[np.uint8]) -> Window:
    if cv2.countNonZero(mask) < _SMALLEST_AREA:
        return 0, 0, mask.shape[1], mask.shape[0]
    left, top, width, height = cv2.boundingRect(mask)
    return left, top, left + width, top + height


def focus_window(global_mask: NDArray[np.uint8], previous_mask: NDArray[np.uint8], click: Click) -> Window:
    """The window to refine: the connected change that holds the newest click, else the largest one.

    An empty previous mask, or no change at all, gives the object's box; a change smaller than a third of the object's
    height or width gives a square around the click. Expanded by 1.4 about its centre and clipped.

    Args:
        global_mask: H×W, non-zero inside G_t.
        previous_mask: H×W, non-zero inside M_{t-1}.
        click: the newest one, in the masks' frame.
    """
    height, width = global_mask.shape
    left, top, right, bottom = _box(global_mask)
    object_size = (right - left, bottom - top)
    if cv2.countNonZero(previous_mask):
        changed = (cv2.bitwise_xor(global_mask, previous_mask) != 0).astype(np.uint8)
        if cv2.countNonZero(changed):
            left, top, right, bottom = _component(changed, min(click.x, width - 1), min(click.y, height - 1))
            if right - left < object_size[0] * _SMALLEST_SHARE or bottom - top < object_size[1] * _SMALLEST_SHARE:
                half = _CLICK_SHARE * max(object_size)
                left, right = int(click.x - half), int(click.x + half) + 1
                top, bottom = int(click.y - half), int(click.y + half) + 1
    center_x, center_y = (left + right) / 2, (top + bottom) / 2
    half_x, half_y = (right - left) * _EXPANSION / 2, (bottom - top) * _EXPANSION / 2
    left, right = max(0, int(center_x - half_x)), min(width, int(np.ceil(center_x + half_x)))
    top, bottom = max(0, int(center_y - half_y)), min(height, int(np.ceil(center_y + half_y)))
    (left, right), (top, bottom) = _at_least(left, right, width), _at_least(top, bottom, height)
    return left, top, right, bottom


def _component(changed: NDArray[np.uint8], x: int, y: int) -> Window:
    """The box of a pixel's 8-connected component; where it did not change, of the largest one."""
    if changed[y, x]:  # the others need not be found
        left, top, width, height = cv2.floodFill(changed, None, (x, y), 2, flags=8)[3]
        return left, top, left + width, top + height
    return largest_component(changed)  # a fifth of the time of OpenCV's


def _at_least(start: int, end: int, limit: int, smallest: int = 8) -> tuple[int, int]:
    # A window of fewer pixels would be stretched into noise.
    smallest = min(smallest, limit)
    if end - start < smallest:
        start = max(0, min((start + end - smallest) // 2, limit - smallest))
        end = start + smallest
    return start, end


@dataclass(frozen=True)
class Patch:
    """What the local stage makes of one window of each object."""

    windows: Sequence[Window]
    windows_B4: Tensor
    """Left, top, right and bottom of each window, on the device of the maps."""
    change_B1PP: Tensor
    """σ(E)·(D − G): what the patch adds to G_t. Pasting the change leaves sharp what needs no correction."""
    error_B1PP: Tensor
    """Error logits of the patch."""
    refined_B1PP: Tensor
    """The blended logits: the crop of G_t plus the change."""


class LocalFusionRefiner(nn.Module):
    """The fusion design with weights of its own, on a patch of P×P."""

    def __init__(
        self,
        feature_channels: Mapping[str, int],
        *,
        image_size: int,
        patch_size: int,
        width: int,
        blocks: int,
        radius: int,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.patch_size = patch_size
        self.radius = radius
        self.fusion = Fusion(feature_channels, width=width, blocks=blocks, stride=2)

    def forward(
        self,
        images: Sequence[Tensor] | Images,
        features: Mapping[str, Tensor],
        global_B1MM: Tensor,
        windows: Sequence[Window],
        frames: Sequence[tuple[int, int]],
        points_BN2: Tensor,
        labels_BN: Tensor,
    ) -> Patch:
        """Refine one window of each object.

        Args:
            images: each 3×h×w uint8, at its own resolution, covering the same extent as its frame. Those in a list
                are cropped one by one, `Images` all at once: the same to rounding.
            features: of the images.
            global_B1MM: logits of the GFR.
            windows: in px of the frames.
            frames: (H, W) of each object's masks and clicks.
            points_BN2: clicks in px of the network's input.
            labels_BN: 1, 0 or -1.
        """
        sizes = images.sizes if isinstance(images, Images) else [image.shape[1:] for image in images]
        on_images = [_on_image(*each) for each in zip(windows, frames, sizes, strict=True)]
        shares = [
            (left / width, top / height, right / width, bottom / height)
            for (left, top, right, bottom), (height, width) in zip(windows, frames, strict=True)
        ]
        boxes_3B4 = torch.tensor([windows, on_images, shares], dtype=torch.float32)
        windows_B4, on_images_B4, shares_B4 = to_device(boxes_3B4, global_B1MM.device)
        maps = features, global_B1MM, shares_B4, points_BN2, labels_BN
        if isinstance(images, Images):
            refined = self.refine(images.pixels_B3hw, on_images_B4, *maps)
        else:
            refined = self.refine(_crop_images(images, on_images, self.patch_size), None, *maps)
        return Patch(windows, windows_B4, *refined)

    def refine(
        self,
        pixels_B3hw: Tensor,
        on_images_B4: Tensor | None,
        features: Mapping[str, Tensor],
        global_B1MM: Tensor,
        boxes_B4: Tensor,
        points_BN2: Tensor,
        labels_BN: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What of `forward` the device does, of one shape whatever the windows: change, error and refined of a Patch.

        Args:
            pixels_B3hw: the images.
            on_images_B4: the windows in px of the images; None where the images are the windows' pixels already.
            features: of the images.
            global_B1MM: logits of the GFR.
            boxes_B4: the windows as shares of the frames' sides.
            points_BN2: clicks in px of the network's input.
            labels_BN: 1, 0 or -1.
        """
        size = self.patch_size
        patches_B3PP = pixels_B3hw if on_images_B4 is None else crop(pixels_B3hw, on_images_B4, size)
        logits = sample_boxes(global_B1MM, boxes_B4, size)
        # A quarter of the working grid's side in embedding cells is what the four-fold upsampler brings to the grid;
        # high-resolution features keep their ratio to the embedding.
        cells = features["embedding"].shape[-1]
        crops = {
            name: sample_boxes(feature, boxes_B4, size // 8 * feature.shape[-1] // cells)
            for name, feature in features.items()
        }
        offset, extent = boxes_B4[:, None, :2], boxes_B4[:, None, 2:] - boxes_B4[:, None, :2]
        points = ((points_BN2 + 0.5) / self.image_size - offset) / extent * size - 0.5
        disks = click_disks(points, labels_BN, size, self.radius)
        lateral = self.fusion.lateral(patches_B3PP, crops)
        error, detail = self.fusion(lateral, torch.cat([disks, logits.sigmoid()], dim=1))
        error, detail = (F.interpolate(grid, size, mode="bilinear", align_corners=False) for grid in (error, detail))
        change = self.fusion.change(error, detail, logits)
        return change, error, logits + change


def _crop_images(images: Sequence[Tensor], windows: Sequence[Window], size: int) -> Tensor:
    crops = []
    for image, (left, top, right, bottom) in zip(images, windows, strict=True):
        own = image[None, :, top:bottom, left:right]
        # CUDA has no antialiased resize of bytes (torch 2.15), hence the float.
        own = own.float() if own.is_cuda else own
        crops.append(F.interpolate(own, (size, size), mode="bilinear", antialias=True)[0].float())
    return torch.stack(crops)


def _on_image(window: Window, frame: tuple[int, int], image: Sequence[int]) -> Window:
    """The window of a frame in px of an image of this height and width, which covers the same extent."""
    scale_y, scale_x = image[0] / frame[0], image[1] / frame[1]
    left, top = int(window[0] * scale_x), int(window[1] * scale_y)
    right, bottom = int(np.ceil(window[2] * scale_x)), int(np.ceil(window[3] * scale_y))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def sample_boxes(maps_BChw: Tensor, boxes_B4: Tensor, size: int) -> Tensor:
    """Bilinear crops B×C×size×size of one box a map; boxes (left, top, right, bottom) as shares of the sides."""
    steps = (torch.arange(size, device=maps_BChw.device) + 0.5) / size
    x = boxes_B4[:, :1] + (boxes_B4[:, 2:3] - boxes_B4[:, :1]) * steps
    y = boxes_B4[:, 1:2] + (boxes_B4[:, 3:] - boxes_B4[:, 1:2]) * steps
    grid = torch.stack([x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], dim=-1)
    return F.grid_sample(
        maps_BChw,
        grid.to(maps_BChw.dtype) * 2 - 1,
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )


def paste(previous_HW: Tensor | None, global_HW: Tensor, change_PP: Tensor, window: Window) -> Tensor:
    """M_t: a copy of the previous result, or G_t itself, whose window becomes G_t plus the patch's change.

    Args:
        previous_HW: M_{t-1}, or None to paste on G_t.
        global_HW: G_t; given away, its window is changed in place.
        change_PP: of the patch; resized to the window.
        window: in px of the frame.
    """
    left, top, right, bottom = window
    change = F.interpolate(
        change_PP[None, None],
        (bottom - top, right - left),
        mode="bilinear",
        align_corners=False,
        antialias=True,
    )
    global_HW[top:bottom, left:right] += change[0, 0]
    if previous_HW is None:
        return global_HW
    result = previous_HW.clone()
    result[top:bottom, left:right] = global_HW[top:bottom, left:right]
    return result
