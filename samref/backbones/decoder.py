"""SAM's and SAM2's mask decoder where its tokens are many and lie one after the other, as on a GPU in batches.

Legend: B objects, T tokens of prompts and outputs, K tokens (or T of the other side), C channels, G side of the image's
token grid.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

# cuDNN, which torch prefers in bf16, plans anew for each number of tokens, and there is another one at every click.
_WITHOUT_PLANS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class DecoderAttention(nn.Module):
    """An attention of the packages' decoders, by the same steps on a CPU and by fewer passes over memory on CUDA."""

    def __init__(self, plain: Any) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = plain.q_proj, plain.k_proj, plain.v_proj, plain.out_proj
        self.num_heads: int = plain.num_heads
        self._plain = (plain,)  # in a tuple: no module of its own, as its parts are this one's

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries B×T×C, keys and values B×K×C, to B×T×C."""
        out: Tensor
        if q.is_cuda:
            out = self.out_proj(attend(self.q_proj(q), self.k_proj(k), self.v_proj(v), self.num_heads))
        else:
            out = self._plain[0](q=q, k=k, v=v)
        return out


def with_corners(points_BN2: Tensor, labels_BN: Tensor, boxes_B4: Tensor) -> tuple[Tensor, Tensor]:
    """Points and labels before which stand the corners of boxes: left top, label 2, and right bottom, label 3."""
    corners = torch.arange(2, 4, device=labels_BN.device).expand(len(boxes_B4), -1)
    return torch.cat([boxes_B4.view(-1, 2, 2), points_BN2], dim=1), torch.cat([corners, labels_BN], dim=1)


def use_decoder_attention(transformer: Any) -> None:
    """Put DecoderAttention in place of a two-way transformer's own; names of weights stay."""
    transformer.final_attn_token_to_image = DecoderAttention(transformer.final_attn_token_to_image)
    for layer in transformer.layers:
        for name in ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token"):
            setattr(layer, name, DecoderAttention(getattr(layer, name)))


def attend(query_BTC: Tensor, key_BKC: Tensor, value_BKC: Tensor, num_heads: int) -> Tensor:
    """Attention of heads that are consecutive channels: B×T×C.

    The fused kernels give each head and object one block, which for few queries leaves a GPU idle while a block walks
    along all keys. There, the heads' queries become queries of all channels, 0 in the other heads': products of whole
    matrices, which need no copies of keys and values by heads.
    """
    batch, count, channels = query_BTC.shape
    if count >= key_BKC.shape[1]:
        query, key, value = (
            x.reshape(batch, x.shape[1], num_heads, -1).transpose(1, 2) for x in (query_BTC, key_BKC, value_BKC)
        )
        with sdpa_kernel(_WITHOUT_PLANS) if query.is_cuda else nullcontext():
            mixed = F.scaled_dot_product_attention(query, key, value)
        return mixed.transpose(1, 2).flatten(2)
    own_H1C = _own_channels(num_heads, channels, query_BTC.device).to(query_BTC.dtype)
    scaled_H1C = own_H1C * (channels // num_heads) ** -0.5
    query = (query_BTC[:, None] * scaled_H1C).view(batch, num_heads * count, channels)
    weights = torch.softmax(query @ key_BKC.mT, dim=-1)
    mixed = (weights.to(value_BKC.dtype) @ value_BKC).view(batch, num_heads, count, channels)
    return (mixed * own_H1C).sum(1)


@cache
@torch.inference_mode(False)
def _own_channels(num_heads: int, channels: int, device: torch.device) -> Tensor:
    """H×1×C: 1 in each head's own channels. Sent when first asked for, as the host waits for that."""
    return torch.eye(num_heads).repeat_interleave(channels // num_heads, 1)[:, None].to(device)


def upscaled_masks(upscaling: Any, tokens_BGGC: Tensor, weights_BTC: Tensor) -> Tensor:
    """The decoder's logits B×T×4G×4G from the image's tokens, as products of matrices.

    Both transposed convolutions have steps as large as their kernels: every token becomes 2×2 of its own, in whichever
    order they are kept. Only the logits are brought into that of an image.

    Args:
        upscaling: segment-anything's `output_upscaling`.
        tokens_BGGC: after the transformer.
        weights_BTC: of the channels, for each mask.
    """
    first, norm, activation, second, last = upscaling
    batch, grid = tokens_BGGC.shape[:2]
    x = F.layer_norm(_quadruple(first, tokens_BGGC), norm.weight.shape, norm.weight, norm.bias, norm.eps)
    x = activation(x)
    x = last(_quadruple(second, x)).view(batch, grid * grid * 16, -1)
    logits: Tensor = (weights_BTC @ x.mT).view(batch, -1, grid, grid, 2, 2, 2, 2)
    return logits.permute(0, 1, 2, 4, 6, 3, 5, 7).reshape(batch, -1, 4 * grid, 4 * grid)


def _quadruple(convolution: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """…×C to …×2×2×channels: what a transposed convolution of kernel 2 and step 2 makes of each token."""
    assert convolution.bias is not None
    channels_in, channels = convolution.weight.shape[:2]
    weight = convolution.weight.permute(2, 3, 1, 0).reshape(4 * channels, channels_in)
    return F.linear(x, weight, convolution.bias.repeat(4)).view(*x.shape[:-1], 2, 2, channels)
