"""SAM-REF: a backbone, and the refiner that follows its decoder at every click.

Legend: B objects, N clicks, S side of the network's input, M side of the low-resolution logits, P side of the patch,
H W the frame of masks and clicks. Every object of a batch may have an image, and a frame, of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from samref.backbones.backbone import Backbone
from samref.clicks import Click
from samref.config import ModelConfig
from samref.refiner import lfr, resample
from samref.refiner.fusion import Lateral
from samref.refiner.gfr import GlobalFusionRefiner
from samref.refiner.lfr import LocalFusionRefiner, Patch, Window
from samref.refiner.resample import Frames, Images
from samref.refiner.selector import error_area
from samref.refiner.windows import focus_windows
from samref.transfers import Arriving, Waiting, finish, to_device

_ROOM = 32
"""Clicks that the refiner's inputs have room for, or a multiple."""


@dataclass(frozen=True)
class Context:
    """What does not depend on the clicks: computed once, used at every click."""

    features: dict[str, Tensor]
    images: list[Tensor] | Images  # each 3×h×w uint8, over the same extent as the object's frame
    lateral: Lateral | None
    boxes_B4: Tensor | None = None  # prompts beside the clicks, px of the network's input
    start: Tensor | None = None  # of the masks that the first click corrects, as the decoder takes them

    def select(self, index: Sequence[int]) -> Context:
        """The context of the objects at these positions; of all in their order without a copy."""
        features, images, lateral, boxes, start = self.features, self.images, self.lateral, self.boxes_B4, self.start
        if list(index) == list(range(len(features["embedding"]))):
            return self
        positions = to_device(torch.as_tensor(index), features["embedding"].device)
        return Context(
            {name: feature[positions] for name, feature in features.items()},
            images.select(index) if isinstance(images, Images) else [images[i] for i in index],
            lateral.select(positions) if lateral else None,
            None if boxes is None else boxes[positions],
            None if start is None else start[positions],
        )


@dataclass(frozen=True)
class Interaction:
    """What one interaction gives for B objects, before the selector decides."""

    coarse_B1MM: Tensor  # S_t as the decoder gave it, also the next interaction's mask prompt
    result_B1MM: Tensor  # G_t, or where there is no refiner S_t as the backbone upscales it (B×1×U×U)
    error_B1MM: Tensor | None  # error logits E_t
    error_area_B: Tensor | None  # ‖H(E_t)‖₀, in the host's memory
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
        if config.refiner != "none" and backbone.features_are_images:
            raise ValueError(
                f"{type(backbone).__name__} encodes nothing that a refiner could read, only the image itself: set "
                "model.refiner: none"
            )
        if config.refiner != "none":
            self.gfr = GlobalFusionRefiner(channels, image_size=size, mask_size=backbone.mask_size, **shape)
        if config.refiner == "gfr+lfr":
            self.lfr = LocalFusionRefiner(channels, image_size=size, patch_size=config.patch_size_px, **shape)

    @property
    def result_size(self) -> int:
        """Side of an interaction's `result_B1MM`, in cells that tile the image."""
        return self.backbone.upscaled_size if self.gfr is None else self.backbone.mask_size

    def refiner_modules(self) -> nn.ModuleList:
        """The modules that SAM-REF adds to its backbone."""
        return nn.ModuleList(module for module in (self.gfr, self.lfr) if module is not None)

    def prepare(self, features: dict[str, Tensor], images_B3SS: Tensor, images: list[Tensor] | Images) -> Context:
        """Compute once what every click of these objects shares.

        Args:
            features: of the backbone.
            images_B3SS: RGB 0..255 as the encoder saw them.
            images: the same, each 3×h×w uint8 at its own resolution. `Images`, and then `Frames`, make the local stage
                work on all objects at once: for a GPU, where every operation costs a launch. The same to rounding.
        """
        lateral = self.gfr.lateral(images_B3SS, features) if self.gfr else None
        return Context(features, images, lateral)

    def forward(
        self,
        context: Context,
        clicks: Sequence[Sequence[Click]],
        coarse_B1MM: Tensor | None,
        results: Sequence[Tensor] | Tensor | None,
        frames: Sequence[tuple[int, int]] | Frames,
    ) -> Interaction:
        """One interaction of B objects.

        Args:
            context: of these objects.
            clicks: all clicks so far of each, in px of its frame; the newest last.
            coarse_B1MM: S_{t-1}, or None at the first click.
            results: M_{t-1}, each H×W logits (with `Frames` B×H×W masks), or None at the first click.
            frames: (H, W) of each.

        With a refiner the host waits for the device, once.
        """
        return finish(self.interact(context, clicks, coarse_B1MM, results, frames))

    def interact(
        self,
        context: Context,
        clicks: Sequence[Sequence[Click]],
        coarse_B1MM: Tensor | None,
        results: Sequence[Tensor] | Tensor | None,
        frames: Sequence[tuple[int, int]] | Frames,
    ) -> Waiting[Interaction]:
        """Do what `forward` does, for one who has other work where it waits."""
        sizes = frames.sizes if isinstance(frames, Frames) else frames
        device = context.features["embedding"].device
        points, labels = self._points(clicks, sizes, device)
        made = max(len(each) for each in clicks)
        previous = context.start if coarse_B1MM is None else self.backbone.feedback(coarse_B1MM, sizes)
        clicked = points[:, :made], labels[:, :made]
        coarse = self.coarse_stage(context.features, *clicked, previous, context.boxes_B4)
        upscaled = self.backbone.upscale(coarse)
        if self.gfr is None:
            return Interaction(coarse, upscaled, None, None, None)
        assert context.lateral is not None
        # Detached: the refiner does not teach the decoder, so a decoder trained with it equals one trained alone.
        on_grid = self._cells(upscaled.detach())
        refined, error, area_B, mask_BMM = self.global_stage(context.lateral, on_grid, points, labels)
        if self.lfr is None:
            (area,) = yield Arriving(area_B)
            return Interaction(coarse, refined, error, torch.from_numpy(area), None)
        found = partial(_windows, clicks, sizes)
        area, windows = yield Arriving(area_B, mask_BMM, *self._on_grid(results, frames), then=found)
        patch = self.lfr(context.images, context.features, refined.detach(), windows, sizes, points, labels)
        return Interaction(coarse, refined, error, torch.from_numpy(area), patch)

    def coarse_stage(
        self,
        features: dict[str, Tensor],
        points_BN2: Tensor,
        labels_BN: Tensor,
        previous: Tensor | None,
        boxes_B4: Tensor | None,
    ) -> Tensor:
        """S_t as the decoder gives it, logits B×1×M×M."""
        boxes = {} if boxes_B4 is None else {"boxes_B4": boxes_B4}
        return self.backbone.decode(features, points_BN2, labels_BN, previous, multimask=self.multimask, **boxes)

    def correcting(self, context: Context, masks: Sequence[Tensor]) -> Context:
        """The context whose first click corrects masks, each H×W bool in its object's frame."""
        return replace(context, start=self.backbone.mask_prompt(masks))

    def boxed(
        self, context: Context, boxes: Sequence[tuple[int, int, int, int]], frames: Sequence[tuple[int, int]]
    ) -> tuple[Context, Tensor]:
        """The context whose first click corrects what the decoder makes of boxes alone; its logits there, B×1×U×U.

        Args:
            context: of the objects.
            boxes: left, top, right and bottom pixel of each, in px of its frame; a prompt at every click from here on.
            frames: (H, W) of each.

        Raises:
            ValueError: the backbone takes no boxes.
        """
        if not self.backbone.takes_boxes:
            raise ValueError(f"{type(self.backbone).__name__} takes no boxes; leave evaluate.start: box out")
        size, device = self.backbone.image_size, context.features["embedding"].device
        scales = np.array([(width, height, width, height) for height, width in frames], np.float32)
        context = replace(context, boxes_B4=to_device(np.asarray(boxes, np.float32) * size / scales, device))
        none = torch.zeros(len(boxes), 0, dtype=torch.long, device=device)
        points = torch.zeros(len(boxes), 0, 2, device=device)
        coarse = self.coarse_stage(context.features, points, none, None, context.boxes_B4)
        return replace(context, start=self.backbone.feedback(coarse, frames)), self.backbone.upscale(coarse)

    def global_stage(
        self, lateral: Lateral, coarse_B1MM: Tensor, points_BN2: Tensor, labels_BN: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """G_t and E_t as logits B×1×M×M; ‖H(E_t)‖₀ of each; and G_t as masks B×M×M uint8."""
        assert self.gfr is not None
        refined, error = self.gfr(lateral, coarse_B1MM, points_BN2, labels_BN)
        masks = (refined[:, 0] > self.backbone.threshold).to(torch.uint8)
        return refined, error, error_area(error, self.error_threshold), masks

    def _cells(self, logits_B1UU: Tensor) -> Tensor:
        """The coarse logits on the refiner's grid, B×1×M×M."""
        side = self.backbone.mask_size
        if logits_B1UU.shape[-1] == side:
            return logits_B1UU
        return F.interpolate(logits_B1UU, side, mode="bilinear", align_corners=False)

    def _points(
        self, clicks: Sequence[Sequence[Click]], frames: Sequence[tuple[int, int]], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        # Room for more clicks than there are: the refiner, which draws none of label -1, has one shape for many.
        size, longest = self.backbone.image_size, -(-max(len(each) for each in clicks) // _ROOM) * _ROOM
        points = np.zeros((len(clicks), longest, 2), np.float32)
        labels = np.full((len(clicks), longest), -1, np.int64)
        for i, (each, (height, width)) in enumerate(zip(clicks, frames, strict=True)):
            for j, click in enumerate(each):
                points[i, j] = click.x * size / width, click.y * size / height
                labels[i, j] = click.positive
        return to_device(points, device), to_device(labels, device)

    def _on_grid(
        self, results: Sequence[Tensor] | Tensor | None, frames: Sequence[tuple[int, int]] | Frames
    ) -> list[Tensor]:
        """After the first click, M_{t-1} as masks on the grid of the logits, B×M×M uint8; else nothing."""
        if results is None:
            return []
        side = self.backbone.mask_size
        if isinstance(results, Tensor):
            assert isinstance(frames, Frames)
            previous = frames.on_grid(results, side)
        else:
            previous = torch.stack([_on_grid(result, side) for result in results]) > self.backbone.threshold
        return [previous.to(torch.uint8)]

    def paste(self, interaction: Interaction, i: int, previous_HW: Tensor | None, frame: tuple[int, int]) -> Tensor:
        """M_t of object i as H×W logits: the patch on G_t, or on M_{t-1} if that is given."""
        refined = upscale(interaction.result_B1MM[i, 0], frame)
        if interaction.patch is None:
            return refined  # without a local stage there is nothing to select
        return lfr.paste(previous_HW, refined, interaction.patch.change_B1PP[i, 0], interaction.patch.windows[i])

    def masks(
        self,
        interaction: Interaction,
        frames: Frames,
        objects: Sequence[int],
        previous_BHW: Tensor | None,
        on_global: Sequence[bool],
    ) -> Tensor:
        """M_t as masks in the frames, of all objects at once, or of some of them in several ways: K×H×W bool.

        Args:
            interaction: of B objects.
            frames: theirs.
            objects: which object each of the K masks is of.
            previous_BHW: masks M_{t-1}, or None at the first click.
            on_global: whether the patch is pasted on G_t, and not on M_{t-1}; for each of the K.
        """
        maps = interaction.result_B1MM[:, 0], frames.down_BHM, frames.across_BWM
        if interaction.patch is None:
            return resample.upscale(*maps) > self.backbone.threshold
        masks, inside = self.paste_stage(*maps, interaction.patch.change_B1PP[:, 0], interaction.patch.windows_B4)
        if previous_BHW is not None and not all(on_global):
            chosen = to_device(torch.tensor(objects), masks.device)
            anew = to_device(torch.tensor(on_global), masks.device)[:, None, None]
            return torch.where(inside[chosen] | anew, masks[chosen], previous_BHW[chosen])
        # Objects whose θ part have some on M_{t-1}: here each has one mask, its own.
        return masks

    def paste_stage(
        self, global_BMM: Tensor, down_BHM: Tensor, across_BWM: Tensor, change_BPP: Tensor, windows_B4: Tensor
    ) -> tuple[Tensor, Tensor]:
        """G_t with its patch as masks in the frames, and where the windows are; both B×H×W bool."""
        pasted, inside = resample.paste(resample.upscale(global_BMM, down_BHM, across_BWM), change_BPP, windows_B4)
        return pasted > self.backbone.threshold, inside


def _windows(
    clicks: Sequence[Sequence[Click]],
    frames: Sequence[tuple[int, int]],
    area_B: NDArray[Any],
    refined_BMM: NDArray[np.uint8],
    previous_BMM: NDArray[np.uint8] | None = None,
) -> tuple[NDArray[Any], list[Window]]:
    """The areas, as they are; and what to refine, found on the grid of the logits, where the change is known."""
    newest_B2 = np.array([each[-1][:2] for each in clicks], np.int64)
    previous_BMM = np.zeros_like(refined_BMM) if previous_BMM is None else previous_BMM
    windows_B4 = focus_windows(refined_BMM, previous_BMM, newest_B2, np.array(frames, np.int64))
    return area_B, [tuple(window) for window in windows_B4.tolist()]


def upscale(logits_MM: Tensor, frame: tuple[int, int]) -> Tensor:
    """Low-resolution logits without gradient in the frame of masks and clicks, H×W, bilinear."""
    if logits_MM.is_cuda:
        return F.interpolate(logits_MM[None, None], frame, mode="bilinear", align_corners=False)[0, 0]
    # On one thread OpenCV resizes four times as fast as torch 2.15 does; the same to rounding.
    height, width = frame
    return torch.from_numpy(cv2.resize(logits_MM.float().numpy(), (width, height), interpolation=cv2.INTER_LINEAR))


def _on_grid(logits_HW: Tensor, side: int) -> Tensor:
    # Nearest neighbour at cell centres, the grid's own sampling.
    height, width = logits_HW.shape
    y = ((torch.arange(side) + 0.5) * (height / side)).long().to(logits_HW.device)
    x = ((torch.arange(side) + 0.5) * (width / side)).long().to(logits_HW.device)
    return logits_HW[y[:, None], x]
