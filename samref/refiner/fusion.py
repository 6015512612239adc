"""The fusion design that the global and the local refiner share.

    F(0) = conv(image) + conv(dense map) + up(F);  F(i+1) = ResBlock(F(i)) + up(F);  heads: error E, detail D

Legend: B objects, H W the fusion's input, h w its working grid (H/stride), C channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# σ(-6) = 0.0025: a refiner that has learned nothing leaves the logits as they are, yet its gradient is not lost.
_INITIAL_ERROR_LOGIT = -6.0


class Lateral(NamedTuple):
    """What does not depend on the clicks: computed once an image, used at every click."""

    start_BChw: Tensor  # conv(image) + up(F)
    skip_BChw: Tensor  # up(F)

    def select(self, index: Tensor) -> Lateral:
        """The same for the objects at these positions."""
        return Lateral(self.start_BChw[index], self.skip_BChw[index])


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(8, channels)


class _Stem(nn.Sequential):
    """Strided convolutions from full resolution to the working grid; a stride is a power of two."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        layers: list[nn.Module] = []
        steps = stride.bit_length() - 1
        for step in range(steps):
            last = step == steps - 1
            out = channels if last else channels // 2
            layers += [nn.Conv2d(channels_in, out, 3, stride=2, padding=1)]
            layers += [] if last else [_norm(out), nn.GELU()]
            channels_in = out
        super().__init__(*layers)


class _Upsampler(nn.Sequential):
    """SAM's way of upscaling an embedding: two transposed convolutions, four times the side."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__(
            nn.ConvTranspose2d(channels_in, channels, 2, stride=2),
            _norm(channels),
            nn.GELU(),
            nn.ConvTranspose2d(channels, channels, 2, stride=2),
        )


class _ResBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _norm(channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            _norm(channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x_BChw: Tensor) -> Tensor:
        change: Tensor = self.body(x_BChw)
        return x_BChw + change


class Fusion(nn.Module):
    """Image, dense map and embedding in; error logits and detail logits out, both at the working grid."""

    def __init__(self, embedding_channels: int, *, width: int, blocks: int, stride: int) -> None:
        super().__init__()
        self.image_stem = _Stem(3, width, stride)
        self.dense_stem = _Stem(3, width, stride)
        self.upsampler = _Upsampler(embedding_channels, width)
        self.blocks = nn.ModuleList(_ResBlock(width) for _ in range(blocks))
        self.heads = nn.Sequential(_norm(width), nn.GELU(), nn.Conv2d(width, 2, 3, padding=1))
        last = self.heads[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(torch.tensor([_INITIAL_ERROR_LOGIT, 0.0]))

    def lateral(self, image_B3HW: Tensor, embedding_BChw: Tensor) -> Lateral:
        """The part that clicks do not change; image RGB 0..255, the embedding at any side."""
        start = self.image_stem(image_B3HW.float() / 127.5 - 1)
        up = self.upsampler(embedding_BChw)
        if up.shape[-2:] != start.shape[-2:]:
            up = F.interpolate(up, start.shape[-2:], mode="bilinear", align_corners=False)
        return Lateral(start + up, up)

    def forward(self, lateral: Lateral, dense_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Error logits and detail logits, each B×1×h×w.

        Args:
            lateral: of the same objects.
            dense_B3HW: positive disks, negative disks, probability of the coarse mask.
        """
        x = lateral.start_BChw + self.dense_stem(dense_B3HW)
        for block in self.blocks:
            x = block(x) + lateral.skip_BChw
        error, detail = self.heads(x).split(1, dim=1)
        return error, detail


def blend(error_logits: Tensor, detail_logits: Tensor, coarse_logits: Tensor) -> Tensor:
    """σ(E)·D + (1 − σ(E))·S."""
    return torch.lerp(coarse_logits, detail_logits, error_logits.sigmoid())
