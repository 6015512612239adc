"""All clicks of some samples, under several θ at once.

The unit of work is a node: one sample under one set of θ values that have decided alike so far. All live nodes of a
wave make one click per round; where the selector's decision differs between the θ of a node, it splits. Several θ thus
cost their distinct paths, and each gets the result of a run of its own.

Knows nothing of datasets, files or threads: `samref.evaluate` gives waves and decides how large they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from samref.config import EvaluateConfig
from samref.judging import (
    GLOBAL,
    NO_SELECTOR,
    PREVIOUS,
    Map,
    Node,
    OneByOne,
    Place,
    Record,
    Together,
    Verdict,
    Wave,
)
from samref.refiner import SamRef
from samref.refiner.selector import error_ratio, paste_on_global
from samref.run_lengths import RunLengths


class Trajectory(NamedTuple):
    """One sample under one θ: what was clicked, and what came of it."""

    records: tuple[Record, ...]
    """In the order of the clicks."""
    mask: RunLengths | None
    """After the last click, at the original resolution; None where none was made."""


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
        place: Place
        if self._together:
            place = Together(wave, self._network, self._config, self._each)
        else:
            place = OneByOne(wave, self._network, self._config)
        everywhere = tuple(range(len(self._thetas)))
        nodes = [Node(i, everywhere, None) for i in range(len(wave.truths))]
        nodes = [
            Node(node.sample, everywhere, verdict.next_click)
            for node, verdict in zip(nodes, place.judge(nodes, None), strict=True)
        ]
        finished: list[Node] = []
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

    def _advance(self, wave: Wave, place: Place, live: Sequence[Node]) -> tuple[list[Node], Any]:
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
            branches.append(Node(live[i].sample, own, None, made, coarse_of[i], result, areas[i]))
        return branches, masks

    def _decide(self, node: Node, ratio: float) -> Iterator[tuple[bool, tuple[int, ...]]]:
        """The θ values of a node by their decision: one or two groups."""
        decisions = {theta: paste_on_global(ratio, self._thetas[theta]) for theta in node.thetas}
        for on_global in (True, False):
            agreeing = tuple(theta for theta, decision in decisions.items() if decision is on_global)
            if agreeing:
                yield on_global, agreeing


def _judged(node: Node, verdict: Verdict) -> Node:
    """The node with its verdict; one that makes no further click keeps its mask, and nothing that a click needs."""
    last = node.records[-1]._replace(iou=verdict.iou, boundary_iou=verdict.boundary_iou)
    records = (*node.records[:-1], last)
    if verdict.next_click is None:
        return Node(node.sample, node.thetas, None, records, mask=verdict.last_mask)
    return Node(node.sample, node.thetas, verdict.next_click, records, node.coarse_1MM, node.result_HW, node.area)
