"""SegNext behind the backbone protocol; never run with its released weights.

Liu et al., Rethinking Interactive Image Segmentation with Low Latency, High Quality, and Diverse Prompts, CVPR 2024.
A plain ViT-B sees the image once; the clicks and the previous mask are a dense map, which is patched, added to the
image's tokens and mixed with them by one ("sax1") or two ("sax2") self-attention blocks at every click. The modules
carry the names of the released checkpoints. What the paper leaves open (norms, global blocks, alignment) was read from
the public MIT source, of which no code is copied. Pixels are handled as the released code does, to rounding: how an
image becomes the network's input (`resize`), how logits become a mask (`upscale`), and what the next click is told of
it (`feedback`). The head has no dropout (0.1 of the channels in the published training).

Legend: B objects, N clicks, S side of the network's input, G side of the token grid (S/16), M side of the logits
(S/4), T tokens, W windows of all images, C width of the tokens.
"""

from collections import OrderedDict
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samref.backbones.dense import DensePromptBackbone
from samref.click_disks import click_disks

_PATCH_SIZE = 16
# Every third block, and the last, attends globally; the others in windows.
_GLOBAL_EVERY = 3
# Channels of the pyramid at 1/4, 1/8, 1/16 and 1/32 of the input, and of the head.
_PYRAMID_CHANNELS = (128, 256, 512, 1024)
_HEAD_CHANNELS = 256
_CLICK_RADIUS_PX = 5
# ImageNet's, for colours in 0..1.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class SegNextBackbone(DensePromptBackbone):
    """The whole network. Its one mask has no alternatives: `decode` takes `multimask` and does not use it.

    After the prompt is added there are one (sax1) or two (sax2) `fusion_blocks`; `image_size`, S, is a multiple of 16 ×
    `window`, the side of the encoder's windows in tokens. Only tests take other sizes.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        fusion_blocks: int,
        *,
        image_size: int = 1024,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        window: int = 16,
    ) -> None:
        super().__init__()
        self.backbone = _ImageEncoder(image_size, width=width, depth=depth, heads=heads, window=window)
        self.visual_prompts_encoder = _PatchEmbedding(width)
        # The encoder's norms have the eps of MAE's, these the default's, as in the released network.
        self.fusion_blocks = nn.Sequential(*(_Block(width, heads, eps=1e-5) for _ in range(fusion_blocks)))
        self.neck = _Pyramid(width)
        self.head = _Head()
        self.image_size = image_size
        self.mask_size = image_size // 4
        self.feature_channels = {"embedding": (width, image_size // _PATCH_SIZE)}
        # Not persistent: released checkpoints do not have them.
        self.register_buffer("pixel_mean", torch.tensor(_MEAN).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(_STD).view(-1, 1, 1), persistent=False)

    def encode(self, images_B3SS: Tensor) -> dict[str, Tensor]:
        """One `embedding`, B×768×64×64 at 1024 px; float32 also under autocast."""
        return {"embedding": self.backbone((images_B3SS / 255 - self.pixel_mean) / self.pixel_std).float()}

    def decode(
        self, features: dict[str, Tensor], points_BN2: Tensor, labels_BN: Tensor, previous: Tensor | None, **_: Any
    ) -> Tensor:
        """Logits at a quarter of the input's side, 256×256 at 1024 px, whose corners are the image's.

        The previous mask enters as a probability, B×1×S×S; at the first click it is all 0.
        """
        disks_B2SS = click_disks(points_BN2, labels_BN, self.image_size, _CLICK_RADIUS_PX)
        previous = self.no_mask(features) if previous is None else previous
        prompt_BTC = self.visual_prompts_encoder(torch.cat([previous, disks_B2SS], dim=1))
        embedding_BCGG = features["embedding"]
        fused_BTC = self.fusion_blocks(embedding_BCGG.flatten(2).transpose(1, 2) + prompt_BTC)
        logits_B1MM: Tensor = self.head(self.neck(fused_BTC.transpose(1, 2).reshape(embedding_BCGG.shape)))
        return logits_B1MM

    def modules_of(self, name: Literal["encoder", "decoder"]) -> nn.ModuleList:
        """The prompt's convolution is the decoder's: as in SegNext's own training, nothing of it stays frozen."""
        if name == "encoder":
            return nn.ModuleList([self.backbone])
        return nn.ModuleList([self.visual_prompts_encoder, self.fusion_blocks, self.neck, self.head])

    def drop_encoder(self) -> None:
        """Drop the image encoder, which embeddings on disk stand for."""
        self.register_module("backbone", None)


class _PatchEmbedding(nn.Module):
    """Patches of 16×16 px as tokens: B×3×S×S to B×T×C, T in row-major order."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, _PATCH_SIZE, stride=_PATCH_SIZE)

    def forward(self, image_B3SS: Tensor) -> Tensor:
        tokens: Tensor = self.proj(image_B3SS)
        return tokens.flatten(2).transpose(1, 2)


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BTC: Tensor) -> Tensor:
        batch, tokens, width = x_BTC.shape
        qkv = self.qkv(x_BTC).view(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return out


class _Block(nn.Module):
    """A transformer block, norms first."""

    def __init__(self, width: int, heads: int, *, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        layers = OrderedDict(fc1=nn.Linear(width, 4 * width), gelu=nn.GELU(), fc2=nn.Linear(4 * width, width))
        self.mlp = nn.Sequential(layers)

    def forward(self, x_BTC: Tensor) -> Tensor:
        x_BTC = x_BTC + self.attn(self.norm1(x_BTC))
        mixed: Tensor = x_BTC + self.mlp(self.norm2(x_BTC))
        return mixed


class _ImageEncoder(nn.Module):
    """A plain ViT whose tokens keep one resolution, B×3×S×S to B×C×G×G."""

    def __init__(self, image_size: int, *, width: int, depth: int, heads: int, window: int) -> None:
        super().__init__()
        self.side = image_size // _PATCH_SIZE
        self.window = window
        assert self.side % window == 0
        self.patch_embed = _PatchEmbedding(width)
        # The first position is that of MAE's class token, which SegNext does not have: kept for the name's shape.
        self.pos_embed = nn.Parameter(torch.zeros(1, self.side**2 + 1, width))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.blocks = nn.ModuleList(_Block(width, heads, eps=1e-6) for _ in range(depth))
        # In the checkpoints but not in the computation: MAE's norm for classification.
        self.fc_norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, images_B3SS: Tensor) -> Tensor:
        x = self.patch_embed(images_B3SS) + self.pos_embed[:, 1:]
        for count, block in enumerate(self.blocks, start=1):
            if count % _GLOBAL_EVERY == 0 or count == len(self.blocks):
                x = block(x)
            else:
                number, window = self.side // self.window, self.window
                windows_WTC = block(_exchanged(x, (number, window, number, window), window**2))
                x = _exchanged(windows_WTC, (number, number, window, window), self.side**2)
        out: Tensor = x.transpose(1, 2).reshape(len(x), -1, self.side, self.side)
        return out


def _exchanged(x_BTC: Tensor, sizes: tuple[int, int, int, int], length: int) -> Tensor:
    """Tokens in the order of a grid of these sizes whose second and third are exchanged, in sequences of a length."""
    width = x_BTC.shape[-1]
    return x_BTC.reshape(-1, *sizes, width).transpose(2, 3).reshape(-1, length, width)


class _Pyramid(nn.Module):
    """Four scales from the one of the tokens (Li et al., Exploring Plain Vision Transformer Backbones, ECCV 2022).

    Every norm is over all channels and pixels of an image: GroupNorm with one group.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        quarter, eighth, sixteenth, thirty_second = _PYRAMID_CHANNELS
        self.down_4 = nn.Sequential(
            nn.ConvTranspose2d(width, width // 2, 2, stride=2),
            nn.GroupNorm(1, width // 2),
            nn.GELU(),
            nn.ConvTranspose2d(width // 2, width // 4, 2, stride=2),
            nn.GroupNorm(1, width // 4),
            *_projection(width // 4, quarter),
        )
        self.down_8 = nn.Sequential(
            nn.ConvTranspose2d(width, width // 2, 2, stride=2),
            nn.GroupNorm(1, width // 2),
            *_projection(width // 2, eighth),
        )
        self.down_16 = nn.Sequential(*_projection(width, sixteenth))
        self.down_32 = nn.Sequential(
            nn.Conv2d(width, 2 * width, 2, stride=2), nn.GroupNorm(1, 2 * width), *_projection(2 * width, thirty_second)
        )

    def forward(self, x_BCGG: Tensor) -> list[Tensor]:
        """From the finest, B×128×4G×4G, to the coarsest, B×1024×G/2×G/2."""
        return [level(x_BCGG) for level in (self.down_4, self.down_8, self.down_16, self.down_32)]


def _projection(channels_in: int, channels: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels_in, channels, 1), nn.GroupNorm(1, channels), nn.GELU()


class _Head(nn.Module):
    """All-MLP head: a layer for each scale, all brought to the finest, one layer over all, one logit a pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_layer(channels) for channels in _PYRAMID_CHANNELS)
        self.fusion_conv = _layer(len(_PYRAMID_CHANNELS) * _HEAD_CHANNELS)
        self.seg_conv = nn.Conv2d(_HEAD_CHANNELS, 1, 1)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """B×1×M×M, from levels as `_Pyramid` gives them."""
        size = levels[0].shape[2:]
        scales = [
            F.interpolate(layer(level), size, mode="bilinear", align_corners=False)
            for layer, level in zip(self.convs, levels, strict=True)
        ]
        logits: Tensor = self.seg_conv(self.fusion_conv(torch.cat(scales, dim=1)))
        return logits


def _layer(channels_in: int) -> nn.Sequential:
    # Named as in the released checkpoints.
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(channels_in, _HEAD_CHANNELS, 1), relu=nn.ReLU()))


def build(size: str) -> SegNextBackbone:
    """`sax1` or `sax2`, random weights."""
    return SegNextBackbone({"sax1": 1, "sax2": 2}[size])
