"""SAM (segment-anything 1.0), unchanged, behind the backbone protocol.

Kirillov et al., Segment Anything, ICCV 2023. Differs from `SamPredictor` in that every object of a batch may have
an image of its own, which the package's mask decoder (one embedding, many prompts) does not offer.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from segment_anything import sam_model_registry
from torch import Tensor, nn

from samref.backbones.backbone import Backbone, Multimask


class SamBackbone(Backbone):
    """The modules of a `segment_anything.modeling.Sam`; the state dict has the public checkpoints' names."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, sam: Any) -> None:
        super().__init__()
        self.image_encoder = sam.image_encoder
        self.prompt_encoder = sam.prompt_encoder
        self.mask_decoder = sam.mask_decoder
        # Not persistent: public checkpoints do not have them.
        self.register_buffer("pixel_mean", sam.pixel_mean, persistent=False)
        self.register_buffer("pixel_std", sam.pixel_std, persistent=False)
        self.image_size = sam.image_encoder.img_size
        side = sam.prompt_encoder.image_embedding_size[0]
        self.mask_size = 4 * side
        self.feature_channels = {"embedding": (sam.prompt_encoder.embed_dim, side)}
        self.threshold = sam.mask_threshold

    def encode(self, images_B3SS: Tensor) -> dict[str, Tensor]:
        """One `embedding`, B×256×64×64 for SAM at 1024 px."""
        return {"embedding": self.image_encoder((images_B3SS - self.pixel_mean) / self.pixel_std)}

    def decode(
        self,
        features: dict[str, Tensor],
        points_BN2: Tensor,
        labels_BN: Tensor,
        previous_B1MM: Tensor | None,
        *,
        multimask: Multimask = "never",
    ) -> Tensor:
        """SAM's prompt encoder and mask decoder; the mask token is 0 (single mask) or the best of 1 to 3."""
        prompt, decoder = self.prompt_encoder, self.mask_decoder
        sparse, dense = prompt(points=(points_BN2, labels_BN), boxes=None, masks=previous_B1MM)
        best_of_three = multimask == "always" or (multimask == "first" and previous_B1MM is None)

        output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([output_tokens.expand(len(sparse), -1, -1), sparse], dim=1)
        source = features["embedding"] + dense
        position = prompt.get_dense_pe().expand(len(source), -1, -1, -1)
        decoded, source_out = decoder.transformer(source, position, tokens)
        upscaled = decoder.output_upscaling(source_out.transpose(1, 2).view(source.shape))

        used = range(1, decoder.num_mask_tokens) if best_of_three else range(1)
        weights = [decoder.output_hypernetworks_mlps[token](decoded[:, 1 + token]) for token in used]
        masks = torch.einsum("btc,bchw->bthw", torch.stack(weights, dim=1), upscaled)
        if not best_of_three:
            return masks
        quality = decoder.iou_prediction_head(decoded[:, 0])[:, 1:]
        return masks.gather(1, quality.argmax(1).view(-1, 1, 1, 1).expand(-1, 1, *masks.shape[2:]))

    def modules_of(self, name: Literal["encoder", "decoder"]) -> nn.ModuleList:
        """The prompt encoder belongs to neither: it stays frozen (paper, supplement)."""
        return nn.ModuleList([self.image_encoder if name == "encoder" else self.mask_decoder])

    def drop_encoder(self) -> None:
        """As the protocol says."""
        self.image_encoder = None


def build(size: str) -> SamBackbone:
    """`vit_b`, `vit_l` or `vit_h`, random weights."""
    return SamBackbone(sam_model_registry[size]())
