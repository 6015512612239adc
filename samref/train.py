"""Training: InterFormer's simulated clicks, then one step with gradient.

Paper: supplement, training details; method.md §2. Knows nothing of sweeps, trackers or the store: it calls
`report(step, metrics)` and writes into the folder that it is given.

    weights.safetensors   all that this training, and the one it started from, changed beyond the checkpoint
    training.jsonl        {"step", "metric", "value"}, averaged over the steps since the line before

In `scratch` it keeps a checkpoint, from which a killed training goes on, to the same weights bit by bit.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from samref import checkpoint, weights
from samref.batches import Batch, Batches
from samref.clicks import Click, num_rounds, simulate_click
from samref.config import ModelConfig, Runtime, TrainConfig
from samref.data import open_dataset
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

if TYPE_CHECKING:
    from samref.trial import Report

_RECORDS = 200  # points of each curve


class TrainingError(RuntimeError):
    """A training that cannot go on; says at which step and on which samples."""


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then polynomial decay to zero at the last step."""
    if step < config.warmup_steps:
        share = step / config.warmup_steps
        return config.warmup_learning_rate + share * (config.learning_rate - config.warmup_learning_rate)
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return float(config.learning_rate * (1 - done) ** config.decay_power)


def train(
    model: ModelConfig,
    config: TrainConfig,
    *,
    inputs: Mapping[str, Path],
    out: Path,
    scratch: Path,
    runtime: Runtime,
    report: Report,
) -> dict[str, float]:
    """Run one training.

    Args:
        model: the network.
        config: the training; `modules` are exactly those that change.
        inputs: `init` (the training to start from) and `embeddings` (unless the encoder is trained), if any.
        out: empty folder for the outputs.
        scratch: folder that outlives a killed attempt at this training.
        runtime: device and data.
        report: called after steps with the metrics so far and `total` steps.

    Raises:
        TrainingError: a loss that is not finite.
    """
    device = runtime.resolve_device()
    embeddings = Embeddings(inputs["embeddings"]) if "embeddings" in inputs else None
    if "refiner" not in config.modules:
        model = model.model_copy(update={"refiner": "none"})
    network = weights.build_model(
        model, runtime, weights=inputs.get("init"), refiner_seed=config.seed, encoder=embeddings is None
    )
    parameters = weights.parts(network, config.modules)
    network.requires_grad_(False)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=config.learning_rate, betas=(0.9, 0.999), weight_decay=config.weight_decay
    )
    dataset = open_dataset(config.data, split="train", data_root=runtime.data_root, samples=config.samples)
    batches = Batches(
        dataset,
        size=network.backbone.image_size,
        resize=config.resize,
        batch_size=config.batch_size,
        seed=config.seed,
        augment=config.augment,
    )
    progress = checkpoint.restore(scratch, parameters, optimizer, device)
    every = max(1, config.steps // _RECORDS)
    clock = saved = time.perf_counter()
    first = progress.step
    for batch in batches.iterate(first, config.steps):
        step = progress.step
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        rng = np.random.default_rng([config.seed, 1, step])
        losses = training_step(network, batch, embeddings, config, rng, device)
        loss = torch.stack(list(losses.values())).sum()
        if not math.isfinite(loss.item()):
            names = ", ".join(sample.key for sample in batch.samples)
            raise TrainingError(
                f"the loss is {loss.item()} at step {step}, learning rate {learning_rate(config, step):.2e}, "
                f"samples {names}; a lower train.learning_rate or train.gradient_clip often helps"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if config.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters.values(), config.gradient_clip)
        optimizer.step()
        progress.add({"loss": loss.item(), **{name: value.item() for name, value in losses.items()}})
        if progress.step % every == 0 or progress.step == config.steps:
            report(progress.step, {"total": config.steps, **progress.record()})
        if time.perf_counter() - saved > runtime.checkpoint_seconds:
            checkpoint.save(scratch, parameters, optimizer, progress)
            saved = time.perf_counter()
    seconds = time.perf_counter() - clock
    weights.save({**weights.inherited(inputs.get("init")), **parameters}, out)
    with (out / "training.jsonl").open("w") as curve:
        curve.writelines(json.dumps(line) + "\n" for line in progress.curve)
    return {"steps_per_second": (config.steps - first) / seconds, "loss": progress.last("loss")}


def training_step(
    network: SamRef,
    batch: Batch,
    embeddings: Embeddings | None,
    config: TrainConfig,
    rng: np.random.Generator,
    device: str,
) -> dict[str, Tensor]:
    """The losses of one step, by name: click rounds without gradient, then one interaction with it."""
    images_B3SS = batch.images_B3SS.to(device)
    images = [image.to(device) for image in batch.images]
    size = network.backbone.image_size
    frames = [(size, size)] * len(images)

    autocast = torch.autocast(device.split(":")[0], torch.bfloat16, enabled=config.precision == "bf16")
    with autocast:
        if embeddings is not None:
            features = embeddings.read([sample.image_key for sample in batch.samples], device)
        else:
            features = network.backbone.encode(images_B3SS.float())
        context = network.prepare(features, images_B3SS, images)
        clicks, coarse, results = _simulate_rounds(network, context, batch, config, rng)
        interaction = network(context, clicks, coarse, results, frames)
    truth_BSS = torch.from_numpy(batch.truth_BSS).to(device)
    return interaction_losses(network, interaction, truth_BSS, config)


@torch.no_grad()
def _simulate_rounds(
    network: SamRef, context: Context, batch: Batch, config: TrainConfig, rng: np.random.Generator
) -> tuple[list[list[Click]], Tensor | None, list[Tensor] | None]:
    """Clicks, S_{t-1} and M_{t-1} that the step with gradient starts from."""
    size = network.backbone.image_size
    frames = [(size, size)] * len(batch.truth_BSS)
    clicks: list[list[Click]] = [[] for _ in frames]
    _add_clicks(clicks, batch, [np.zeros((size, size), np.uint8)] * len(frames), rng)
    coarse: Tensor | None = None
    results: list[Tensor] | None = None
    areas = torch.full((len(frames),), -1, device=context.features["embedding"].device)
    for _ in range(num_rounds(config.gamma, config.max_clicks, rng)):
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
        _add_clicks(clicks, batch, list(masks.to(torch.uint8).cpu().numpy()), rng)
    return clicks, coarse, results


def _add_clicks(clicks: list[list[Click]], batch: Batch, masks: list[np.ndarray], rng: np.random.Generator) -> None:
    for own, truth, mask in zip(clicks, batch.truth_BSS, masks, strict=True):
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
