"""All clicks of some samples, under several θ at once.

The unit of work is a node: one sample under one set of θ values that have decided alike so far. All live nodes of a
wave make one click per round; where the selector's decision differs between the θ of a node, it splits. Several θ thus
cost their distinct paths, and each gets the result of a run of its own.

Knows nothing of datasets, files or threads: `samref.evaluate` gives waves and decides how large they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samref import metrics, pixel_loops, run_lengths
from samref.clicks import Click, click_on, errors, next_click
from samref.config import EvaluateConfig
from samref.refiner import SamRef
from samref.refiner.model import Context, Interaction
from samref.refiner.resample import Frames
from samref.refiner.selector import error_ratio, paste_on_global
from samref.run_lengths import RunLengths
from samref.transfers import to_device, to_host

Map = Callable[[Callable[[int], Any], Sequence[int]], Iterator[Any]]

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
    """None: the mask is the last one."""
    last_mask: RunLengths | None


@dataclass(frozen=True)
class _Node:
    """One sample on one path of selector decisions."""

    sample: int  # position in the wave
    thetas: tuple[int, ...]  # positions of the configurations that share this path
    click: Click | None  # the next one
    records: tuple[Record, ...] = ()
    coarse_1MM: Tensor | None = None  # S_{t-1}
    result_HW: Tensor | None = None  # M_{t-1}, where a selector may paste on it: its logits, or in a batch its mask
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
    context: Context
    """Of all the samples; with `Images` where they are played in batches."""
    _boundaries: dict[int, NDArray[np.bool_]] = field(default_factory=dict)

    @cached_property
    def num_object(self) -> list[int]:
        """Pixels of each object."""
        return [int(np.count_nonzero(truth == 1)) for truth in self.truths]

    def boundary(self, sample: int) -> NDArray[np.bool_]:
        """Of one object, computed when first asked for."""
        if sample not in self._boundaries:
            self._boundaries[sample] = metrics.boundary(self.truths[sample] == 1)
        return self._boundaries[sample]

    @property
    def device(self) -> torch.device:
        """Where the features are."""
        return self.context.features["embedding"].device

    def frames(self, mask_size: int) -> Frames:
        """Of the truths, for logits of that side."""
        return Frames.of([truth.shape for truth in self.truths], mask_size, self.device)

    def stacked(self, height: int, width: int) -> Tensor:
        """The truths as one int8 tensor beside the features; what a smaller one lacks is ignored."""
        stacked = np.full((len(self.truths), height, width), -1, np.int8)
        for i, truth in enumerate(self.truths):
            stacked[i, : truth.shape[0], : truth.shape[1]] = truth
        return to_device(stacked, self.device)


class _OneByOne:
    """A wave's masks and judgements one after the other, on the host: what a CPU does fastest."""

    def __init__(self, wave: Wave, network: SamRef, config: EvaluateConfig) -> None:
        self._wave = wave
        self._network = network
        self._config = config
        self.sizes: list[tuple[int, int]] = [truth.shape for truth in wave.truths]

    def frames(self, samples: Sequence[int]) -> list[tuple[int, int]]:
        return [self.sizes[sample] for sample in samples]

    def previous(self, live: Sequence[_Node]) -> list[Tensor] | None:
        return [node.result_HW for node in live if node.result_HW is not None] or None

    def paste(
        self, interaction: Interaction, live: Sequence[_Node], objects: Sequence[int], on_global: Sequence[bool]
    ) -> tuple[Sequence[Tensor | None], list[NDArray[np.bool_]]]:
        """What the next click of each branch needs of its result, and its mask."""
        results: list[Tensor | None] = []
        masks = []
        for i, anew in zip(objects, on_global, strict=True):
            result, frame = None, self.sizes[live[i].sample]
            if interaction.patch is not None:
                result = self._network.paste(interaction, i, None if anew else live[i].result_HW, frame)
            results.append(result)
            logits = interaction.result_B1MM[i, 0] if result is None else result
            masks.append(_above(logits.numpy(), frame, self._network.backbone.threshold))
        return results, masks

    def judge(self, nodes: Sequence[_Node], masks: Sequence[NDArray[np.bool_]] | None) -> list[Verdict]:
        found = []
        for i, node in enumerate(nodes):
            truth = self._wave.truths[node.sample]
            mask = np.zeros(truth.shape, bool) if masks is None else masks[i]
            wrong = errors(truth, mask)
            iou = metrics.iou_of_counts(self._wave.num_object[node.sample], wrong.num_missing, wrong.num_extra)
            click = None
            if len(node.records) < self._config.max_clicks:
                rng = _generator(self._wave, node, self._config)
                click = click_on(wrong, node.clicks, clicker=self._config.clicker, rng=rng)
            found.append(_verdict(self._wave, node, self._config, iou, click, mask))
        return found


class _Together:
    """The same for all of a wave at once, on its device: only clicks, counts and masks that are kept travel."""

    def __init__(self, wave: Wave, network: SamRef, config: EvaluateConfig, each: Map) -> None:
        self._wave = wave
        self._network = network
        self._config = config
        self._each = each
        self._all_frames = wave.frames(network.backbone.mask_size)
        self._frames = self._all_frames
        self._truth_SHW = wave.stacked(*self._all_frames.largest)

    def frames(self, samples: Sequence[int]) -> Frames:
        self._frames = self._all_frames.select(samples)
        return self._frames

    def previous(self, live: Sequence[_Node]) -> Tensor | None:
        results = [node.result_HW for node in live if node.result_HW is not None]
        return torch.stack(results) if results else None

    def paste(
        self, interaction: Interaction, live: Sequence[_Node], objects: Sequence[int], on_global: Sequence[bool]
    ) -> tuple[Sequence[Tensor | None], Tensor]:
        previous = self.previous(live)
        masks = self._network.masks(interaction, self._frames, objects, previous, on_global)
        return masks.unbind() if interaction.patch is not None else [None] * len(masks), masks

    def judge(self, nodes: Sequence[_Node], masks_BHW: Tensor | None) -> list[Verdict]:
        from samref import device_clicks  # Triton comes with torch's builds for GPUs

        wave, config, device = self._wave, self._config, self._wave.device
        if masks_BHW is None:
            masks_BHW = torch.zeros(len(nodes), *self._all_frames.largest, dtype=torch.bool, device=device)
        made = len(nodes[0].records)
        clicked = np.full((len(nodes), max(1, made), 2), -1, np.int32)
        for i, node in enumerate(nodes):
            for j, click in enumerate(node.clicks):
                clicked[i, j] = click[:2]
        samples = to_device(torch.tensor([node.sample for node in nodes]), device)
        leaders = device_clicks.judge(self._truth_SHW, samples, masks_BHW, to_device(clicked, device))
        # Ties that are drawn are drawn from a list of pixels, on the host.
        drawn = config.clicker != "ritm"
        all_masks = drawn or made == config.max_clicks or made in BOUNDARY_CLICKS
        found, *masks = to_host(leaders, *([masks_BHW] if all_masks else []))
        clicks = device_clicks.clicks(found[:, 0].tolist(), self._all_frames.largest[1])
        ious = [
            metrics.iou_of_counts(wave.num_object[node.sample], *map(int, counts))
            for node, counts in zip(nodes, found[:, 1:], strict=True)
        ]
        if made == config.max_clicks:
            clicks = [None] * len(nodes)
        needed = [i for i in range(len(nodes)) if all_masks or _is_last(config, ious[i], clicks[i])]
        if needed and not all_masks:
            masks = to_host(masks_BHW[to_device(torch.tensor(needed), device)])
        of = dict(zip(needed, masks[0] if masks else (), strict=True))

        def verdict(i: int) -> Verdict:
            node, click = nodes[i], clicks[i]
            truth = wave.truths[node.sample]
            mask = of[i][: truth.shape[0], : truth.shape[1]] if i in of else None
            if drawn and click is not None:
                assert mask is not None
                rng = _generator(wave, node, config)
                click = next_click(truth, mask, node.clicks, clicker=config.clicker, rng=rng)
            return _verdict(wave, node, config, ious[i], click, mask)

        return list(self._each(verdict, range(len(nodes))))


class ClickLoop:
    """Makes all clicks of a wave of samples under several θ; may be called from several threads at once."""

    def __init__(
        self,
        network: SamRef,
        config: EvaluateConfig,
        thetas: Sequence[float],
        *,
        batch: int,
        together: bool = False,
        each: Map = map,
    ) -> None:
        """Prepare to play.

        Args:
            network: the model.
            config: the evaluation.
            thetas: the values of θ.
            batch: the most nodes of one call of the network.
            together: all other work is done for a batch at once as well, where the features are: what a GPU needs, by
                Triton. Else it is done node by node, on the host.
            each: calls a function with each of the items, perhaps in threads.
        """
        self._network = network
        self._config = config
        self._thetas = thetas
        self._batch = batch
        self._together = together
        self._each = each

    @torch.inference_mode()
    def run(self, wave: Wave) -> tuple[list[list[Trajectory]], int]:
        """For each θ, for each sample of the wave, its trajectory; and the decoder calls, counted in nodes."""
        place: Any  # of one kind or the other; each takes what it gave
        if self._together:
            place = _Together(wave, self._network, self._config, self._each)
        else:
            place = _OneByOne(wave, self._network, self._config)
        everywhere = tuple(range(len(self._thetas)))
        nodes = [_Node(i, everywhere, None) for i in range(len(wave.truths))]
        nodes = [
            _Node(node.sample, everywhere, verdict.next_click)
            for node, verdict in zip(nodes, place.judge(nodes, None), strict=True)
        ]
        finished: list[_Node] = []
        calls = 0
        for _ in range(self._config.max_clicks):
            live = [node for node in nodes if node.click is not None]
            finished += [node for node in nodes if node.click is None]
            calls += len(live)
            nodes = []
            for start in range(0, len(live), self._batch):
                branches, masks = self._advance(wave, place, live[start : start + self._batch])
                nodes += map(_judged, branches, place.judge(branches, masks))
        found = [[Trajectory((), None)] * len(wave.truths) for _ in self._thetas]
        for node in finished + nodes:
            for theta in node.thetas:
                found[theta][node.sample] = Trajectory(node.records, node.mask)
        return found, calls

    def _advance(self, wave: Wave, place: Any, live: Sequence[_Node]) -> tuple[list[_Node], Any]:
        """Make the next click of these nodes: their branches, whose last record is not judged yet, and their masks."""
        first = live[0].coarse_1MM is None
        samples = [node.sample for node in live]
        coarse = None if first else torch.stack([node.coarse_1MM for node in live if node.coarse_1MM is not None])
        interaction = self._network(
            wave.context.select(samples),
            [node.clicks for node in live],
            coarse,
            place.previous(live),
            place.frames(samples),
        )

        selects = interaction.patch is not None
        ratios, areas = [math.nan] * len(live), [-1] * len(live)
        if selects and interaction.error_area_B is not None:
            areas = interaction.error_area_B.tolist()
            ratios = error_ratio(interaction.error_area_B, torch.tensor([node.area for node in live])).tolist()

        decided = [(i, *decision) for i, node in enumerate(live) for decision in self._decide(node, ratios[i])]
        objects, on_global, thetas = zip(*decided, strict=True)
        results, masks = place.paste(interaction, live, objects, on_global)
        coarse_of = interaction.coarse_B1MM.unbind()
        branches = []
        for i, anew, own, result in zip(objects, on_global, thetas, results, strict=True):
            click = live[i].click
            assert click is not None
            pasted_on = NO_SELECTOR if not selects else GLOBAL if anew else PREVIOUS
            made = (*live[i].records, Record(click, math.nan, math.nan, pasted_on, ratios[i]))
            branches.append(_Node(live[i].sample, own, None, made, coarse_of[i], result, areas[i]))
        return branches, masks

    def _decide(self, node: _Node, ratio: float) -> Iterator[tuple[bool, tuple[int, ...]]]:
        """The θ values of a node by their decision: one or two groups."""
        decisions = {theta: paste_on_global(ratio, self._thetas[theta]) for theta in node.thetas}
        for on_global in (True, False):
            agreeing = tuple(theta for theta, decision in decisions.items() if decision is on_global)
            if agreeing:
                yield on_global, agreeing


def _judged(node: _Node, verdict: Verdict) -> _Node:
    """The node with its verdict; one that makes no further click keeps its mask, and nothing that a click needs."""
    last = node.records[-1]._replace(iou=verdict.iou, boundary_iou=verdict.boundary_iou)
    records = (*node.records[:-1], last)
    if verdict.next_click is None:
        return _Node(node.sample, node.thetas, None, records, mask=verdict.last_mask)
    return _Node(node.sample, node.thetas, verdict.next_click, records, node.coarse_1MM, node.result_HW, node.area)


def _above(logits: NDArray[np.float32], frame: tuple[int, int], threshold: float) -> NDArray[np.bool_]:
    """Where logits are above the threshold in the frame H×W, to which they are resized (bilinear)."""
    # On one thread numpy compares eight times as fast as torch 2.15 does.
    if logits.shape == frame:
        return logits > np.float32(threshold)
    return pixel_loops.above(logits, *frame, threshold)


def _is_last(config: EvaluateConfig, iou: float, following: Click | None) -> bool:
    return following is None or (config.stop_at is not None and iou >= config.stop_at)


def _verdict(
    wave: Wave, node: _Node, config: EvaluateConfig, iou: float, following: Click | None, mask_HW: NDArray[Any] | None
) -> Verdict:
    """The verdict on a mask, which may be None where neither its boundary nor itself is wanted."""
    if not node.records:
        return Verdict(iou, math.nan, following, None)
    boundary, last = math.nan, None
    # Where it is reported: after some clicks, and after the last one of a sample on which nothing is left to do.
    if len(node.records) in BOUNDARY_CLICKS or following is None:
        assert mask_HW is not None
        truth, true = wave.truths[node.sample], wave.boundary(node.sample)
        boundary = metrics.boundary_iou(truth, mask_HW, true_boundary_HW=true)
    if _is_last(config, iou, following):
        assert mask_HW is not None
        following, last = None, run_lengths.encode(mask_HW)
    return Verdict(iou, boundary, following, last)


def _generator(wave: Wave, node: _Node, config: EvaluateConfig) -> np.random.Generator | None:
    if config.clicker == "ritm":
        return None
    # Drawn ties depend on the sample and the click alone, not on the order of the work.
    return np.random.default_rng([config.seed, wave.first + node.sample, len(node.records)])
