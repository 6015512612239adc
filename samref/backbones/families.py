"""Which backbone a state dict is of, by the names and shapes that only its own has."""

from collections.abc import Mapping

from torch import Tensor

_SAM_WIDTHS = {96: "tiny", 768: "sam_vit_b", 1024: "sam_vit_l", 1280: "sam_vit_h"}
_SAM2_WIDTHS = {96: "hiera_t", 112: "hiera_b+", 144: "hiera_l"}
# Hiera-T and Hiera-S are as wide as each other; S has more blocks.
_LAST_BLOCK_OF_T = 11


def backbones_of(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The names of the backbones that a state dict can be of; none where it is of no known one.

    SAM 2.0 and 2.1 differ in modules that only video needs: a file without any of those can be of both.
    """
    if (width := _width(state, "image_encoder.patch_embed.proj.weight")) in _SAM_WIDTHS:
        return (_SAM_WIDTHS[width],)
    if (width := _width(state, "image_encoder.trunk.patch_embed.proj.weight")) in _SAM2_WIDTHS:
        size = _SAM2_WIDTHS[width]
        if size == "hiera_t" and f"image_encoder.trunk.blocks.{_LAST_BLOCK_OF_T + 1}.norm1.weight" in state:
            size = "hiera_s"
        return tuple(f"{version}_{size}" for version in _sam2_versions(state))
    if "visual_prompts_encoder.proj.weight" in state:
        blocks = sum(f"fusion_blocks.{i}.norm1.weight" in state for i in range(3))
        return {1: ("segnext_vit_b_sax1",), 2: ("segnext_vit_b_sax2",)}.get(blocks, ())
    return ()


def _width(state: Mapping[str, Tensor], name: str) -> int:
    """Output channels of a convolution; 0 where there is none of that name."""
    value = state.get(name)
    return value.shape[0] if value is not None and value.dim() else 0


def _sam2_versions(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    if "no_obj_embed_spatial" in state:
        return ("sam2.1",)
    return ("sam2",) if "maskmem_tpos_enc" in state else ("sam2", "sam2.1")
