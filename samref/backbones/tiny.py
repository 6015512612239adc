"""A SAM of 0.6 million parameters at 256×256, for quick starts, tests and debugging on a laptop.

segment-anything's own encoder, prompt encoder and mask decoder at small size. Its checkpoint comes with the package:
trained by this project from nothing, on drawn shapes (sweeps/tiny.yaml).
"""

from functools import partial

from torch import nn

from samref.backbones.packages import import_alone
from samref.backbones.sam import SamBackbone

_CHANNELS = 64
_IMAGE_SIZE = 256
_PATCH_SIZE = 16


class TinyBackbone(SamBackbone):
    """SAM at small size."""

    def modules_of(self, name: str) -> nn.ModuleList:
        """Unlike SAM's, the prompt encoder was not trained on a billion masks: it learns with the decoder."""
        if name == "encoder":
            return nn.ModuleList([self.image_encoder])
        return nn.ModuleList([self.prompt_encoder, self.mask_decoder])


def build(size: str) -> TinyBackbone:
    """The only size, `tiny`, random weights."""
    side = _IMAGE_SIZE // _PATCH_SIZE
    parts = import_alone("segment_anything", "modeling")
    encoder = parts.ImageEncoderViT(
        img_size=_IMAGE_SIZE,
        patch_size=_PATCH_SIZE,
        embed_dim=96,
        depth=4,
        num_heads=4,
        mlp_ratio=2,
        out_chans=_CHANNELS,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=8,
        global_attn_indexes=(1, 3),
    )
    # The package fills absolute positions with zeros, which pretraining replaces; here nothing does.
    assert encoder.pos_embed is not None
    nn.init.trunc_normal_(encoder.pos_embed, std=0.02)
    sam = parts.Sam(
        image_encoder=encoder,
        prompt_encoder=parts.PromptEncoder(
            embed_dim=_CHANNELS,
            image_embedding_size=(side, side),
            input_image_size=(_IMAGE_SIZE, _IMAGE_SIZE),
            mask_in_chans=16,
        ),
        mask_decoder=parts.MaskDecoder(
            transformer_dim=_CHANNELS,
            transformer=parts.TwoWayTransformer(depth=2, embedding_dim=_CHANNELS, mlp_dim=128, num_heads=4),
            num_multimask_outputs=3,
            iou_head_depth=2,
            iou_head_hidden_dim=64,
        ),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    )
    return TinyBackbone(sam)
