"""What one training step learns from: InterFormer's simulated clicks, then one interaction with gradient.

Paper: supplement, training details; method.md §2. A function of the samples, the seed, the step and each sample's
position in the batch alone: in how many parts a batch is worked changes nothing but rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from samref.batches import CLICKS, Batch
from samref.clicks import Click, simulate_click
from samref.config import TrainConfig
from samref.embeddings import Embeddings
from samref.losses import (
    binary_cross_entropy,
    dice_loss,
    error_target,
    error_weight,
    normalized_focal_loss,
)
from samref.refiner import Interaction, SamRef
from samref.refiner.lfr import Window
from samref.refiner.model import Context
from samref.refiner.selector import error_ratio, paste_on_global


def training_step(
    network: SamRef,
    batch: Batch,
    embeddings: Embeddings | None,
    config: TrainConfig,
    step: int,
    rounds: int,
    device: str,
) -> dict[str, Tensor]:
    """The losses of a batch, or of a part of one, by name: click rounds without gradient, then one interaction with.

    Args:
        network: the model, in evaluation mode.
        batch: the samples; what is drawn for one hangs on the seed, the step and its position alone.
        embeddings: of their images, or None to encode them.
        config: the training.
        step: counts from 0.
        rounds: n, the number of clicks after the first.
        device: the network's.
    """
    images_B3SS = batch.images_B3SS.to(device)
    images = [image.to(device) for image in batch.images]
    size = network.backbone.image_size
    frames = [(size, size)] * len(images)

    def autocast() -> torch.autocast:
        # Entered anew for each part: autocast keeps the weights that it cast until it ends, and in older releases
        # those cast in the rounds carry no gradient and would never be trained (pytorch#158232; gone in 2.15).
        return torch.autocast(device.split(":")[0], torch.bfloat16, enabled=config.precision == "bf16")

    with autocast():
        if embeddings is not None:
            features = embeddings.read([sample.image_key for sample in batch.samples], device)
        else:
            features = network.backbone.encode(images_B3SS.float())
        context = network.prepare(features, images_B3SS, images)
    with autocast():
        clicks, coarse, results = simulate_rounds(network, context, batch, config, step, rounds)
    with autocast():
        interaction = network(context, clicks, coarse, results, frames)
    truth_BSS = torch.from_numpy(batch.truth_BSS).to(device)
    return interaction_losses(network, interaction, truth_BSS, config)


@torch.no_grad()
def simulate_rounds(
    network: SamRef, context: Context, batch: Batch, config: TrainConfig, step: int, rounds: int
) -> tuple[list[list[Click]], Tensor | None, list[Tensor] | None]:
    """Clicks, S_{t-1} and M_{t-1} that the step with gradient starts from.

    The first click is the object's centre; each round predicts and adds one more click to every sample that is still
    wrong somewhere.
    """
    size = network.backbone.image_size
    frames = [(size, size)] * len(batch.samples)
    rngs = [np.random.default_rng([config.seed, CLICKS, step, position]) for position in batch.positions]
    clicks: list[list[Click]] = [[] for _ in frames]
    _add_clicks(clicks, batch, [np.zeros((size, size), np.uint8)] * len(frames), rngs)
    coarse: Tensor | None = None
    results: list[Tensor] | None = None
    areas = torch.full((len(frames),), -1)
    for _ in range(rounds):
        interaction: Interaction = network(context, clicks, coarse, results, frames)
        ratios = [math.nan] * len(frames)
        if interaction.error_area_B is not None:
            ratios = error_ratio(interaction.error_area_B, areas).tolist()
            areas = interaction.error_area_B
        results = [
            network.paste(
                interaction,
                i,
                None if results is None or paste_on_global(ratio, config.theta) else results[i],
                frames[i],
            )
            for i, ratio in enumerate(ratios)
        ]
        coarse = interaction.coarse_B1MM
        masks = torch.stack(results) > network.backbone.threshold
        _add_clicks(clicks, batch, list(masks.to(torch.uint8).cpu().numpy()), rngs)
    return clicks, coarse, results


def _add_clicks(
    clicks: list[list[Click]], batch: Batch, masks: list[np.ndarray], rngs: Sequence[np.random.Generator]
) -> None:
    for own, truth, mask, rng in zip(clicks, batch.truth_BSS, masks, rngs, strict=True):
        click = simulate_click(truth, mask, own, rng)
        if click is not None:
            own.append(click)


def interaction_losses(
    network: SamRef, interaction: Interaction, truth_BSS: Tensor, config: TrainConfig
) -> dict[str, Tensor]:
    """The loss terms of one interaction; which, follows from the modules that are trained (method.md §2)."""
    size, threshold = truth_BSS.shape[-1], network.backbone.threshold

    def upscale(logits: Tensor) -> Tensor:
        full = torch.nn.functional.interpolate(logits.float(), size, mode="bilinear", align_corners=False)
        return full[:, 0]

    losses = {}
    coarse = upscale(interaction.coarse_B1MM)
    if "decoder" in config.modules or "encoder" in config.modules:
        losses["decoder_nfl"] = normalized_focal_loss(coarse, truth_BSS)
        losses["decoder_dice"] = dice_loss(coarse, truth_BSS)
    if interaction.error_B1MM is not None:
        wrong = error_target(coarse, truth_BSS, threshold)
        losses["global_error"] = binary_cross_entropy(upscale(interaction.error_B1MM), wrong)
        refined = upscale(interaction.result_B1MM)
        losses["global_nfl"] = normalized_focal_loss(refined, truth_BSS, error_weight(wrong == 1))
    if interaction.patch is not None:
        change, refined = interaction.patch.change_B1PP[:, 0].float(), interaction.patch.refined_B1PP[:, 0].float()
        truth = _crop_truth(truth_BSS, interaction.patch.windows, refined.shape[-1])
        wrong = error_target(refined - change, truth, threshold)
        losses["local_error"] = binary_cross_entropy(interaction.patch.error_B1PP[:, 0].float(), wrong)
        losses["local_nfl"] = normalized_focal_loss(refined, truth, error_weight(wrong == 1))
    return losses


def _crop_truth(truth_BSS: Tensor, windows: Sequence[Window], size: int) -> Tensor:
    crops = []
    for truth, (left, top, right, bottom) in zip(truth_BSS, windows, strict=True):
        crop = truth[None, None, top:bottom, left:right].float()
        crops.append(torch.nn.functional.interpolate(crop, (size, size), mode="nearest-exact")[0, 0])
    return torch.stack(crops).to(truth_BSS.dtype)
