"""SAM (segment-anything 1.0) behind the backbone protocol, its outputs unchanged.

Kirillov et al., Segment Anything, ICCV 2023. Differs from `SamPredictor` in that every object of a batch may have
an image of its own, which the package's mask decoder (one embedding, many prompts) does not offer, and in that the
image encoder's attention is torch's fused one; in bf16 on CUDA, without gradient, the encoder is that of
samref.backbones.sam_triton.

Legend: B images (or windows), N heads of all of them, H W side of the token grid, T tokens (H·W), D channels of a head.
"""

from __future__ import annotations

import logging
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from samref.backbones.backbone import Backbone, Multimask, best_of, takes_best_of_three
from samref.backbones.decoder import upscaled_masks, use_decoder_attention, with_corners
from samref.backbones.packages import import_alone

_LOG = logging.getLogger(__name__)
# Entries of the largest bias that attention makes at once: 256 MB in float32. All heads of ViT-H's global attention
# would take four times that, and not be faster.
_LARGEST_BIAS = 2**26


class SamBackbone(Backbone):
    """The modules of a `segment_anything.modeling.Sam`; the state dict has the public checkpoints' names."""

    takes_boxes = True
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, sam: Any) -> None:
        super().__init__()
        self.image_encoder = sam.image_encoder
        for block in self.image_encoder.blocks:
            block.attn = _Attention(block.attn)
        self.prompt_encoder = sam.prompt_encoder
        self.mask_decoder = sam.mask_decoder
        use_decoder_attention(self.mask_decoder.transformer)
        # Not persistent: public checkpoints do not have them.
        self.register_buffer("pixel_mean", sam.pixel_mean, persistent=False)
        self.register_buffer("pixel_std", sam.pixel_std, persistent=False)
        self.image_size = sam.image_encoder.img_size
        side = sam.prompt_encoder.image_embedding_size[0]
        self.mask_size = 4 * side
        self.feature_channels = {"embedding": (sam.prompt_encoder.embed_dim, side)}
        self.threshold = sam.mask_threshold
        self._kernels_work = True  # until they fail

    def encode(self, images_B3SS: Tensor) -> dict[str, Tensor]:
        """One `embedding`, B×256×64×64 for SAM at 1024 px."""
        normalised_B3SS = (images_B3SS - self.pixel_mean) / self.pixel_std
        if self._kernels_work and self._takes_kernels(normalised_B3SS):
            try:
                from samref.backbones import sam_triton  # torch has Triton on CUDA alone

                sam_triton.require(self.image_encoder, normalised_B3SS.device)
                return {"embedding": sam_triton.encode(self.image_encoder, normalised_B3SS)}
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # whatever Triton, its C compiler or the card lack
                self._kernels_work = False
                reason = str(error).strip().partition("\n")[0] or type(error).__name__
                _LOG.warning("the encoder takes twice as long: its Triton kernels do not work here (%s)", reason)
        return {"embedding": self.image_encoder(normalised_B3SS)}

    def _takes_kernels(self, images_B3SS: Tensor) -> bool:
        """Whether the kernels compute what the modules would, here and now: they know bf16 and no gradient.

        Where operators are counted (FLOPs), the modules run: a kernel is no operator.
        """
        half = torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda") is torch.bfloat16
        trained = torch.is_grad_enabled() and self.image_encoder.patch_embed.proj.weight.requires_grad
        return images_B3SS.is_cuda and half and not trained and not is_in_torch_dispatch_mode()

    def decode(
        self,
        features: dict[str, Tensor],
        points_BN2: Tensor,
        labels_BN: Tensor,
        previous: Tensor | None,
        *,
        multimask: Multimask = "never",
        boxes_B4: Tensor | None = None,
    ) -> Tensor:
        """SAM's prompt encoder and mask decoder; the mask token is 0 (single mask) or the best of 1 to 3."""
        prompt, decoder = self.prompt_encoder, self.mask_decoder
        sparse = self._embed_points(points_BN2, labels_BN, boxes_B4)
        dense = prompt.no_mask_embed.weight[..., None, None] if previous is None else prompt.mask_downscaling(previous)
        best_of_three = takes_best_of_three(multimask, previous)

        output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([output_tokens.expand(len(sparse), -1, -1), sparse], dim=1)
        source = features["embedding"] + dense
        position = prompt.get_dense_pe()
        # Channels last is the tokens' own order, in which batches come on a GPU.
        by_tokens = source.is_contiguous(memory_format=torch.channels_last)
        if by_tokens:
            position = position.contiguous(memory_format=torch.channels_last)
        decoded, source_out = decoder.transformer(source, position.expand(len(source), -1, -1, -1), tokens)

        used = range(1, decoder.num_mask_tokens) if best_of_three else range(1)
        weights_BTC = torch.stack(
            [decoder.output_hypernetworks_mlps[token](decoded[:, 1 + token]) for token in used], dim=1
        )
        if by_tokens:
            masks = upscaled_masks(decoder.output_upscaling, source_out.unflatten(1, source.shape[-2:]), weights_BTC)
        else:
            upscaled = decoder.output_upscaling(source_out.transpose(1, 2).view(source.shape))
            masks = torch.einsum("btc,bchw->bthw", weights_BTC, upscaled)
        if not best_of_three:
            return masks
        return best_of(masks, decoder.iou_prediction_head(decoded[:, 0])[:, 1:])

    def _embed_points(self, points_BN2: Tensor, labels_BN: Tensor, boxes_B4: Tensor | None) -> Tensor:
        """Embed points as the package's prompt encoder does, but without indices that the host waits for.

        A box is two points more, of labels 2 and 3; without one there is a point more that is none.
        """
        prompt = self.prompt_encoder
        if boxes_B4 is None:
            labels, padded = F.pad(labels_BN, (0, 1), value=-1), F.pad(points_BN2 + 0.5, (0, 0, 0, 1))
        else:
            points_BN2, labels = with_corners(points_BN2, labels_BN, boxes_B4)
            padded = points_BN2 + 0.5
        position: Tensor = prompt.pe_layer.forward_with_coords(padded, prompt.input_image_size)
        # Corners' embeddings take part only where there are any: a weight whose gradient is 0 would still decay.
        known = range(2 if boxes_B4 is None else 4)
        kinds = [prompt.not_a_point_embed.weight, *(prompt.point_embeddings[label].weight for label in known)]
        return position.masked_fill((labels == -1)[..., None], 0.0) + F.embedding(labels + 1, torch.cat(kinds))

    def modules_of(self, name: Literal["encoder", "decoder"]) -> nn.ModuleList:
        """The prompt encoder belongs to neither: it stays frozen (paper, supplement)."""
        return nn.ModuleList([self.image_encoder if name == "encoder" else self.mask_decoder])

    def drop_encoder(self) -> None:
        """Drop the image encoder, which embeddings on disk stand for."""
        self.image_encoder = None


class _Attention(nn.Module):
    """segment-anything's attention with decomposed relative positions, through torch's fused kernels.

    The package keeps attention matrices of T×T for every head, several at a time; here only the relative positions'
    part is one, and of no more heads than `_LARGEST_BIAS` allows. To append rel_h and rel_w to the queries, and one-hot
    positions to the keys, would need none, but then the kernels multiply three times as many channels: on a CPU it
    is slower than the matrix (SAM ViT-B, global attention; LOG.md).
    """

    def __init__(self, plain: Any) -> None:
        super().__init__()
        self.num_heads: int = plain.num_heads
        self.qkv = plain.qkv
        self.proj = plain.proj
        self.rel_pos_h: nn.Parameter = plain.rel_pos_h
        self.rel_pos_w: nn.Parameter = plain.rel_pos_w

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """B×H×W×C to the same; H and W are those that the relative positions were made for."""
        batch, height, width, _ = x_BHWC.shape
        tokens = height * width
        qkv = self.qkv(x_BHWC).view(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).flatten(1, 2)
        query_NHWD = qkv[0].unflatten(1, (height, width))
        rel_NHWK = torch.einsum("nhwd,hkd->nhwk", query_NHWD, _relative(self.rel_pos_h, height)).contiguous()
        rel_NHWL = torch.einsum("nhwd,wld->nhwl", query_NHWD, _relative(self.rel_pos_w, width)).contiguous()
        heads = max(1, _LARGEST_BIAS // tokens**2)
        parts = zip(*(t.split(heads) for t in (*qkv, rel_NHWK, rel_NHWL)), strict=True)
        mixed = [_attend(*part) for part in parts]
        mixed_NTD = mixed[0] if len(mixed) == 1 else torch.cat(mixed)
        mixed_BHWC = mixed_NTD.view(batch, self.num_heads, tokens, -1).transpose(1, 2).reshape(x_BHWC.shape)
        out: Tensor = self.proj(mixed_BHWC)
        return out


def _attend(query_NTD: Tensor, key_NTD: Tensor, value_NTD: Tensor, rel_NHWK: Tensor, rel_NHWL: Tensor) -> Tensor:
    """N×T×D: attention of each head, whose logit at key (k, l) has rel_NHWK[…, k] + rel_NHWL[…, l] added."""
    bias_1NTT = (rel_NHWK[..., :, None] + rel_NHWL[..., None, :]).flatten(3).flatten(1, 2)[None]
    # The fused kernels of the CPU take four dimensions only.
    mixed = F.scaled_dot_product_attention(query_NTD[None], key_NTD[None], value_NTD[None], attn_mask=bias_1NTT)
    return mixed[0]


def _relative(positions_LD: Tensor, side: int) -> Tensor:
    """From one vector a distance, -(side-1) … side-1, to one for each query and key: side×side×D."""
    at = torch.arange(side, device=positions_LD.device)
    return positions_LD[at[:, None] - at[None, :] + side - 1]


def build(size: str) -> SamBackbone:
    """`vit_b`, `vit_l` or `vit_h`, random weights."""
    return SamBackbone(import_alone("segment_anything", "build_sam").sam_model_registry[size]())
