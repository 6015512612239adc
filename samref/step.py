"""What one training step learns from: InterFormer's simulated clicks, then one interaction with gradient.

Paper: supplement, training details; docs/method.md. A function of the samples, the seed, the step and each sample's
position in the batch alone: in how many parts a batch is worked changes nothing but rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samref.batches import CLICKS, Batch
from samref.clicks import Click, simulate_click
from samref.config import TrainConfig
from samref.losses import (
    binary_cross_entropy,
    dice_loss,
    error_target,
    error_weight,
    normalized_focal_loss,
)
from samref.precision import autocast
from samref.refiner import Interaction, SamRef
from samref.refiner.lfr import Window
from samref.refiner.model import Context
from samref.refiner.resample import Frames, Images
from samref.refiner.selector import error_ratio, paste_on_global
from samref.transfers import to_device, to_host

Results = list[Tensor] | Tensor | None
"""M_{t-1} of each object: logits, or with `Frames` masks B×S×S; None before the first click."""


def training_step(
    network: SamRef,
    batch: Batch,
    config: TrainConfig,
    step: int,
    rounds: int,
    device: str,
    pool: Executor,
    *,
    together: bool | None = None,
) -> dict[str, Tensor]:
    """The losses of a batch, or of a part of one, by name: click rounds without gradient, then one interaction with.

    Args:
        network: the model, in evaluation mode.
        batch: the samples; what is drawn for one depends on the seed, the step and its position alone. Images that
            come without features are encoded.
        config: the training.
        step: counts from 0.
        rounds: n, the number of clicks after the first.
        device: the network's.
        pool: threads that place clicks, a sample each.
        together: all objects at once, as a GPU works them unless this is given; one by one, a CPU's results are to the
            bit what they always were.
    """
    images_B3SS, truth_BSS, *each_image = (
        tensor.to(device, non_blocking=True)
        for tensor in (batch.images_B3SS, torch.from_numpy(batch.truth_BSS), *batch.images)
    )
    features = {name: stored.to(device, non_blocking=True).float() for name, stored in batch.features.items()}
    sizes = [(network.backbone.image_size,) * 2] * len(each_image)
    frames: Frames | list[tuple[int, int]] = sizes
    images: Images | list[Tensor] = each_image
    if images_B3SS.is_cuda if together is None else together:
        frames = Frames.of(sizes, network.result_size, images_B3SS.device)
        images = Images.stack(each_image)
    # Entered anew for each part: autocast keeps the weights that it cast until it ends, and in older releases those
    # cast in the rounds carry no gradient and would never be trained (pytorch#158232; gone in 2.15).
    with autocast(device, config.precision):
        features = features or network.backbone.encode(images_B3SS.float())
        context = network.prepare(features, images_B3SS, images)
    with autocast(device, config.precision):
        clicks, coarse, results = simulate_rounds(network, context, batch, frames, config, step, rounds, pool)
    with autocast(device, config.precision):
        interaction = network(context, clicks, coarse, results, frames)
    return interaction_losses(network, interaction, truth_BSS, config)


@torch.no_grad()
def simulate_rounds(
    network: SamRef,
    context: Context,
    batch: Batch,
    frames: Frames | list[tuple[int, int]],
    config: TrainConfig,
    step: int,
    rounds: int,
    pool: Executor,
) -> tuple[list[list[Click]], Tensor | None, Results]:
    """Clicks, S_{t-1} and M_{t-1} that the step with gradient starts from.

    The first click is the object's centre; each round predicts and adds one more click to every sample that is still
    wrong somewhere. The host waits for a device twice a round: for the windows, and for the masks.
    """
    rngs = [np.random.default_rng([config.seed, CLICKS, step, position]) for position in batch.positions]
    clicks = [[center] if center else [] for center in batch.centers]
    coarse: Tensor | None = None
    results: Results = None
    areas = torch.full((len(clicks),), -1)
    for _ in range(rounds):
        interaction: Interaction = network(context, clicks, coarse, results, frames)
        on_global = [True] * len(clicks)
        if interaction.error_area_B is not None:
            ratios = error_ratio(interaction.error_area_B, areas).tolist()
            on_global = [paste_on_global(ratio, config.theta) for ratio in ratios]
            areas = interaction.error_area_B
        results, masks_BSS = _paste(network, interaction, frames, results, on_global)
        coarse = interaction.coarse_B1MM
        (masks,) = to_host(masks_BSS)
        _add_clicks(clicks, batch, masks, rngs, pool)
    return clicks, coarse, results


def _paste(
    network: SamRef,
    interaction: Interaction,
    frames: Frames | list[tuple[int, int]],
    previous: Results,
    on_global: Sequence[bool],
) -> tuple[Tensor | list[Tensor], Tensor]:
    """M_t, as the next interaction takes it, and as masks B×S×S."""
    if isinstance(frames, Frames):
        assert not isinstance(previous, list)
        masks_BSS = network.masks(interaction, frames, range(len(on_global)), previous, on_global)
        return masks_BSS, masks_BSS
    results = [
        network.paste(interaction, i, None if previous is None or anew else previous[i], frames[i])
        for i, anew in enumerate(on_global)
    ]
    return results, torch.stack(results) > network.backbone.threshold


def _add_clicks(
    clicks: list[list[Click]],
    batch: Batch,
    masks_BSS: NDArray[np.bool_],
    rngs: Sequence[np.random.Generator],
    pool: Executor,
) -> None:
    made = pool.map(simulate_click, batch.truth_BSS, masks_BSS, clicks, rngs)
    for own, click in zip(clicks, made, strict=True):
        if click is not None:
            own.append(click)


def interaction_losses(
    network: SamRef, interaction: Interaction, truth_BSS: Tensor, config: TrainConfig
) -> dict[str, Tensor]:
    """The loss terms of one interaction; which, follows from the modules that are trained (docs/method.md)."""
    size, threshold = truth_BSS.shape[-1], network.backbone.threshold

    def upscale(logits: Tensor) -> Tensor:
        full = torch.nn.functional.interpolate(logits.float(), size, mode="bilinear", align_corners=False)
        return full[:, 0]

    losses = {}
    coarse = upscale(network.backbone.upscale(interaction.coarse_B1MM))
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
    """The truths within windows, resized to B×size×size as `interpolate` does by its mode nearest-exact."""
    start_B2, end_B2 = to_device(torch.tensor(windows).view(-1, 2, 2), truth_BSS.device).unbind(1)
    middles = torch.arange(size, device=truth_BSS.device, dtype=torch.float64) + 0.5
    steps = (end_B2 - start_B2).float() / size
    x, y = (start_B2[..., None] + (middles * steps[..., None]).float().long()).unbind(1)
    sample = torch.arange(len(windows), device=truth_BSS.device)[:, None, None]
    return truth_BSS[sample, y[:, :, None], x[:, None]]
