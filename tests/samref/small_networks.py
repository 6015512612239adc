"""Small networks of transformers' own classes, with random weights, each saved to a folder as the library does."""

import torch
import transformers  # gives its classes, which take seconds to import, when they are asked for

_DECODER = {"hidden_size": 64, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32}
_VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "window_size": 2,
    "global_attn_indexes": [1],
}
_PYRAMID = {"backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]], "fpn_hidden_size": 64}


def _sam(network, config):
    vision = {**_VIT, "output_channels": 64, "image_size": 64, "patch_size": 16, "mlp_dim": 32, "num_pos_feats": 32}
    prompt = {
        "hidden_size": 64,
        "mask_input_channels": 4,
        "image_size": 64,
        "patch_size": 16,
        "image_embedding_size": 4,
    }
    decoder = _DECODER | ({"vit_dim": 32} if network is transformers.SamHQModel else {})
    size = {"height": 64, "width": 64}
    made = network(config(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder))
    return made, transformers.SamImageProcessor(size={"longest_edge": 64}, pad_size=size)


def _sam2(network, config, side=64, **vision):
    prompt = {"hidden_size": 64, "mask_input_channels": 4, "image_size": side, "patch_size": side // 4}
    vision = {**_PYRAMID, **vision}
    made = network(config(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=_DECODER))
    quarter = {"height": side // 4, "width": side // 4}
    return made, transformers.Sam2ImageProcessor(size={"height": side, "width": side}, mask_size=quarter)


def _hiera():
    stages = {
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 1, 1],
        "window_size_per_stage": [8, 8, 8, 8],
        "window_positional_embedding_background_size": [2, 2],
    }
    hiera = {"model_type": "sam2_hiera_det_model", "hidden_size": 8, "global_attention_blocks": [3], **stages}
    hiera["image_size"] = [64, 64]
    return _sam2(
        transformers.Sam2Model, transformers.Sam2Config, backbone_config=hiera, backbone_channel_list=[64, 32, 16, 8]
    )


def _sam3():
    vit = {**_VIT, "model_type": "sam3_vit_model", "intermediate_size": 32, "patch_size": 14}
    vit |= {"image_size": 56, "pretrain_image_size": 56}
    return _sam2(
        transformers.Sam3TrackerModel,
        transformers.Sam3TrackerConfig,
        56,
        model_type="sam3_vision_model",
        backbone_config=vit,
    )


def _edgetam():
    maps = {"in_chans": 3, "features_only": True, "out_indices": [1, 2, 3, 4]}
    timm = transformers.TimmWrapperConfig(architecture="test_efficientnet", model_args=maps)
    vision = {"model_type": "edgetam_vision_model", "backbone_channel_list": [64, 48, 32, 24]}
    return _sam2(transformers.EdgeTamModel, transformers.EdgeTamConfig, backbone_config=timm, **vision)


NETWORKS = {
    "sam": lambda: _sam(transformers.SamModel, transformers.SamConfig),
    "sam_hq": lambda: _sam(transformers.SamHQModel, transformers.SamHQConfig),
    "sam2": _hiera,
    "sam3_tracker": _sam3,
    "edgetam": _edgetam,
}


def save(family, folder):
    """A network of this family and its image processor, as they were saved to the folder."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, processor = NETWORKS[family]()
    network.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return network, processor
