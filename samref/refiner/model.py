"""SAM-REF: a backbone, and the refiner that follows its decoder at every click.

Legend: B objects, N clicks, S side of the network's input, M side of the low-resolution logits, P side of the patch,
H W the frame of masks and clicks. Every object of a batch may have an image, and a frame, of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from samref.backbones.backbone import Backbone
from samref.clicks import Click
from samref.config import ModelConfig
from samref.refiner import lfr
from samref.refiner.fusion import Lateral
from samref.refiner.gfr import GlobalFusionRefiner
from samref.refiner.lfr import LocalFusionRefiner, Patch, Window, focus_window
from samref.refiner.selector import error_area


@dataclass(frozen=True)
class Context:
    """What does not depend on the clicks: computed once, used at every click."""

    features: dict[str, Tensor]
    images: list[Tensor]  # each 3×h×w uint8, over the same extent as the object's frame
    lateral: Lateral | None

    def select(self, index: Sequence[int]) -> Context:
        """The same for the objects at these positions."""
        if list(index) == list(range(len(self.images))):
            return self
        positions = torch.as_tensor(index, device=self.features["embedding"].device)
        return Context(
            {name: feature[positions] for name, feature in self.features.items()},
            [self.images[i] for i in index],
            self.lateral.select(positions) if self.lateral else None,
        )

    @staticmethod
    def join(contexts: Sequence[Context]) -> Context:
        """Of several objects in one batch; a context that comes alone is not copied."""
        if len(contexts) == 1:
            return contexts[0]
        laterals = [context.lateral for context in contexts if context.lateral]
        return Context(
            {name: torch.cat([context.features[name] for context in contexts]) for name in contexts[0].features},
            [image for context in contexts for image in context.images],
            Lateral(*map(torch.cat, zip(*laterals, strict=True))) if laterals else None,
        )


@dataclass(frozen=True)
class Interaction:
    """What one interaction gives for B objects, before the selector decides."""

    coarse_B1MM: Tensor  # S_t, also the next interaction's mask prompt
    result_B1MM: Tensor  # G_t, or S_t where there is no refiner
    error_B1MM: Tensor | None  # error logits E_t
    error_area_B: Tensor | None  # ‖H(E_t)‖₀
    patch: Patch | None  # of the local stage


class SamRef(nn.Module):
    """The whole model. `refiner` is none, gfr, or gfr+lfr."""

    def __init__(self, backbone: Backbone, config: ModelConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.multimask = config.multimask
        self.error_threshold = config.error_threshold
        channels = {name: channels for name, (channels, _) in backbone.feature_channels.items()}
        shape = {
            "width": config.refiner_width,
            "blocks": config.refiner_blocks,
            "radius": config.click_radius_px,
        }
        size = backbone.image_size
        self.gfr = self.lfr = None
        if config.refiner != "none":
            self.gfr = GlobalFusionRefiner(channels, image_size=size, mask_size=backbone.mask_size, **shape)
        if config.refiner == "gfr+lfr":
            self.lfr = LocalFusionRefiner(channels, image_size=size, patch_size=config.patch_size_px, **shape)

    def refiner_modules(self) -> nn.ModuleList:
        """The modules that SAM-REF adds to its backbone."""
        return nn.ModuleList(module for module in (self.gfr, self.lfr) if module is not None)

    def prepare(self, features: dict[str, Tensor], images_B3SS: Tensor, images: list[Tensor]) -> Context:
        """Compute once what every click of these objects shares.

        Args:
            features: of the backbone.
            images_B3SS: RGB 0..255 as the encoder saw them.
            images: the same, each 3×h×w uint8 at its own resolution.
        """
        lateral = self.gfr.lateral(images_B3SS, features) if self.gfr else None
        return Context(features, images, lateral)

    def forward(
        self,
        context: Context,
        clicks: Sequence[Sequence[Click]],
        coarse_B1MM: Tensor | None,
        results: Sequence[Tensor] | None,
        frames: Sequence[tuple[int, int]],
    ) -> Interaction:
        """One interaction of B objects.

        Args:
            context: of these objects.
            clicks: all clicks so far of each, in px of its frame; the newest last.
            coarse_B1MM: S_{t-1}, or None at the first click.
            results: M_{t-1}, each H×W logits, or None at the first click.
            frames: (H, W) of each.
        """
        device = context.features["embedding"].device
        points, labels = self._points(clicks, frames, device)
        coarse = self.backbone.decode(context.features, points, labels, coarse_B1MM, multimask=self.multimask)
        if self.gfr is None:
            return Interaction(coarse, coarse, None, None, None)
        assert context.lateral is not None
        # Detached: the refiner does not teach the decoder, so a decoder trained with it equals one trained alone.
        refined, error = self.gfr(context.lateral, coarse.detach(), points, labels)
        patch = None
        if self.lfr is not None:
            windows = self._windows(refined, results, clicks, frames)
            patch = self.lfr(context.images, context.features, refined.detach(), windows, frames, points, labels)
        return Interaction(coarse, refined, error, error_area(error, self.error_threshold), patch)

    def _points(
        self, clicks: Sequence[Sequence[Click]], frames: Sequence[tuple[int, int]], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        size, longest = self.backbone.image_size, max(len(each) for each in clicks)
        points = np.zeros((len(clicks), longest, 2), np.float32)
        labels = np.full((len(clicks), longest), -1, np.int64)
        for i, (each, (height, width)) in enumerate(zip(clicks, frames, strict=True)):
            for j, click in enumerate(each):
                points[i, j] = click.x * size / width, click.y * size / height
                labels[i, j] = click.positive
        return torch.from_numpy(points).to(device), torch.from_numpy(labels).to(device)

    def _windows(
        self,
        refined_B1MM: Tensor,
        results: Sequence[Tensor] | None,
        clicks: Sequence[Sequence[Click]],
        frames: Sequence[tuple[int, int]],
    ) -> list[Window]:
        # Found on the grid of the logits, where the change is known, and cheap; then scaled to the frame.
        threshold, side = self.backbone.threshold, self.backbone.mask_size
        masks = (refined_B1MM[:, 0] > threshold).to(torch.uint8).cpu().numpy()
        windows = []
        for i, (height, width) in enumerate(frames):
            previous = _on_grid(results[i], side, threshold) if results is not None else np.zeros_like(masks[i])
            newest = clicks[i][-1]
            scale_x, scale_y = width / side, height / side
            on_grid = Click(int(newest.x / scale_x), int(newest.y / scale_y), newest.positive)
            left, top, right, bottom = focus_window(masks[i], previous, on_grid)
            windows.append(
                (
                    int(left * scale_x),
                    int(top * scale_y),
                    min(width, int(np.ceil(right * scale_x))),
                    min(height, int(np.ceil(bottom * scale_y))),
                )
            )
        return windows

    def paste(self, interaction: Interaction, i: int, previous_HW: Tensor | None, frame: tuple[int, int]) -> Tensor:
        """M_t of object i as H×W logits: the patch on G_t, or on M_{t-1} if that is given."""
        refined = upscale(interaction.result_B1MM[i, 0], frame)
        if interaction.patch is None:
            return refined  # without a local stage there is nothing to select
        return lfr.paste(previous_HW, refined, interaction.patch.change_B1PP[i, 0], interaction.patch.windows[i])


def upscale(logits_MM: Tensor, frame: tuple[int, int]) -> Tensor:
    """Low-resolution logits without gradient in the frame of masks and clicks, H×W, bilinear."""
    if logits_MM.is_cuda:
        return F.interpolate(logits_MM[None, None], frame, mode="bilinear", align_corners=False)[0, 0]
    # On one thread OpenCV resizes four times as fast as torch 2.15 does; the same to rounding.
    height, width = frame
    return torch.from_numpy(cv2.resize(logits_MM.float().numpy(), (width, height), interpolation=cv2.INTER_LINEAR))


def _on_grid(logits_HW: Tensor, side: int, threshold: float) -> NDArray[np.uint8]:
    # Nearest neighbour at cell centres, the grid's own sampling.
    height, width = logits_HW.shape
    y = ((torch.arange(side) + 0.5) * (height / side)).long().to(logits_HW.device)
    x = ((torch.arange(side) + 0.5) * (width / side)).long().to(logits_HW.device)
    grid: NDArray[np.uint8] = (logits_HW[y[:, None], x] > threshold).to(torch.uint8).cpu().numpy()
    return grid
