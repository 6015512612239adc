"""Clicks drawn as binary disks, which refiners and SegNext read as an image."""

from functools import cache

import torch
from torch import Tensor


def click_disks(points_BN2: Tensor, labels_BN: Tensor, size: int, radius: int) -> Tensor:
    """Binary disks of the clicks, B×2×S×S: positive, negative; a label of -1 draws nothing.

    points_BN2: (x, y) in px of the network's input. radius: of a disk, in px.
    """
    batch = len(points_BN2)
    offset_P2 = _disk(radius, points_BN2.device)
    x, y = (points_BN2.round().long()[..., None, :] + offset_P2).unbind(-1)
    drawn = (labels_BN >= 0)[..., None] & (x >= 0) & (x < size) & (y >= 0) & (y < size)
    channel = (labels_BN == 0).long()[..., None]
    sample = torch.arange(batch, device=x.device).view(-1, 1, 1)
    flat = ((sample * 2 + channel) * size + y) * size + x
    # What is not drawn falls on one place too many: to leave it out, the host would have to wait for its number.
    disks = torch.zeros(batch * 2 * size * size + 1, device=x.device)
    disks.index_fill_(0, torch.where(drawn, flat, disks.numel() - 1).flatten(), 1.0)
    return disks[:-1].view(batch, 2, size, size)


@cache
def _disk(radius: int, device: torch.device) -> Tensor:
    """x and y of a disk's pixels about its centre, P×2; kept on the device, as to send it makes the host wait."""
    reach = range(-radius, radius + 1)
    return torch.tensor([(x, y) for y in reach for x in reach if x**2 + y**2 <= radius**2], device=device)
