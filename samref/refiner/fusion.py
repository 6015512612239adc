"""The fusion design that the global and the local refiner share.

    F(0) = conv(image) + conv(dense map) + up(F);  F(i+1) = ResBlock(F(i)) + up(F);  heads: error E, detail D

Where the backbone has high-resolution features (SAM2), each of the sums, F(0) and every F(i+1), gets a projection of
them that is its own; the paper publishes only the parameters that this costs (Table 3: 1.2 M instead of 0.7 M).

Legend: B objects, H W the fusion's input, h w its working grid (H/stride), C channels, K as many skips as blocks, or 1
that all blocks share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samref.refiner.norm import GroupNormGelu, Layers

# σ(-3) = 0.05, about the share of pixels that a coarse mask has wrong.
_INITIAL_ERROR_LOGIT = -3.0


class Lateral(NamedTuple):
    """What does not depend on the clicks: computed once an image, used at every click."""

    start_BChw: Tensor  # conv(image) + up(F)
    skip_BKChw: Tensor  # up(F), with the high-resolution features' part one for each block

    def select(self, index: Tensor) -> Lateral:
        """Select the objects at these positions."""
        return Lateral(self.start_BChw[index], self.skip_BKChw[index])


def _norm_gelu(channels: int) -> list[nn.Module]:
    # Two places of a Sequential, as norm and GELU have: names of weights count them.
    return [GroupNormGelu(8, channels), nn.Identity()]


class _Stem(Layers):
    """Strided convolutions from full resolution to the working grid; a stride is a power of two."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        layers: list[nn.Module] = []
        steps = stride.bit_length() - 1
        for step in range(steps):
            last = step == steps - 1
            out = channels if last else channels // 2
            layers += [nn.Conv2d(channels_in, out, 3, stride=2, padding=1)]
            layers += [] if last else _norm_gelu(out)
            channels_in = out
        super().__init__(*layers)


class _Upsampler(Layers):
    """SAM's way of upscaling an embedding: two transposed convolutions, four times the side."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__(
            nn.ConvTranspose2d(channels_in, channels, 2, stride=2),
            *_norm_gelu(channels),
            nn.ConvTranspose2d(channels, channels, 2, stride=2),
        )


class _HighResolution(nn.Module):
    """Projections of SAM2's high-resolution features, one for each sum of the fusion.

    The maps were made for the mask decoder, hence a convolution with norm and GELU first; then one convolution gives
    all the projections, at the map's own side, where it is cheaper than on the grid. 3×3, not 1×1: they carry edges.
    """

    def __init__(self, channels: Iterable[int], width: int, sums: int) -> None:
        super().__init__()
        self.width = width
        self.levels = nn.ModuleList(
            Layers(
                nn.Conv2d(level, level, 3, padding=1),
                *_norm_gelu(level),
                nn.Conv2d(level, sums * width, 3, padding=1),
            )
            for level in channels
        )

    def forward(self, maps: Iterable[Tensor], grid: tuple[int, int]) -> Tensor:
        """Summed over the maps, which may have any side: B×sums×C×h×w."""
        first, *others = (to_grid(level(x), grid) for level, x in zip(self.levels, maps, strict=True))
        for other in others:
            first = first + other
        return first.view(len(first), -1, self.width, *grid)


def to_grid(x_BChw: Tensor, grid: tuple[int, int]) -> Tensor:
    """Maps at another side, bilinear; as they are where they have it already."""
    if x_BChw.shape[-2:] == grid:
        return x_BChw
    return F.interpolate(x_BChw, grid, mode="bilinear", align_corners=False)


class _ResBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = Layers(
            *_norm_gelu(channels),
            nn.Conv2d(channels, channels, 3, padding=1),
            *_norm_gelu(channels),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x_BChw: Tensor, skip_BChw: Tensor) -> Tensor:
        return self.body.added_to(x_BChw, x_BChw, skip_BChw)


class Fusion(nn.Module):
    """Image, dense map and features in; error logits and detail logits out, both at the working grid."""

    def __init__(self, feature_channels: Mapping[str, int], *, width: int, blocks: int, stride: int) -> None:
        super().__init__()
        self.image_stem = _Stem(3, width, stride)
        self.dense_stem = _Stem(3, width, stride)
        self.upsampler = _Upsampler(feature_channels["embedding"], width)
        self.blocks = nn.ModuleList(_ResBlock(width) for _ in range(blocks))
        self.heads = nn.Sequential(*_norm_gelu(width), nn.Conv2d(width, 2, 3, padding=1))
        last = self.heads[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(torch.tensor([_INITIAL_ERROR_LOGIT, 0.0]))
        self.carry = nn.Parameter(torch.ones(()))
        """How much of the coarse logits the detail holds besides what the head gives. The head starts at 0 and this at
        1, so that D = S: a refiner that has learned nothing changes no pixel, whatever σ(E) is. It can go to 0, where
        the detail stands on its own."""
        self.high_res_names = [name for name in feature_channels if name != "embedding"]
        self.high_res = None
        if self.high_res_names:
            levels = [feature_channels[name] for name in self.high_res_names]
            self.high_res = _HighResolution(levels, width, blocks + 1)

    def use_channels_last(self, *, stems: bool) -> None:
        """Keep maps as CUDA's fast convolutions take them; they give what they read.

        Faster in bf16 (H100, batches of 16: GFR 6.6 and not 8.7 ms, with gradient 25 and 32); with factors in TF32 only
        the blocks are, where half of the time went into copies from one order to the other, while a stem's first
        convolution, of three channels, takes 7 ms for 32 images and not 1; and in float32 nothing is.
        """
        (self if stems else self.blocks).to(memory_format=torch.channels_last)

    def _in_order(self, maps: Tensor) -> Tensor:
        """Maps …×C×h×w in the order of the blocks."""
        weight = next(part for part in self.blocks.modules() if isinstance(part, nn.Conv2d)).weight
        last = weight.is_contiguous(memory_format=torch.channels_last)
        return maps.movedim(-3, -1).contiguous().movedim(-1, -3) if last else maps

    def lateral(self, image_B3HW: Tensor, features: Mapping[str, Tensor]) -> Lateral:
        """The part that clicks do not change; image RGB 0..255, features (or crops of them) at any side."""
        image = self.image_stem(image_B3HW.float() / 127.5 - 1)
        up = to_grid(self.upsampler(features["embedding"]), image.shape[-2:])
        if self.high_res is None:
            return Lateral(self._in_order(image + up), self._in_order(up)[:, None])
        own = self.high_res([features[name] for name in self.high_res_names], image.shape[-2:]) + up[:, None]
        return Lateral(self._in_order(image + own[:, 0]), self._in_order(own[:, 1:]))

    def forward(self, lateral: Lateral, dense_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Error logits and detail logits, each B×1×h×w.

        Args:
            lateral: of the same objects.
            dense_B3HW: positive disks, negative disks, probability of the coarse mask.
        """
        x = self.dense_stem.added_to(lateral.start_BChw, dense_B3HW)
        skips = lateral.skip_BKChw.expand(-1, len(self.blocks), -1, -1, -1)
        for block, skip in zip(self.blocks, skips.unbind(1), strict=True):
            x = block(x, skip)
        error, detail = self.heads(x).split(1, dim=1)
        return error, detail

    def change(self, error_logits: Tensor, detail_logits: Tensor, coarse_logits: Tensor) -> Tensor:
        """What refining adds to the coarse logits: σ(E)·(D − S), so that the result is σ(E)·D + (1 − σ(E))·S."""
        detail = detail_logits + self.carry * coarse_logits
        return error_logits.sigmoid() * (detail - coarse_logits)
