"""The two ways to paste and judge masks: one by one on the host, or those of a batch together on its device.

A judgement is a mask's IoU, and where the next click goes. Both ways have the same methods, which `samref.clickloop`
calls; what one of them gave, only the same one takes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samref import drawn_clicks, metrics, pixel_loops, run_lengths
from samref.backbones.backbone import GIVEN_LOGIT
from samref.clicks import Click, Errors, click_on, errors, own_click
from samref.config import EvaluateConfig
from samref.nodes import Node, Verdict, Wave
from samref.plugins import is_plugin
from samref.refiner import SamRef
from samref.refiner.model import Interaction
from samref.refiner.resample import Frames
from samref.threads import Map
from samref.transfers import Arriving, Waiting, to_device

BOUNDARY_CLICKS = (1, 5, 20)
"""After which clicks the boundary IoU is measured: it costs as much as all other measurements of a click."""


class Place(Protocol):
    """Where, and so how, the masks of a wave are pasted and judged."""

    def frames(self, samples: Sequence[int]) -> Sequence[tuple[int, int]] | Frames:
        """The frames of these samples, as the network takes them."""
        ...

    def begin(self, masks: Sequence[NDArray[np.bool_]]) -> tuple[Sequence[Tensor], Any]:
        """What first clicks need of the masks that they correct, each H×W; and the masks as `judge` takes them."""
        ...

    def previous(self, live: Sequence[Node]) -> Sequence[Tensor] | Tensor | None:
        """M_{t-1} of these nodes, as the network takes them; None before the first click."""
        ...

    def paste(
        self, interaction: Interaction, live: Sequence[Node], objects: Sequence[int], on_global: Sequence[bool]
    ) -> tuple[Sequence[Tensor | None], Any]:
        """What the next click of each branch needs of its result, and the branches' masks.

        Args:
            interaction: of the nodes.
            live: the nodes.
            objects: which of them each branch is of.
            on_global: whether its patch is pasted on G_t, and not on M_{t-1}.
        """
        ...

    def judge(self, nodes: Sequence[Node], masks: Any) -> Waiting[list[Verdict]]:
        """The verdicts on masks of these nodes; None: on empty ones."""
        ...


class OneByOne:
    """Pastes and judges masks one after the other, on the host: what a CPU does fastest."""

    def __init__(self, wave: Wave, network: SamRef, config: EvaluateConfig) -> None:
        self._wave = wave
        self._network = network
        self._config = config
        self.sizes: list[tuple[int, int]] = [truth.shape for truth in wave.truths]

    def frames(self, samples: Sequence[int]) -> list[tuple[int, int]]:
        return [self.sizes[sample] for sample in samples]

    def begin(self, masks: Sequence[NDArray[np.bool_]]) -> tuple[Sequence[Tensor], Sequence[NDArray[np.bool_]]]:
        return [torch.from_numpy(mask) * (2 * GIVEN_LOGIT) - GIVEN_LOGIT for mask in masks], masks

    def previous(self, live: Sequence[Node]) -> list[Tensor] | None:
        return [node.result_HW for node in live if node.result_HW is not None] or None

    def paste(
        self, interaction: Interaction, live: Sequence[Node], objects: Sequence[int], on_global: Sequence[bool]
    ) -> tuple[Sequence[Tensor | None], list[NDArray[np.bool_]]]:
        results: list[Tensor | None] = []
        masks = []
        for i, anew in zip(objects, on_global, strict=True):
            result, frame = None, self.sizes[live[i].sample]
            if interaction.patch is not None:
                result = self._network.paste(interaction, i, None if anew else live[i].result_HW, frame)
            results.append(result)
            logits = interaction.result_B1MM[i, 0] if result is None else result
            masks.append(above(logits.float().numpy(), frame, self._network.backbone.threshold))
        return results, masks

    def judge(self, nodes: Sequence[Node], masks: Sequence[NDArray[np.bool_]] | None) -> Waiting[list[Verdict]]:
        yield from ()  # here nothing waits
        found = []
        for i, node in enumerate(nodes):
            truth = self._wave.truths[node.sample]
            mask = np.zeros(truth.shape, bool) if masks is None else masks[i]
            wrong = errors(truth, mask)
            iou = metrics.iou_of_counts(self._wave.num_object[node.sample], wrong.num_missing, wrong.num_extra)
            click = None
            if len(node.records) < self._config.max_clicks:
                rng = _generator(self._wave, node, self._config)
                click = _next_click(self._config, truth, mask, node.clicks, rng, wrong)
            found.append(_verdict(self._wave, node, self._config, iou, click, mask))
        return found


class Together:
    """Pastes and judges a batch's masks at once, on their device: clicks, counts and masks that are kept travel."""

    def __init__(self, wave: Wave, network: SamRef, config: EvaluateConfig, each: Map) -> None:
        self._wave = wave
        self._network = network
        self._config = config
        self._each = each
        self._all_frames = wave.frames(network.result_size)
        self._frames = self._all_frames
        self._truth_SHW = wave.stacked(*self._all_frames.largest)

    def frames(self, samples: Sequence[int]) -> Frames:
        self._frames = self._all_frames.select(samples)
        return self._frames

    def begin(self, masks: Sequence[NDArray[np.bool_]]) -> tuple[Sequence[Tensor], Tensor]:
        stacked_BHW = np.zeros((len(masks), *self._all_frames.largest), bool)
        for to, mask in zip(stacked_BHW, masks, strict=True):
            to[: mask.shape[0], : mask.shape[1]] = mask
        on_device = to_device(stacked_BHW, self._wave.device)
        return on_device.unbind(), on_device

    def previous(self, live: Sequence[Node]) -> Tensor | None:
        results = [node.result_HW for node in live if node.result_HW is not None]
        return torch.stack(results) if results else None

    def paste(
        self, interaction: Interaction, live: Sequence[Node], objects: Sequence[int], on_global: Sequence[bool]
    ) -> tuple[Sequence[Tensor | None], Tensor]:
        previous = self.previous(live)
        masks = self._network.masks(interaction, self._frames, objects, previous, on_global)
        return masks.unbind() if interaction.patch is not None else [None] * len(masks), masks

    def judge(self, nodes: Sequence[Node], masks_BHW: Tensor | None) -> Waiting[list[Verdict]]:
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
        drawn, own = config.clicker != "ritm", is_plugin(config.clicker)
        all_masks = drawn or made == config.max_clicks or made in BOUNDARY_CLICKS
        found, *masks = yield Arriving(leaders, *([masks_BHW] if all_masks else []))
        clicks = device_clicks.clicks(found[:, 0].tolist(), self._all_frames.largest[1])
        ious = [
            metrics.iou_of_counts(wave.num_object[node.sample], *map(int, counts))
            for node, counts in zip(nodes, found[:, 1:], strict=True)
        ]
        if made == config.max_clicks:
            clicks = [None] * len(nodes)
        needed = [i for i in range(len(nodes)) if all_masks or _is_last(config, ious[i], clicks[i])]
        if needed and not all_masks:
            masks = yield Arriving(masks_BHW[to_device(torch.tensor(needed), device)])
        of = dict(zip(needed, masks[0] if masks else (), strict=True))

        def verdict(i: int) -> Verdict:
            node, click = nodes[i], clicks[i]
            truth = wave.truths[node.sample]
            mask = of[i][: truth.shape[0], : truth.shape[1]] if i in of else None
            if drawn and (click is not None or (own and made < config.max_clicks)):
                assert mask is not None
                rng = _generator(wave, node, config)
                click = _next_click(config, truth, mask, node.clicks, rng)
            return _verdict(wave, node, config, ious[i], click, mask)

        if not all_masks:  # nothing to measure: threads would take longer to be told of it
            return list(map(verdict, range(len(nodes))))

        def measure() -> list[Verdict] | str:
            try:
                return list(self._each(verdict, range(len(nodes))))
            except torch.OutOfMemoryError as error:  # of a clicker of one's own
                return str(error)

        measured: list[Verdict] | str = yield Arriving(then=measure)
        if isinstance(measured, str):  # here, where the wave's own work can be done again in halves
            raise torch.OutOfMemoryError(measured)
        return measured


def above(logits: NDArray[np.float32], frame: tuple[int, int], threshold: float) -> NDArray[np.bool_]:
    """Where logits are above the threshold in the frame H×W, to which they are resized (bilinear)."""
    # On one thread numpy compares eight times as fast as torch 2.15 does.
    if logits.shape == frame:
        return logits > np.float32(threshold)
    return pixel_loops.above(logits, *frame, threshold)


def _is_last(config: EvaluateConfig, iou: float, following: Click | None) -> bool:
    return following is None or (config.stop_at is not None and iou >= config.stop_at)


def _verdict(
    wave: Wave, node: Node, config: EvaluateConfig, iou: float, following: Click | None, mask_HW: NDArray[Any] | None
) -> Verdict:
    """The verdict on a mask, which may be None where neither its boundary nor itself is wanted."""
    if not node.records:
        return Verdict(iou, math.nan, following, None)
    boundary, last = math.nan, None
    # Where it is reported: after some clicks, and after the last one of a sample on which nothing is left to do.
    if len(node.records) in BOUNDARY_CLICKS or following is None:
        assert mask_HW is not None
        truth, true = wave.inside(node.sample, wave.truths[node.sample]), wave.boundary(node.sample)
        boundary = metrics.boundary_iou(truth, wave.inside(node.sample, mask_HW), true_boundary_HW=true)
    if _is_last(config, iou, following):
        assert mask_HW is not None
        following, last = None, run_lengths.encode(wave.inside(node.sample, mask_HW))
    return Verdict(iou, boundary, following, last)


def _next_click(
    config: EvaluateConfig,
    truth_HW: NDArray[np.int8],
    mask_HW: NDArray[np.bool_],
    clicks: Sequence[Click],
    rng: np.random.Generator | None,
    wrong: Errors | None = None,
) -> Click | None:
    """The clicker's next click; `wrong` are the mask's errors, where they are known."""
    if is_plugin(config.clicker):
        return own_click(config.clicker, truth_HW, mask_HW, clicks, rng)
    wrong = wrong or errors(truth_HW, mask_HW)
    if config.clicker not in drawn_clicks.DRAWN:
        return click_on(wrong, clicks, clicker=config.clicker, rng=rng)
    assert rng is not None
    mass = config.click_slice or (0.0, 1.0)
    return drawn_clicks.draw(wrong, clicks, config.clicker, rng, noise_px=config.click_noise_px, mass=mass)


def _generator(wave: Wave, node: Node, config: EvaluateConfig) -> np.random.Generator | None:
    if config.clicker == "ritm":
        return None
    # What is drawn depends on the sample and the click alone, not on the order of the work.
    return np.random.default_rng([node.seed, wave.first + node.sample, len(node.records)])
