"""All clicks of some samples, under several θ at once.

The unit of work is a node: one sample under one set of θ values that have decided alike so far. All live nodes of a
wave make one click per round; where the selector's decision differs between the θ of a node, it splits. Several θ thus
cost their distinct paths, and each gets the result of a run of its own.

Knows nothing of datasets, files or threads: `samref.evaluate` gives waves and decides how large they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samref import device_clicks, metrics, pixel_loops, run_lengths
from samref.clicks import Click, click_on, errors, next_click
from samref.config import EvaluateConfig
from samref.refiner import SamRef
from samref.refiner.model import Context, upscale
from samref.refiner.selector import error_ratio, paste_on_global
from samref.run_lengths import RunLengths

NO_SELECTOR, GLOBAL, PREVIOUS = 0, 1, 2
BOUNDARY_CLICKS = (1, 5, 20)
"""After which clicks the boundary IoU is measured: it costs as much as all other measurements of a click."""


class Record(NamedTuple):
    """One click and what it led to."""

    click: Click
    iou: float
    boundary_iou: float
    """NaN where it was not measured."""
    pasted_on: int
    error_ratio: float


class Trajectory(NamedTuple):
    """One sample under one θ: what was clicked, and what came of it."""

    records: tuple[Record, ...]
    """In the order of the clicks."""
    mask: RunLengths | None
    """After the last click, at the original resolution; None where none was made."""


class Verdict(NamedTuple):
    """What the truth says of a mask."""

    iou: float
    boundary_iou: float
    next_click: Click | None


@dataclass(frozen=True)
class _Node:
    """One sample on one path of selector decisions."""

    sample: int  # position in the wave
    thetas: tuple[int, ...]  # positions of the configurations that share this path
    click: Click | None  # the next one
    records: tuple[Record, ...] = ()
    coarse_1MM: Tensor | None = None  # S_{t-1}
    result_HW: Tensor | None = None  # M_{t-1}, where a selector may paste on it
    area: int = -1  # ‖H(E_{t-1})‖₀; -1 before the first click
    mask: RunLengths | None = None  # once there is no next click

    @property
    def clicks(self) -> list[Click]:
        """Those that were made, and the next one."""
        made = [record.click for record in self.records]
        return made if self.click is None else [*made, self.click]


@dataclass(frozen=True)
class Wave:
    """The samples whose nodes advance together."""

    first: int
    """Position in the dataset of its first sample."""
    truths: list[NDArray[np.int8]]
    contexts: list[Context]

    @cached_property
    def num_object(self) -> list[int]:
        """Pixels of each object."""
        return [int(np.count_nonzero(truth == 1)) for truth in self.truths]

    @cached_property
    def boundaries(self) -> list[NDArray[np.bool_]]:
        """Of each object."""
        return [metrics.boundary(truth == 1) for truth in self.truths]

    @property
    def device(self) -> torch.device:
        """Where the features are."""
        return self.contexts[0].features["embedding"].device

    @cached_property
    def stacked(self) -> Tensor:
        """The truths as one int8 tensor beside the features; what a smaller one lacks is ignored."""
        height, width = (max(truth.shape[axis] for truth in self.truths) for axis in (0, 1))
        stacked = np.full((len(self.truths), height, width), -1, np.int8)
        for i, truth in enumerate(self.truths):
            stacked[i, : truth.shape[0], : truth.shape[1]] = truth
        return torch.from_numpy(stacked).to(self.device)


class ClickLoop:
    """Makes all clicks of a wave of samples under several θ; may be called from several threads at once."""

    def __init__(self, network: SamRef, config: EvaluateConfig, thetas: Sequence[float], *, batch: int) -> None:
        """`batch` is the most nodes of one call of the network."""
        self._network = network
        self._config = config
        self._thetas = thetas
        self._batch = batch

    @torch.inference_mode()
    def run(self, wave: Wave) -> tuple[list[list[Trajectory]], int]:
        """For each θ, for each sample of the wave, its trajectory; and the decoder calls, counted in nodes."""
        judge = _on_host if wave.device.type == "cpu" else _on_device
        everywhere = tuple(range(len(self._thetas)))
        empty = [torch.zeros(truth.shape, dtype=torch.bool) for truth in wave.truths]
        nodes = [_Node(i, everywhere, None) for i in range(len(wave.truths))]
        nodes = [
            _Node(node.sample, everywhere, verdict.next_click)
            for node, verdict in zip(nodes, judge(wave, nodes, empty, self._config), strict=True)
        ]
        finished: list[_Node] = []
        calls = 0
        for _ in range(self._config.max_clicks):
            live = [node for node in nodes if node.click is not None]
            finished += [node for node in nodes if node.click is None]
            calls += len(live)
            nodes = []
            for start in range(0, len(live), self._batch):
                branches, masks = self._advance(wave, live[start : start + self._batch])
                verdicts = judge(wave, branches, masks, self._config)
                nodes += [self._judged(*each) for each in zip(branches, masks, verdicts, strict=True)]
        found = [[Trajectory((), None)] * len(wave.truths) for _ in self._thetas]
        for node in finished + nodes:
            for theta in node.thetas:
                found[theta][node.sample] = Trajectory(node.records, node.mask)
        return found, calls

    def _advance(self, wave: Wave, live: Sequence[_Node]) -> tuple[list[_Node], list[Tensor]]:
        """Make the next click of these nodes: their branches, whose last record is not judged yet, and their masks."""
        first = live[0].coarse_1MM is None
        frames = [wave.truths[node.sample].shape for node in live]
        context = Context.join([wave.contexts[node.sample] for node in live])
        coarse = None if first else torch.stack([node.coarse_1MM for node in live if node.coarse_1MM is not None])
        results = [node.result_HW for node in live if node.result_HW is not None] or None
        interaction = self._network(context, [node.clicks for node in live], coarse, results, frames)

        selects = interaction.patch is not None
        ratios, areas = [math.nan] * len(live), [-1] * len(live)
        if selects and interaction.error_area_B is not None:
            areas = interaction.error_area_B.tolist()
            before = torch.tensor([node.area for node in live], device=interaction.error_area_B.device)
            ratios = error_ratio(interaction.error_area_B, before).tolist()

        branches, masks = [], []
        for i, (node, frame) in enumerate(zip(live, frames, strict=True)):
            assert node.click is not None
            for on_global, thetas in self._decide(node, ratios[i]):
                result = None
                if selects:
                    result = self._network.paste(interaction, i, None if on_global else node.result_HW, frame)
                pasted_on = NO_SELECTOR if not selects else GLOBAL if on_global else PREVIOUS
                record = Record(node.click, math.nan, math.nan, pasted_on, ratios[i])
                made = (*node.records, record)
                branches.append(_Node(node.sample, thetas, None, made, interaction.coarse_B1MM[i], result, areas[i]))
                logits = interaction.result_B1MM[i, 0] if result is None else result
                masks.append(_above(logits, frame, self._network.backbone.threshold))
        return branches, masks

    def _decide(self, node: _Node, ratio: float) -> Iterator[tuple[bool, tuple[int, ...]]]:
        """The θ values of a node by their decision: one or two groups."""
        decisions = {theta: paste_on_global(ratio, self._thetas[theta]) for theta in node.thetas}
        for on_global in (True, False):
            agreeing = tuple(theta for theta, decision in decisions.items() if decision is on_global)
            if agreeing:
                yield on_global, agreeing

    def _judged(self, node: _Node, mask_HW: Tensor, verdict: Verdict) -> _Node:
        """The node with its verdict; one that makes no further click keeps its mask, and nothing that a click needs."""
        last = node.records[-1]._replace(iou=verdict.iou, boundary_iou=verdict.boundary_iou)
        records = (*node.records[:-1], last)
        enough = self._config.stop_at is not None and verdict.iou >= self._config.stop_at
        if verdict.next_click is None or enough:
            mask = run_lengths.encode(mask_HW.cpu().numpy())
            return _Node(node.sample, node.thetas, None, records, mask=mask)
        return _Node(node.sample, node.thetas, verdict.next_click, records, node.coarse_1MM, node.result_HW, node.area)


def _above(logits: Tensor, frame: tuple[int, int], threshold: float) -> Tensor:
    """Where logits are above the threshold in the frame H×W, to which they are resized (bilinear): bool."""
    if logits.is_cuda:
        return (logits if logits.shape == frame else upscale(logits, frame)) > threshold
    # On one thread numpy compares eight times as fast as torch 2.15 does.
    if logits.shape == frame:
        return torch.from_numpy(logits.numpy() > np.float32(threshold))
    return torch.from_numpy(pixel_loops.above(logits.float().numpy(), *frame, threshold))


def _on_host(wave: Wave, nodes: Sequence[_Node], masks: Sequence[Tensor], config: EvaluateConfig) -> list[Verdict]:
    """The verdicts on masks H×W (bool) of these nodes, by samref.clicks and samref.metrics."""
    found = []
    for node, mask_HW in zip(nodes, masks, strict=True):
        truth, mask = wave.truths[node.sample], mask_HW.numpy()
        wrong = errors(truth, mask)
        iou = metrics.iou_of_counts(wave.num_object[node.sample], wrong.num_missing, wrong.num_extra)
        click = None
        if len(node.records) < config.max_clicks:
            rng = _generator(wave, node, config)
            click = click_on(wrong, node.clicks, clicker=config.clicker, rng=rng)
        found.append(Verdict(iou, _boundary_iou(wave, mask, node, click), click))
    return found


def _on_device(wave: Wave, nodes: Sequence[_Node], masks: Sequence[Tensor], config: EvaluateConfig) -> list[Verdict]:
    """The same where the masks are: only counts and clicks travel, and the masks whose boundary IoU is due."""
    truths = wave.stacked[[node.sample for node in nodes]]
    stacked = torch.zeros(truths.shape, dtype=torch.bool, device=wave.device)
    for i, mask_HW in enumerate(masks):
        stacked[i, : mask_HW.shape[0], : mask_HW.shape[1]] = mask_HW
    counts, clicks = device_clicks.judge(truths, stacked, [node.clicks for node in nodes])
    found = []
    for node, mask_HW, count, following in zip(nodes, masks, counts, clicks, strict=True):
        truth, click = wave.truths[node.sample], following
        if config.clicker == "interformer":  # its ties are drawn, from a list of pixels
            rng = _generator(wave, node, config)
            click = next_click(truth, mask_HW.cpu().numpy(), node.clicks, clicker=config.clicker, rng=rng)
        if len(node.records) == config.max_clicks:
            click = None
        boundary = _boundary_iou(wave, mask_HW, node, click)
        found.append(Verdict(metrics.iou_of_counts(*count), boundary, click))
    return found


def _generator(wave: Wave, node: _Node, config: EvaluateConfig) -> np.random.Generator | None:
    if config.clicker == "ritm":
        return None
    # Drawn ties hang on the sample and the click alone, not on the order of the work.
    return np.random.default_rng([config.seed, wave.first + node.sample, len(node.records)])


def _boundary_iou(wave: Wave, mask_HW: Tensor | NDArray[np.bool_], node: _Node, following: Click | None) -> float:
    """Where it is reported: after some clicks, and after the last one of a sample on which nothing is left to do."""
    if not node.records or (len(node.records) not in BOUNDARY_CLICKS and following is not None):
        return math.nan
    mask = mask_HW.cpu().numpy() if isinstance(mask_HW, Tensor) else mask_HW
    true = wave.boundaries[node.sample]
    return metrics.boundary_iou(wave.truths[node.sample], mask, true_boundary_HW=true)
