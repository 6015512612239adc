"""The protocol of a backbone.

Legend of dimension letters: B objects, N clicks, S side of the network's input, M side of the low-resolution logits,
U side of the logits as far as the backbone upscales them itself.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Multimask = Literal["never", "first", "always"]
Resize = Literal["stretch", "pad"]

GIVEN_LOGIT = 10.0
"""Logit of a pixel in a mask that is given; outside of it -10."""


class Backbone(nn.Module):
    """An image encoder that runs once an image, and a decoder that runs at every click."""

    image_size: int
    """S: side of the square input in px."""
    mask_size: int
    """M: side of the low-resolution logits."""
    feature_channels: dict[str, tuple[int, int]]
    """Feature name → (channels, side). `embedding` is always there; SAM2 adds high-resolution maps."""
    threshold: float = 0.0
    """A pixel belongs to the object if its logit is above this."""
    features_are_images: bool = False
    """Whether `encode` gives the images themselves: then no cache keeps them, and there is no grid for a refiner."""
    takes_boxes: bool = False
    """Whether `decode` takes `boxes_B4`."""
    only_for_video: tuple[str, ...] = ()
    """Modules kept for the checkpoint's names that say nothing about a still image; the paper's count has none."""

    def resize(self, image_3HW: Tensor, resize: Resize) -> Tensor:
        """An RGB uint8 image as this network's input, 3×S×S in 0..255: uint8, or floats if its authors do not round."""
        return resize_image(image_3HW, self.image_size, resize)

    def encode(self, images_B3SS: Tensor) -> dict[str, Tensor]:
        """Features of images (RGB, uint8 or float 0..255, S×S); each B×channels×side×side."""
        raise NotImplementedError

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
        """Low-resolution logits B×1×M×M of one object an image.

        Args:
            features: as from `encode`, one entry an object.
            points_BN2: clicks (x, y) in px of the network's input.
            labels_BN: 1 positive, 0 negative, -1 no click (padding).
            previous: of the interaction before, as `feedback` makes it, or None at the first.
            multimask: at which clicks the best of three masks is taken instead of the single one.
            boxes_B4: left, top, right and bottom of a box that is a prompt, too, in px of the network's input. A
                backbone that does not take boxes is never given one.
        """
        raise NotImplementedError

    def feedback(self, logits_B1MM: Tensor, frames: Sequence[tuple[int, int]]) -> Tensor:
        """What the next `decode` takes of an interaction: the logits themselves, unless a backbone says otherwise.

        Args:
            logits_B1MM: as `decode` gave them.
            frames: (H, W) of each object's masks.
        """
        return logits_B1MM

    def mask_prompt(self, masks: Sequence[Tensor]) -> Tensor:
        """What the first `decode` takes as `previous` where clicks correct given masks, each H×W bool: B×1×M×M.

        Logits of ±10, as SAM2 makes them of masks that a person gives (sam2 1.1, `_use_mask_as_output`).
        """
        size = (self.mask_size, self.mask_size)
        resized = (F.interpolate(m[None, None].float(), size, mode="bilinear", antialias=True) for m in masks)
        return torch.cat(list(resized)) * (2 * GIVEN_LOGIT) - GIVEN_LOGIT

    @property
    def upscaled_size(self) -> int:
        """U: the side of what `upscale` gives."""
        return self.mask_size

    def upscale(self, logits_B1MM: Tensor) -> Tensor:
        """The logits of `decode` on U×U cells that tile the image, from which a bilinear resize leads to any frame.

        They are that already, unless a backbone was trained to upscale them in a way of its own.
        """
        return logits_B1MM

    def modules_of(self, name: Literal["encoder", "decoder"]) -> nn.ModuleList:
        """The parts that training the encoder, or the decoder, changes."""
        raise NotImplementedError

    def drop_encoder(self) -> None:
        """Free the image encoder's memory where embeddings are cached; `encode` fails from then on."""
        raise NotImplementedError


def takes_best_of_three(multimask: Multimask, previous: Tensor | None) -> bool:
    """Whether a `decode` makes three masks, of which `best_of` takes one, instead of a single one."""
    return multimask == "always" or (multimask == "first" and previous is None)


def best_of(masks_BNMM: Tensor, quality_BN: Tensor) -> Tensor:
    """Take the one of each object's N masks whose predicted quality is highest: B×1×M×M."""
    best_B1MM = quality_BN.argmax(1).view(-1, 1, 1, 1).expand(-1, 1, *masks_BNMM.shape[2:])
    return masks_BNMM.gather(1, best_B1MM)


def resize_image(image_3HW: Tensor, size: int, resize: Resize, *, antialias: bool = True) -> Tensor:
    """An image as the network sees it: 3×S×S of the image's type (uint8 is rounded), bilinear.

    `stretch` scales both sides to S (testing); `pad` scales the longest to S and pads right and below with 0
    (training, as SAM). Paper: supplement, implementation details.
    """
    if resize == "stretch":
        target = (size, size)
    else:
        height, width = image_3HW.shape[-2:]
        scale = size / max(height, width)
        target = (max(1, round(height * scale)), max(1, round(width * scale)))
    if tuple(image_3HW.shape[-2:]) != target:
        image_3HW = F.interpolate(image_3HW[None], target, mode="bilinear", antialias=antialias)[0]
    if target != (size, size):
        image_3HW = F.pad(image_3HW, (0, size - target[1], 0, size - target[0]))
    return image_3HW


def parameter_counts(network: nn.Module) -> tuple[int, int]:
    """Parameters, and parameters by the convention of the paper's Table 3.

    The latter, as thop counts: those that a leaf module owns. A backbone's modules that are only for video are left
    out: so SAM2 Hiera-L has the paper's 216.8 million, and 216.9 with them.
    """
    everything = sum(parameter.numel() for parameter in network.parameters())
    unused = {
        id(part)
        for backbone in network.modules()
        if isinstance(backbone, Backbone)
        for name in backbone.only_for_video
        for part in backbone.get_submodule(name).modules()
    }
    leaves = (module for module in network.modules() if not any(module.children()) and id(module) not in unused)
    return everything, sum(parameter.numel() for leaf in leaves for parameter in leaf.parameters(recurse=False))
