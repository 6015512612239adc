"""The evaluation: every sample, click by click, by RITM's published protocol (docs/method.md), for several θ at once.

`samref.clickloop` makes the clicks. On a CPU each thread takes a sample and calls the network with one node at a time,
on one thread of torch: as fast as batches, which bring a CPU little, without waiting for each other, and a result is
bit by bit the same alone, beside others, and on any number of cores, which it would not be in batches (a product of
matrices rounds differently with the number of its rows). On a GPU waves of samples advance in batches, see
`samref.waves`. There a click is that of the CPU, and that of several θ at once that of one alone, up to such roundings:
now and then one moves the edge of a mask by a pixel, and another pixel is clicked from there on (docs/results.md).

Written into each θ's folder:

    clicks.npz     one entry a click: sample (index), click (from 1), x, y (px, original image), positive, iou,
                   boundary_iou (NaN where not measured), pasted_on (0 no selector, 1 global, 2 previous), error_ratio
                   (R_e, NaN where undefined)
    masks.npz, photographs.npz
                   the last masks, the photographs and the truths of the hardest samples: see `samref.kept`
    samples.json   the samples' keys, by index
    paths.npz      where all θ of an interval were asked for: see `samref.path_files`
"""

import contextlib
import json
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from samref import kept, metrics, pixel_loops, trajectories, waves, weights
from samref.ahead import in_order
from samref.clickloop import MOST_PATHS, ClickLoop, TooManyPathsError, Trajectory
from samref.config import EvaluateConfig, ModelConfig, Runtime
from samref.data import Dataset, open_dataset
from samref.embeddings import Embeddings
from samref.judging import BOUNDARY_CLICKS
from samref.nodes import GLOBAL, PREVIOUS, Record
from samref.path_files import PathTable
from samref.precision import autocast, products
from samref.refiner import SamRef, windows
from samref.shards import Shards
from samref.stage import Report
from samref.starts import NOTHING, Starts
from samref.thetas import Thetas, at
from samref.threads import on_threads
from samref.waves import Paths

SECONDS = "seconds_per_click_made"
"""Not `seconds_per_click`: by that name earlier versions wrote the time over the decoder's calls, which θ share."""
_PATHS = "paths.json"
_AHEAD = 4
"""Samples a thread that are begun before the first of them is done."""
Played = TypeVar("Played")


class Evaluate:
    """The evaluation of one model on one dataset, for one or several θ; a `samref.shards.Divisible`."""

    wave = waves.LARGEST

    def __init__(
        self, model: ModelConfig, configs: Sequence[EvaluateConfig], *, inputs: Mapping[str, Path], runtime: Runtime
    ) -> None:
        """Open the dataset of evaluations that are alike but for θ, and with `first_clicks` for the seed, too.

        inputs: `embeddings`, and `weights` where there was a training.
        """
        config = self._config = configs[0]
        alike = {"theta": config.theta, **({"seed": config.seed} if config.first_clicks else {})}
        if any(other.model_copy(update=alike) != config for other in configs):
            raise ValueError("evaluations that run in one go may differ in theta, and in the seed with first_clicks")
        self._model = model
        self._configs = configs
        self._inputs = inputs
        self._runtime = runtime
        self._dataset = open_dataset(config.data, split="val", data_root=runtime.data_root, samples=config.samples)
        self._starts = Starts.open(config, runtime.data_root, seeds=[each.seed for each in configs])
        self.total = len(self._dataset.samples)
        self.unit = config.max_clicks

    @cached_property
    def _network(self) -> SamRef:
        precision, trained = self._config.precision, self._inputs.get("weights")
        network = weights.build_model(self._model, self._runtime, weights=trained, encoder=False, precision=precision)
        if (threshold := self._config.threshold) is not None:
            network.backbone.threshold = math.log(threshold / (1 - threshold))
        return network

    @torch.inference_mode()
    def work(self, shards: Shards, numbers: Iterable[int], report: Report) -> None:
        """Play the samples of shards; `report` also gets `clicks`, the decoder calls that it took."""
        network, embeddings = self._network, Embeddings(self._inputs["embeddings"], self._runtime.far)
        device = self._runtime.resolve_device()
        _load_compiled(device)
        shards.begin()
        parts = ((number, shards.rows(number)) for number in numbers)
        playing = play_parts(network, self._configs, self._dataset, embeddings, device, parts, report, self._starts)
        with products(self._config.precision), contextlib.closing(playing):
            for number, paths, _ in playing:
                with shards.writing(number) as folder:
                    trajectories.save(folder / _PATHS, paths)

    def join(self, shards: Shards, outs: tuple[Path, ...]) -> list[dict[str, float | int]]:
        """Write each θ's folder, and give its headline metrics; one that cannot be known is left out."""
        seconds = sum(each["busy_seconds"] for each in shards.about())
        config, files = self._config, [shards.path(number) / _PATHS for number in range(shards.count)]
        paths = [pieces for file in files for pieces in trajectories.load(file)]
        by_seed = {
            each.seed: [[path for path in pieces if path.seed == each.seed] for pieces in paths]
            for each in self._configs
        }
        chosen = [[at(pieces, each.theta) for pieces in by_seed[each.seed]] for each in self._configs]
        for out, own, each in zip(outs, chosen, self._configs, strict=True):
            np.savez_compressed(out / "clicks.npz", **columns([trajectory.records for trajectory in own]))
            if config.curve:
                PathTable.of(by_seed[each.seed], lambda records: headline([records], config)).write(out)
            (out / "samples.json").write_text(json.dumps([sample.key for sample in self._dataset.samples]) + "\n")
        kept.write(outs, chosen, config.max_clicks, self._dataset if config.photographs else None)
        clicked = [[trajectory.records for trajectory in own] for own in chosen]
        made = clicked if config.curve is None else [[path.records for path in pieces] for pieces in paths]
        took = {SECONDS: per_click(seconds, made)}
        return [{**headline(path, config), **before(own), **took} for path, own in zip(clicked, chosen, strict=True)]


def before(paths: Sequence[Trajectory]) -> dict[str, float]:
    """The mean IoU before the first click, `miou_at_0`, where clicks correct a mask."""
    ious = [path.start_iou for path in paths]
    return {} if any(map(math.isnan, ious)) else {"miou_at_0": float(np.mean(ious))}


def per_click(seconds: float, clicked: Sequence[Sequence[Sequence[Record]]]) -> float:
    """The time of a pass over all the clicks that it made, of every θ (with a curve every path) and sample."""
    return seconds / max(1, sum(len(records) for own in clicked for records in own))


def _load_compiled(device: str) -> None:
    pixel_loops.load()
    windows.load()
    if device != "cpu":
        from samref import device_clicks  # Triton comes with torch's builds for GPUs

        device_clicks.load(device)


def play_parts(
    network: SamRef,
    configs: Sequence[EvaluateConfig],
    dataset: Dataset,
    embeddings: Embeddings,
    device: str,
    parts: Iterable[tuple[int, range]],
    report: Report,
    starts: Starts = NOTHING,
) -> Generator[tuple[int, Paths, int]]:
    """Play parts of a dataset, numbers with the positions of their samples, each taken when there is time for it.

    The evaluations are alike but for θ, and with `first_clicks` for the seed, too. `report` is called with the samples
    that are done, and `clicks`, the decoder calls that took.

    Yields:
        Each part's number, for each of its samples the trajectories by seed and rising θ, and its decoder calls, in
            nodes.

    Raises:
        ValueError: the θ of an interval part too often on a sample.
    """
    loop = ClickLoop(network, configs[0], Thetas.of(configs), batch=1)
    seeds = sorted({config.seed for config in configs})
    taken: deque[tuple[int, range]] = deque()

    def noted() -> Iterator[range]:
        for part in parts:
            taken.append(part)
            yield part[1]

    def play(position: int) -> tuple[Paths, int]:
        reads = [waves.read(dataset, position, network, embeddings, configs[0].resize, starts)]
        with autocast(device, configs[0].precision):
            return loop.run(waves.assemble(position, waves.stack(reads), network, device), seeds)

    paths: Paths = []
    done = calls = calls_before = 0
    with contextlib.ExitStack() as stack:
        threads = stack.enter_context(on_threads(1))  # ours take the cores
        if device == "cpu":
            played = _in_threads(play, chain.from_iterable(noted()), threads)
        else:
            played = waves.play(network, configs, dataset, embeddings, device, threads, noted(), starts)
        # Closing: whoever stops us by an exception waits for the samples that are being played, not for all.
        try:
            for found, more in stack.enter_context(contextlib.closing(played)):
                paths += found
                done += len(found)
                calls += more
                report(done, {"clicks": calls})
                number, rows = taken[0]
                if len(paths) == len(rows):
                    taken.popleft()
                    yield number, paths, calls - calls_before
                    paths, calls_before = [], calls
        except TooManyPathsError as error:
            (position,) = error.args
            raise ValueError(
                f"evaluate.curve is {list(configs[0].curve or ())}, and on "
                f"{dataset.samples[position].key} of {configs[0].data} its θ take more than {MOST_PATHS} paths; give "
                "it a step, as [1.0, 1.5, 0.01], or make it narrower"
            ) from None


def _in_threads(play: Callable[[int], Played], positions: Iterable[int], threads: int) -> Generator[Played]:
    """Results in order. All threads and one are tried on two samples a thread each; the faster plays the rest.

    Python itself runs on one thread at a time: for a decoder whose steps are microseconds, more can be slower.
    """
    # torch keeps its number of threads for each thread that calls it.
    pool = partial(ThreadPoolExecutor, thread_name_prefix="clicks", initializer=torch.set_num_threads, initargs=(1,))
    rates, waiting = {}, iter(positions)
    for workers in dict.fromkeys((threads, 1)):
        part = list(islice(waiting, 2 * workers))
        clock = time.perf_counter()
        with pool(workers) as trying:
            yield from trying.map(play, part)
        rates[workers] = len(part) / (time.perf_counter() - clock)
    workers = max(rates, key=rates.__getitem__)
    with pool(workers) as rest:
        yield from in_order(rest, play, waiting, _AHEAD * workers)


def headline(paths: Sequence[Sequence[Record]], config: EvaluateConfig) -> dict[str, float | int]:
    """The metrics of one configuration: NoC, NoF, n-mIoU and its boundary counterpart, mean pastes per sample.

    A trajectory that ended because nothing was left to click keeps its last IoU. One that stopped early leaves out
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
        for click in BOUNDARY_CLICKS:
            if click <= config.max_clicks:
                reached = [records[min(click, len(records)) - 1].boundary_iou if records else 1.0 for records in paths]
                found[f"boundary_miou_at_{click}"] = float(np.mean(reached))
        pasted = [record.pasted_on for records in paths for record in records]
        if any(pasted):
            found["clicks_on_global"] = pasted.count(GLOBAL) / len(paths)
            found["clicks_on_previous"] = pasted.count(PREVIOUS) / len(paths)
    return found


def columns(paths: Sequence[Sequence[Record]]) -> dict[str, Any]:
    """What clicks.npz holds: column → one entry a click, of all samples."""
    rows = [(i, t, record) for i, records in enumerate(paths) for t, record in enumerate(records, start=1)]
    return {
        "sample": np.array([i for i, _, _ in rows], np.int32),
        "click": np.array([t for _, t, _ in rows], np.int16),
        "x": np.array([record.click.x for _, _, record in rows], np.int32),
        "y": np.array([record.click.y for _, _, record in rows], np.int32),
        "positive": np.array([record.click.positive for _, _, record in rows], bool),
        "iou": np.array([record.iou for _, _, record in rows], np.float32),
        "boundary_iou": np.array([record.boundary_iou for _, _, record in rows], np.float32),
        "pasted_on": np.array([record.pasted_on for _, _, record in rows], np.int8),
        "error_ratio": np.array([record.error_ratio for _, _, record in rows], np.float32),
    }
