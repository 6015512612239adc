"""All clicks of some samples, under several θ at once.

The unit of work is a node: one sample under the θ that have decided alike so far, an interval (`samref.thetas`). All
live nodes of a wave make one click per round; where the selector's decision differs between the θ of a node, it splits.
Several θ, or all of an interval, thus cost their distinct paths, and each gets the result of a run of its own.

Knows nothing of datasets, files or threads: `samref.evaluation` gives waves and decides how large they are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from samref.config import EvaluateConfig
from samref.judging import OneByOne, Place, Together
from samref.nodes import GLOBAL, NO_SELECTOR, PREVIOUS, Node, Record, Verdict, Wave
from samref.refiner import SamRef
from samref.refiner.selector import error_ratio
from samref.run_lengths import RunLengths
from samref.thetas import Thetas
from samref.threads import Map
from samref.transfers import Waiting, finish

MOST_PATHS = 2048
"""Most paths of one sample: twenty clicks can part an interval of θ half a million times, a trained refiner does a few
dozen times."""


class Trajectory(NamedTuple):
    """One sample under the θ of an interval: what was clicked, and what came of it."""

    records: tuple[Record, ...]
    """In the order of the clicks."""
    mask: RunLengths | None
    """After the last click, at the original resolution; None where none was made."""
    above: float = -math.inf
    """It is that of the θ greater than this,"""
    upto: float = math.inf
    """up to and including this."""
    seed: int = 0
    """Seed of what was drawn, or of whose first click it is."""
    start_iou: float = math.nan
    """IoU of the mask that the first click corrected."""


class TooManyPathsError(ValueError):
    """The θ of an interval part so often on one sample that it would never end; holds the sample's position."""


class ClickLoop:
    """Makes all clicks of a wave of samples under several θ; may be called from several threads at once."""

    def __init__(
        self,
        network: SamRef,
        config: EvaluateConfig,
        thetas: Thetas,
        *,
        batch: int,
        together: bool = False,
        each: Map = map,
    ) -> None:
        """Prepare to play.

        Args:
            network: the model.
            config: the evaluation.
            thetas: the θ.
            batch: the most nodes of one call of the network.
            together: all other work is done for a batch at once as well, where the features are: what a GPU needs, by
                Triton. Else it is done node by node, on the host.
            each: measures each of the masks, perhaps in threads.
        """
        self._network = network
        self._config = config
        self._thetas = thetas
        self._batch = batch
        self._together = together
        self._each = each

    @torch.inference_mode()
    def run(self, wave: Wave, seeds: Sequence[int] | None = None) -> tuple[list[list[Trajectory]], int]:
        """For each sample of the wave its trajectories by seed and rising θ; and the decoder calls, counted in nodes.

        `seeds`, of each of which every sample has a first click; None: the evaluation's own.

        Raises:
            TooManyPathsError: all θ of an interval are asked for, and on one sample they part too often.
        """
        return finish(self.play(wave, seeds))

    def play(self, wave: Wave, seeds: Sequence[int] | None = None) -> Waiting[tuple[list[list[Trajectory]], int]]:
        """Do what `run` does, without gradient, for one who has other work where it waits."""
        place: Place
        if self._together:
            place = Together(wave, self._network, self._config, self._each)
        else:
            place = OneByOne(wave, self._network, self._config)
        nodes = yield from self._begin(wave, place, seeds or [self._config.seed])
        finished: list[Node] = []
        calls = 0
        for _ in range(self._config.max_clicks):
            live = [node for node in nodes if node.click is not None]
            finished += [node for node in nodes if node.click is None]
            calls += len(live)
            nodes = []
            for start in range(0, len(live), self._batch):
                branches, masks = yield from self._advance(wave, place, live[start : start + self._batch])
                verdicts = yield from place.judge(branches, masks)
                nodes += map(_judged, branches, verdicts)
            self._check_paths(wave, nodes)
        found: list[list[Trajectory]] = [[] for _ in wave.truths]
        for node in sorted(finished + nodes, key=lambda node: (node.seed, node.above)):
            own = Trajectory(node.records, node.mask, node.above, node.upto, node.seed, node.start_iou)
            found[node.sample].append(own)
        return found, calls

    def _begin(self, wave: Wave, place: Place, seeds: Sequence[int]) -> Waiting[list[Node]]:
        """A node for each sample and seed, with its first click."""
        all_thetas = self._thetas.above, self._thetas.upto
        nodes = [Node(i, *all_thetas, None, seed=seeds[0]) for i in range(len(wave.truths))]
        given = wave.first_masks(nodes)
        results, masks = place.begin(given) if given else ([None] * len(nodes), None)
        verdicts = yield from place.judge(nodes, masks)
        begun = []
        for node, result, verdict in zip(nodes, results, verdicts, strict=True):
            first = wave.starts[node.sample].clicks if wave.starts else {}
            iou = math.nan if masks is None else verdict.iou
            for seed in seeds:
                click = first.get(seed, verdict.next_click)
                begun.append(replace(node, click=click, seed=seed, result_HW=result, start_iou=iou))
        return begun

    def _check_paths(self, wave: Wave, nodes: Sequence[Node]) -> None:
        counts = Counter((node.sample, node.seed) for node in nodes)
        (sample, _), paths = max(counts.items(), key=lambda item: item[1], default=((0, 0), 0))
        if paths > MOST_PATHS and self._thetas.listed is None:
            raise TooManyPathsError(wave.first + sample)

    def _advance(self, wave: Wave, place: Place, live: Sequence[Node]) -> Waiting[tuple[list[Node], Any]]:
        """Make the next click of these nodes: their branches, whose last record is not judged yet, and their masks."""
        first = live[0].coarse_1MM is None
        samples = [node.sample for node in live]
        coarse = None if first else torch.stack([node.coarse_1MM for node in live if node.coarse_1MM is not None])
        interaction = yield from self._network.interact(
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

        decided = [
            (i, *part)
            for i, (node, ratio) in enumerate(zip(live, ratios, strict=True))
            for part in self._thetas.parts(node.above, node.upto, ratio)
        ]
        objects, on_global, _, _ = zip(*decided, strict=True)
        results, masks = place.paste(interaction, live, objects, on_global)
        coarse_of = interaction.coarse_B1MM.unbind()
        branches = []
        for (i, anew, above, upto), result in zip(decided, results, strict=True):
            click = live[i].click
            assert click is not None
            pasted_on = NO_SELECTOR if not selects else GLOBAL if anew else PREVIOUS
            made = (*live[i].records, Record(click, math.nan, math.nan, pasted_on, ratios[i]))
            own = live[i].seed, live[i].start_iou
            branches.append(Node(live[i].sample, above, upto, None, made, coarse_of[i], result, areas[i], *own))
        return branches, masks


def _judged(node: Node, verdict: Verdict) -> Node:
    """The node with its verdict; one that makes no further click keeps its mask, and nothing that a click needs."""
    last = node.records[-1]._replace(iou=verdict.iou, boundary_iou=verdict.boundary_iou)
    records = (*node.records[:-1], last)
    if verdict.next_click is None:
        return replace(node, records=records, coarse_1MM=None, result_HW=None, mask=verdict.last_mask)
    return replace(node, click=verdict.next_click, records=records)
