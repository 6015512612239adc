"""SAM2 on single images (sam2 1.1), unchanged, behind the backbone protocol.

Ravi et al., SAM 2: Segment Anything in Images and Videos, arXiv 2408.00714. What `SAM2ImagePredictor` uses is kept
(image encoder, prompt encoder, mask decoder, `no_mem_embed`); the memory of the video predictor is dropped. Differs
from the predictor in that every object of a batch may have an image of its own, and in one detail of the resize:
samref.backbones.backbone.resize_image rounds to uint8, the predictor resizes floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from sam2.build_sam import build_sam2
from torch import Tensor, nn

from samref.backbones.backbone import Backbone, Multimask, best_of, takes_best_of_three
from samref.backbones.decoder import use_decoder_attention, with_corners

# What SAM2ImagePredictor clamps its low-resolution logits to, before a user feeds them back.
_LARGEST_LOGIT = 32.0
# ImageNet's, for colours in 0..1 (sam2.utils.transforms).
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The 1×1 convolutions of the decoder that the encoder applies to the high-resolution maps.
_HIGH_RES_CONVOLUTIONS = ("conv_s0", "conv_s1")


class Sam2Backbone(Backbone):
    """The image modules of a `sam2.modeling.sam2_base.SAM2Base`, under the public checkpoints' names."""

    unused_in_checkpoint = (
        "memory_attention",
        "memory_encoder",
        "mask_downsample",
        "maskmem_tpos_enc",
        "no_mem_pos_enc",
        "no_obj_embed_spatial",
        "no_obj_ptr",
        "obj_ptr_proj",
        "obj_ptr_tpos_proj",
    )
    """Attributes of SAM2Base that only video needs: not kept here, passed over in a checkpoint."""

    only_for_video = ("sam_mask_decoder.pred_obj_score_head",)
    """Whether the object is in the frame at all: the decoder computes it, `decode` has no use for it."""

    takes_boxes = True
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, sam: Any) -> None:
        super().__init__()
        self.image_encoder = sam.image_encoder
        self.sam_prompt_encoder = sam.sam_prompt_encoder
        self.sam_mask_decoder = sam.sam_mask_decoder
        transformer = self.sam_mask_decoder.transformer
        transformer.register_forward_pre_hook(_positions_as_tokens)
        use_decoder_attention(transformer)
        self.no_mem_embed = sam.no_mem_embed
        self._add_no_mem_embed: bool = sam.directly_add_no_mem_embed
        self.image_size = sam.image_size
        channels, side = sam.hidden_dim, sam.sam_image_embedding_size
        self.mask_size = 4 * side
        self.feature_channels = {
            "embedding": (channels, side),
            "high_res_0": (channels // 8, 4 * side),
            "high_res_1": (channels // 4, 2 * side),
        }
        # Not persistent: public checkpoints do not have them.
        self.register_buffer("pixel_mean", torch.tensor(_MEAN).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(_STD).view(-1, 1, 1), persistent=False)

    def encode(self, images_B3SS: Tensor) -> dict[str, Tensor]:
        """Float32 also under autocast; at 1024 px:

        - `embedding`, B×256×64×64, with `no_mem_embed` added as the predictor does;
        - `high_res_0`, B×32×256×256, and `high_res_1`, B×64×128×128, through the decoder's conv_s0 and conv_s1.
        """
        encoded = self.image_encoder((images_B3SS / 255 - self.pixel_mean) / self.pixel_std)
        finest, finer, embedding = encoded["backbone_fpn"]
        high_res_0, high_res_1 = self.sam_mask_decoder.conv_s0(finest), self.sam_mask_decoder.conv_s1(finer)
        embedding = embedding.float()
        if self._add_no_mem_embed:
            embedding = embedding + self.no_mem_embed.view(1, -1, 1, 1)
        return {"embedding": embedding, "high_res_0": high_res_0.float(), "high_res_1": high_res_1.float()}

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
        """Logits clamped to ±32, as the predictor returns them.

        In evaluation mode a single mask that is not stable is replaced by the best of three, by SAM2's own decoder
        (`dynamic_multimask_via_stability`, on in `build_sam2`); in training mode it is not.
        """
        prompt = self.sam_prompt_encoder
        if boxes_B4 is not None:
            points_BN2, labels_BN = with_corners(points_BN2, labels_BN, boxes_B4)
        sparse, dense = prompt(points=(points_BN2, labels_BN), boxes=None, masks=previous)
        best_of_three = takes_best_of_three(multimask, previous)
        masks, quality, _, _ = self.sam_mask_decoder(
            image_embeddings=features["embedding"],
            image_pe=prompt.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=best_of_three,
            repeat_image=False,
            high_res_features=[features["high_res_0"], features["high_res_1"]],
        )
        if best_of_three:
            masks = best_of(masks, quality)
        return torch.clamp(masks, -_LARGEST_LOGIT, _LARGEST_LOGIT)

    def modules_of(self, name: Literal["encoder", "decoder"]) -> nn.ModuleList:
        """The prompt encoder belongs to neither (paper, supplement).

        The decoder's conv_s0 and conv_s1 run in `encode`, so they are the encoder's: cached embeddings already went
        through them, and training the decoder must not move them.
        """
        decoder = dict(self.sam_mask_decoder.named_children())
        shared = [decoder.pop(convolution) for convolution in _HIGH_RES_CONVOLUTIONS]
        return nn.ModuleList([self.image_encoder, *shared] if name == "encoder" else decoder.values())

    def drop_encoder(self) -> None:
        """Drop the image encoder, which embeddings on disk stand for."""
        self.image_encoder = None


def _positions_as_tokens(transformer: nn.Module, arguments: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Gives the positions, equal for all objects, the layout of the image's tokens: sums are copies otherwise."""
    source, position, tokens = arguments
    if source.is_contiguous(memory_format=torch.channels_last):
        position = position[:1].contiguous(memory_format=torch.channels_last).expand_as(source)
    return source, position, tokens


def build(size: str, overrides: Sequence[str] = ()) -> Sam2Backbone:
    """One of sam2's own configurations, random weights.

    Args:
        size: `sam2_hiera_t`, `sam2.1_hiera_b+` and so on: the configuration file's name.
        overrides: of its values, in hydra's notation (`model.image_size=256`); tests build small networks with them.
    """
    config = f"configs/{size.partition('_')[0]}/{size}.yaml"
    device = torch.empty(0).device  # the CPU, unless a caller counts parameters on `meta`
    if device.type == "meta":  # of the video's part, which is dropped anyway, sam2 sends a table to CUDA where that is
        overrides = [*overrides, "model.memory_attention=null"]
    return Sam2Backbone(build_sam2(config, device=device, hydra_overrides_extra=list(overrides)))
