"""Clicks drawn as binary disks, which refiners and SegNext read as an image."""

from __future__ import annotations

import torch
from torch import Tensor


def click_disks(points_BN2: Tensor, labels_BN: Tensor, size: int, radius: int) -> Tensor:
    """Binary disks of the clicks, B×2×S×S: positive, negative; a label of -1 draws nothing.

    Args:
        points_BN2: (x, y) in px of the network's input.
        labels_BN: 1, 0 or -1.
        size: S.
        radius: of a disk, in px.
    """
    batch = len(points_BN2)
    reach = torch.arange(-radius, radius + 1, device=points_BN2.device)
    dy, dx = torch.meshgrid(reach, reach, indexing="ij")
    inside = dx**2 + dy**2 <= radius**2
    x = points_BN2[..., :1].round().long() + dx[inside]
    y = points_BN2[..., 1:].round().long() + dy[inside]
    drawn = (labels_BN >= 0)[..., None] & (x >= 0) & (x < size) & (y >= 0) & (y < size)
    channel = (labels_BN == 0).long()[..., None]
    sample = torch.arange(batch, device=x.device).view(-1, 1, 1)
    flat = ((sample * 2 + channel) * size + y) * size + x
    disks = torch.zeros(batch * 2 * size * size, device=x.device)
    disks[flat[drawn]] = 1.0
    return disks.view(batch, 2, size, size)
