"""GFR, the global fusion refiner: corrects the coarse mask over the whole image.

Legend: B objects, N clicks, S side of the network's input, M side of the low-resolution logits (the working grid).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samref.click_disks import click_disks
from samref.refiner.fusion import Fusion, Lateral, to_grid


class GlobalFusionRefiner(nn.Module):
    """Works on the grid of the low-resolution logits: a quarter of the network's input (256² for 1024²)."""

    def __init__(
        self,
        feature_channels: Mapping[str, int],
        *,
        image_size: int,
        mask_size: int,
        width: int,
        blocks: int,
        radius: int,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.radius = radius
        # A power of two: where S is another multiple of M, the refiner sees all at the side M × stride.
        stride = max(2, 1 << (image_size // mask_size).bit_length() - 1)
        self.side = mask_size * stride
        self.fusion = Fusion(feature_channels, width=width, blocks=blocks, stride=stride)

    def lateral(self, image_B3SS: Tensor, features: Mapping[str, Tensor]) -> Lateral:
        """What does not depend on the clicks."""
        return self.fusion.lateral(to_grid(image_B3SS.float(), (self.side, self.side)), features)

    def forward(
        self, lateral: Lateral, coarse_B1MM: Tensor, points_BN2: Tensor, labels_BN: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Refined logits G and error logits E, both B×1×M×M."""
        if self.side != self.image_size:
            points_BN2 = points_BN2 * (self.side / self.image_size)
        disks = click_disks(points_BN2, labels_BN, self.side, self.radius)
        coarse = F.interpolate(coarse_B1MM.sigmoid(), self.side, mode="bilinear", align_corners=False)
        error, detail = self.fusion(lateral, torch.cat([disks, coarse], dim=1))
        return coarse_B1MM + self.fusion.change(error, detail, coarse_B1MM), error
