"""LFR, the local fusion refiner: one window, at the image's own resolution, where this click changed the mask.

Legend: B objects, H W the frame of masks and clicks (the original image; in training the network's input),
P side of the patch, M side of the low-resolution logits. A window is (left, top, right, bottom), end exclusive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samref.click_disks import click_disks
from samref.refiner.fusion import Fusion
from samref.refiner.resample import Box, Images, crop
from samref.transfers import to_device

Window = Box


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
            patches_B3PP = crop(images.pixels_B3hw, on_images_B4, self.patch_size)
        else:
            patches_B3PP = _crop_images(images, on_images, self.patch_size)
        return Patch(windows, windows_B4, *self.refine(patches_B3PP, *maps))

    def refine(
        self,
        patches_B3PP: Tensor,
        features: Mapping[str, Tensor],
        global_B1MM: Tensor,
        boxes_B4: Tensor,
        points_BN2: Tensor,
        labels_BN: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What of `forward` is of one shape whatever images and windows: change, error and refined of a Patch.

        Args:
            patches_B3PP: the windows' pixels.
            features: of the images.
            global_B1MM: logits of the GFR.
            boxes_B4: the windows as shares of the frames' sides.
            points_BN2: clicks in px of the network's input.
            labels_BN: 1, 0 or -1.
        """
        size = self.patch_size
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
