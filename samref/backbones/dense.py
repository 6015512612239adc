"""Networks of RITM's line: clicks and the previous mask enter as maps, and the mask is fed back as a probability.

Sofiiuk et al., Reviving Iterative Training with Mask Guidance for Interactive Segmentation, ICIP 2022; SimpleClick,
FocalClick and SegNext follow it. Pixels are handled as their released evaluations do, to rounding.

Legend as in backbone.py.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samref.backbones.backbone import Backbone, Resize, resize_image

PROBABILITY = 0.49
"""A pixel belongs to the object if its probability is above this (RITM's evaluation)."""


class DensePromptBackbone(Backbone):
    """A backbone whose next `decode` takes the probability of the mask in its frame, B×1×S×S, all 0 at first."""

    threshold = math.log(PROBABILITY / (1 - PROBABILITY))

    def resize(self, image_3HW: Tensor, resize: Resize) -> Tensor:
        """In floats, and without antialiasing: what is over S px is sampled, not averaged."""
        return resize_image(image_3HW.float(), self.image_size, resize, antialias=False)

    def feedback(self, logits_B1MM: Tensor, frames: Sequence[tuple[int, int]]) -> Tensor:
        """The mask's probability in its frame, not thresholded, brought to S×S: B×1×S×S."""
        upscaled_B1SS = self.upscale(logits_B1MM)
        previous_B1SS = torch.empty_like(upscaled_B1SS)
        for frame in set(frames):  # in a training all objects have one
            objects = [i for i, each in enumerate(frames) if each == frame]
            probability_B1HW = _resized(upscaled_B1SS[objects], frame).sigmoid()
            previous_B1SS[objects] = _resized(probability_B1HW, (self.image_size, self.image_size))
        return previous_B1SS

    def mask_prompt(self, masks: Sequence[Tensor]) -> Tensor:
        """The masks as probabilities 0 and 1 in their frames, brought to S×S: B×1×S×S."""
        return torch.cat([_resized(mask[None, None].float(), (self.image_size,) * 2) for mask in masks])

    @property
    def upscaled_size(self) -> int:
        """S."""
        return self.image_size

    def upscale(self, logits_B1MM: Tensor) -> Tensor:
        """To S×S with aligned corners, as these networks are trained: B×1×S×S; float32 also under autocast."""
        return F.interpolate(logits_B1MM.float(), self.image_size, mode="bilinear", align_corners=True)

    def no_mask(self, features: dict[str, Tensor]) -> Tensor:
        """The previous mask before the first click, B×1×S×S."""
        first = features["embedding"]
        return first.new_zeros(len(first), 1, self.image_size, self.image_size)


class EarlyFusionBackbone(DensePromptBackbone):
    """A network through which image, clicks and previous mask go together at every click: nothing is encoded once.

    A subclass implements `segment` and sets `image_size` (S) and `mask_size` (M, the side of its logits). Its features
    are the image itself, which no cache keeps and no refiner reads.
    """

    features_are_images = True

    def segment(self, images_B3SS: Tensor, points_BN2: Tensor, labels_BN: Tensor, previous_B1SS: Tensor) -> Tensor:
        """The network: logits B×1×M×M.

        Args:
            images_B3SS: RGB 0..255; what else it normalises is the network's own.
            points_BN2: clicks (x, y) in px of the input.
            labels_BN: 1 positive, 0 negative, -1 no click (padding).
            previous_B1SS: probability of the previous mask, in 0..1; all 0 at the first click.
        """
        raise NotImplementedError

    @property
    def feature_channels(self) -> dict[str, tuple[int, int]]:  # type: ignore[override]
        """The image."""
        return {"embedding": (3, self.image_size)}

    def encode(self, images_B3SS: Tensor) -> dict[str, Tensor]:
        """The images as they are."""
        return {"embedding": images_B3SS.float()}

    def decode(
        self, features: dict[str, Tensor], points_BN2: Tensor, labels_BN: Tensor, previous: Tensor | None, **_: Any
    ) -> Tensor:
        """One pass through the whole network; its one mask has no alternatives."""
        before = self.no_mask(features) if previous is None else previous
        return self.segment(features["embedding"], points_BN2, labels_BN, before)

    def modules_of(self, name: Literal["encoder", "decoder"]) -> nn.ModuleList:
        """All is the decoder's, which is trained whether the backbone is frozen or not."""
        return nn.ModuleList([] if name == "encoder" else [self])

    def drop_encoder(self) -> None:
        """There is none."""


def _resized(maps_BChw: Tensor, frame: tuple[int, int]) -> Tensor:
    return F.interpolate(maps_BChw, frame, mode="bilinear", align_corners=False)
