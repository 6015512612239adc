"""The click loop: every sample, click by click, by the published protocol (method.md §3), for several θ at once.

The unit of work is a node: one sample under one set of θ values that have decided alike so far. All live nodes make
one click per round, in batches; where the selector's decision differs between the θ of a node, it splits. Several θ
thus cost their distinct paths, and each gets the result of a run of its own.

Written into each θ's folder:

    clicks.npz     one entry a click: sample (index), click (from 1), x, y (px, original image), positive, iou,
                   pasted_on (0 no selector, 1 global, 2 previous), error_ratio (R_e, NaN where undefined)
    samples.json   the samples' keys, by index
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samref import metrics, weights
from samref.backbones.backbone import resize_image
from samref.clicks import Click, next_click
from samref.config import EvaluateConfig, ModelConfig, Runtime
from samref.data import Dataset, open_dataset
from samref.embeddings import Embeddings
from samref.refiner import SamRef
from samref.refiner.model import Context
from samref.refiner.selector import error_ratio, paste_on_global

if TYPE_CHECKING:
    from samref.trial import Report

_WAVE = 32  # samples whose masks and features are in memory together
_BATCH = 16  # nodes of one decoder call
NO_SELECTOR, GLOBAL, PREVIOUS = 0, 1, 2


class Record(NamedTuple):
    """One click and what it led to."""

    click: Click
    iou: float
    pasted_on: int
    error_ratio: float


@dataclass(frozen=True)
class _Node:
    """One sample on one path of selector decisions."""

    sample: int  # position in the wave
    thetas: tuple[int, ...]  # positions of the configurations that share this path
    records: tuple[Record, ...] = ()
    coarse_1MM: Tensor | None = None  # S_{t-1}
    result_HW: Tensor | None = None  # M_{t-1}
    mask_HW: NDArray[np.uint8] | None = None
    area: int = -1  # ‖H(E_{t-1})‖₀; -1 before the first click


@dataclass(frozen=True)
class Wave:
    """The samples that are in memory together."""

    first: int
    """Position in the dataset of its first sample."""
    truths: list[NDArray[np.int8]]
    context: Context


@torch.inference_mode()
def evaluate(
    model: ModelConfig,
    configs: Sequence[EvaluateConfig],
    *,
    inputs: Mapping[str, Path],
    outs: Sequence[Path],
    runtime: Runtime,
    report: Report,
) -> list[dict[str, float | int]]:
    """Evaluate one model on one dataset for one or several θ.

    Args:
        model: the network.
        configs: alike but for θ.
        inputs: `embeddings`, and `weights` where there was a training.
        outs: one empty folder a configuration.
        runtime: device and data.
        report: called with samples × clicks done, and `clicks`, the decoder calls that took.

    Returns:
        The headline metrics of each configuration; one that cannot be known (an early stop below it) is left out.
    """
    config = configs[0]
    if any(other.model_copy(update={"theta": config.theta}) != config for other in configs):
        raise ValueError("evaluations that run in one go may differ in theta alone")
    network = weights.build_model(model, runtime, weights=inputs.get("weights"), encoder=False)
    embeddings = Embeddings(inputs["embeddings"])
    dataset = open_dataset(config.data, split="val", data_root=runtime.data_root, samples=config.samples)
    device = runtime.resolve_device()
    thetas = [each.theta for each in configs]

    paths: list[list[tuple[Record, ...]]] = [[] for _ in configs]
    clock = time.perf_counter()
    with ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="clicks") as pool:
        loop = ClickLoop(network, config, thetas, pool)
        rounds = 0

        def progress(samples: int) -> None:
            nonlocal rounds
            rounds += samples
            report(rounds, {"total": len(dataset.samples) * config.max_clicks, "clicks": loop.clicks_made})

        for start in range(0, len(dataset.samples), _WAVE):
            wave = load_wave(dataset, start, network, embeddings, device)
            for own, records in zip(paths, loop.run(wave, progress), strict=True):
                own.extend(records)
    seconds = (time.perf_counter() - clock) / max(1, loop.clicks_made)
    for out, own in zip(outs, paths, strict=True):
        _write(out, [sample.key for sample in dataset.samples], own)
    return [{**headline(own, config), "seconds_per_click": seconds} for own in paths]


def load_wave(dataset: Dataset, first: int, network: SamRef, embeddings: Embeddings, device: str) -> Wave:
    """Read the samples from this position on, and compute once what all their clicks share."""
    samples = dataset.samples[first : first + _WAVE]
    truths = [dataset.truth(sample.key) for sample in samples]
    pictures = [dataset.image(sample.image_key).transpose(2, 0, 1) for sample in samples]
    images = [torch.from_numpy(np.ascontiguousarray(picture)) for picture in pictures]
    images_B3SS = torch.stack([resize_image(image, network.backbone.image_size, "stretch") for image in images])
    features = embeddings.read([sample.image_key for sample in samples], device)
    context = network.prepare(features, images_B3SS.to(device), [image.to(device) for image in images])
    return Wave(first, truths, context)


class ClickLoop:
    """Makes all clicks of a wave of samples under several θ."""

    def __init__(
        self, network: SamRef, config: EvaluateConfig, thetas: Sequence[float], pool: ThreadPoolExecutor
    ) -> None:
        self._network = network
        self._config = config
        self._thetas = thetas
        self._pool = pool
        self.clicks_made = 0
        """Decoder calls so far, counted in nodes."""

    def run(self, wave: Wave, progress: Callable[[int], None]) -> list[list[tuple[Record, ...]]]:
        """For each θ, for each sample of the wave, its clicks in order.

        Args:
            wave: the samples.
            progress: called after every round with the number of samples.
        """
        nodes = [_Node(i, tuple(range(len(self._thetas)))) for i in range(len(wave.truths))]
        finished = []
        for _ in range(self._config.max_clicks):
            clicks = list(self._pool.map(lambda node: self._next_click(wave, node), nodes))
            finished += [node for node, click in zip(nodes, clicks, strict=True) if click is None]
            live = [(node, click) for node, click in zip(nodes, clicks, strict=True) if click is not None]
            nodes = []
            for start in range(0, len(live), _BATCH):
                nodes += self._advance(wave, live[start : start + _BATCH])
            if (stop_at := self._config.stop_at) is not None:
                finished += [node for node in nodes if node.records[-1].iou >= stop_at]
                nodes = [node for node in nodes if node.records[-1].iou < stop_at]
            progress(len(wave.truths))
        found: list[list[tuple[Record, ...]]] = [[()] * len(wave.truths) for _ in self._thetas]
        for node in finished + nodes:
            for theta in node.thetas:
                found[theta][node.sample] = node.records
        return found

    def _next_click(self, wave: Wave, node: _Node) -> Click | None:
        truth = wave.truths[node.sample]
        mask = node.mask_HW if node.mask_HW is not None else np.zeros(truth.shape, np.uint8)
        clicks = [record.click for record in node.records]
        # Drawn ties hang on the sample and the click alone, not on the order of the work.
        rng = np.random.default_rng([self._config.seed, wave.first + node.sample, len(clicks)])
        return next_click(truth, mask, clicks, clicker=self._config.clicker, rng=rng)

    def _advance(self, wave: Wave, live: Sequence[tuple[_Node, Click]]) -> list[_Node]:
        nodes = [node for node, _ in live]
        first = nodes[0].coarse_1MM is None
        clicks = [[*(record.click for record in node.records), click] for node, click in live]
        frames = [wave.truths[node.sample].shape for node in nodes]
        context = wave.context.select([node.sample for node in nodes])
        coarse = None if first else torch.stack([node.coarse_1MM for node in nodes if node.coarse_1MM is not None])
        results = [node.result_HW for node in nodes if node.result_HW is not None] or None
        interaction = self._network(context, clicks, coarse, results, frames)
        self.clicks_made += len(nodes)

        ratios = [math.nan] * len(nodes)
        areas = [-1] * len(nodes)
        if interaction.patch is not None and interaction.error_area_B is not None:
            areas = interaction.error_area_B.tolist()
            before = torch.tensor([node.area for node in nodes], device=interaction.error_area_B.device)
            ratios = error_ratio(interaction.error_area_B, before).tolist()

        def branches(i: int) -> list[_Node]:
            node, click = live[i]
            truth = wave.truths[node.sample]
            following = []
            for on_global, thetas in self._decide(node, ratios[i]):
                previous = None if on_global else node.result_HW
                result = self._network.paste(interaction, i, previous, truth.shape)
                mask = (result > self._network.backbone.threshold).to(torch.uint8).cpu().numpy()
                pasted_on = NO_SELECTOR if self._network.lfr is None else GLOBAL if on_global else PREVIOUS
                record = Record(click, metrics.iou(truth, mask), pasted_on, ratios[i])
                following.append(
                    _Node(
                        node.sample,
                        thetas,
                        (*node.records, record),
                        interaction.coarse_B1MM[i],
                        result if self._network.lfr is not None else None,
                        mask,
                        areas[i],
                    )
                )
            return following

        return [branch for found in self._pool.map(branches, range(len(live))) for branch in found]

    def _decide(self, node: _Node, ratio: float) -> Iterator[tuple[bool, tuple[int, ...]]]:
        """The θ values of a node by their decision: one or two groups."""
        decisions = {theta: paste_on_global(ratio, self._thetas[theta]) for theta in node.thetas}
        for on_global in (True, False):
            agreeing = tuple(theta for theta, decision in decisions.items() if decision is on_global)
            if agreeing:
                yield on_global, agreeing


def headline(paths: Sequence[Sequence[Record]], config: EvaluateConfig) -> dict[str, float | int]:
    """The metrics of one configuration: NoC, NoF, n-mIoU, mean pastes per sample.

    A trajectory that ended because nothing was wrong any more keeps its IoU of 1. One that stopped early leaves out
    the metrics that would need its missing clicks.
    """
    ious = []
    for records in paths:
        own = [record.iou for record in records]
        # Without an early stop, a loop ends before its time only where no error is left.
        ious.append(own + [own[-1] if own else 1.0] * (config.max_clicks - len(own)) if config.stop_at is None else own)
    found: dict[str, float | int] = {"num_samples": len(paths)}
    for percent in (85, 90, 95):
        if config.stop_at is None or config.stop_at >= percent / 100:
            found[f"noc_at_{percent}"] = float(np.mean(metrics.noc(ious, percent / 100, config.max_clicks)))
            found[f"nof_at_{percent}"] = metrics.nof(ious, percent / 100, config.max_clicks)
    if config.stop_at is None:
        for click in (1, 3, 5, 10, 20):
            if click <= config.max_clicks:
                found[f"miou_at_{click}"] = metrics.mean_iou_at(ious, click)
        pasted = [record.pasted_on for records in paths for record in records]
        if any(pasted):
            found["clicks_on_global"] = pasted.count(GLOBAL) / len(paths)
            found["clicks_on_previous"] = pasted.count(PREVIOUS) / len(paths)
    return found


def _write(out: Path, keys: Sequence[str], paths: Sequence[Sequence[Record]]) -> None:
    rows = [(i, t, record) for i, records in enumerate(paths) for t, record in enumerate(records, start=1)]
    np.savez_compressed(
        out / "clicks.npz",
        sample=np.array([i for i, _, _ in rows], np.int32),
        click=np.array([t for _, t, _ in rows], np.int16),
        x=np.array([record.click.x for _, _, record in rows], np.int32),
        y=np.array([record.click.y for _, _, record in rows], np.int32),
        positive=np.array([record.click.positive for _, _, record in rows], bool),
        iou=np.array([record.iou for _, _, record in rows], np.float32),
        pasted_on=np.array([record.pasted_on for _, _, record in rows], np.int8),
        error_ratio=np.array([record.error_ratio for _, _, record in rows], np.float32),
    )
    (out / "samples.json").write_text(json.dumps(list(keys)) + "\n")
