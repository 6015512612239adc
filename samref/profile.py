"""What a model costs (paper, Table 3; latency of Table 2): parameters, images per second, memory, FLOPs.

Weights do not matter to any of it, so they are random, and so is the one image, which has the network's own size. What
is measured is explained in samref/measures.py.
"""

import ctypes
import gc
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from samref import memory, pixel_loops, weights
from samref.backbones.backbone import parameter_counts
from samref.clicks import Click, next_click
from samref.config import ModelConfig, ProfileConfig, Runtime
from samref.precision import autocast, products
from samref.refiner import SamRef
from samref.refiner.model import Context
from samref.refiner.recorded import REFINER, record
from samref.refiner.resample import Frames, Images
from samref.stage import Report
from samref.transfers import to_host

T = TypeVar("T")

_LOOP_CLICKS = 20
# Prompts of one batch: with a refiner each takes some 200 MB.
_PROMPTS = 16


class _Repetition(NamedTuple):
    """One encode and one click; seconds, and the memory that it took beside the weights, in 10⁹ bytes.

    Its parts, whose end is waited for, and the whole click, in which a GPU prepares while the decoder is launched.
    """

    encode: float
    decode: float
    bare_click: float
    prepare: float
    interact: float
    click: float
    bare_memory: float | None
    memory: float | None


@torch.inference_mode()
def profile(model: ModelConfig, config: ProfileConfig, *, runtime: Runtime, report: Report) -> dict[str, float | int]:
    """Measure a model, whose checkpoint is not loaded, on the runtime's device.

    `report` is called after each repetition, and after each loop of clicks. Returns those of a profile's measures
    (`samref.measures`) that apply to the model and could be measured.
    """
    device = runtime.resolve_device()
    busy = os.getloadavg()[0]
    random = model.model_copy(update={"checkpoint": "none"})
    network = weights.build_model(random, runtime, weights=None, precision=model.precision).requires_grad_(False)
    with products(model.precision), autocast(device, model.precision):
        found = _measure(network, model, config, device, report)
    return {**found, "load_average": max(busy, os.getloadavg()[0])}


def _measure(
    network: SamRef, model: ModelConfig, config: ProfileConfig, device: str, report: Report
) -> dict[str, float | int]:
    everything, leaves = parameter_counts(network)
    bench = _Bench(network, model, device)
    found: dict[str, float | int] = {"parameters": everything, "parameters_leaf": leaves}
    found |= bench.gflops()  # also the warm-up
    found |= _memory(bench.repetition(), network)
    prompts = _grid(config.prompts_per_side, bench.size)
    bench.warm_up(prompts)
    steps = config.repeats + 3

    repetitions = []
    for repeat in range(config.repeats):
        repetitions.append(bench.repetition())
        report(repeat + 1, {"total": steps})
    found |= _times(repetitions)
    if not bench.refines:
        found = {name: value for name, value in found.items() if not name.startswith(("prepare", "refine"))}

    encode = statistics.median(repetition.encode for repetition in repetitions)
    loops: dict[str, Callable[[], Any]] = {
        "loop_seconds_per_click": bench.annotate,
        "sat_latency_seconds": lambda: bench.segment(prompts, batch=1),
        "sat_latency_batched_seconds": lambda: bench.segment(prompts, batch=_PROMPTS),
    }
    for done, (name, loop) in enumerate(loops.items(), start=config.repeats + 1):
        each, seconds = bench.timed(loop)
        found[name] = encode + seconds
        if name == "loop_seconds_per_click":
            found |= {name: (encode + seconds) / _LOOP_CLICKS, f"{name}_p95": float(np.percentile(each, 95))}
        report(done, {"total": steps})
    return found


class _Bench:
    """A model, one image, and the pieces of work that are measured on it."""

    def __init__(self, network: SamRef, model: ModelConfig, device: str) -> None:
        self.network = network
        self.device = device
        self.refines = network.gfr is not None
        self.size = network.backbone.image_size
        self._bare = SamRef(network.backbone, model.model_copy(update={"refiner": "none"}))
        generator = torch.Generator().manual_seed(0)
        image = torch.randint(0, 256, (3, self.size, self.size), dtype=torch.uint8, generator=generator)
        self._image_3SS = image.to(device)
        self._click = Click(self.size // 2, self.size // 2, True)
        self._features: dict[str, Tensor] = {}

    def timed(self, work: Callable[[], T]) -> tuple[T, float]:
        """What a piece of work returns, and its seconds until the device has done it."""
        start = self._clock()
        done = work()
        return done, self._clock() - start

    def _clock(self) -> float:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def encode(self) -> dict[str, Tensor]:
        self._features = self.network.backbone.encode(self._image_3SS[None].float())
        return self._features

    def prepare(self) -> Context:
        return self.network.prepare(self._features, self._image_3SS[None], [self._image_3SS])

    def gflops(self) -> dict[str, float]:
        """FLOPs of each piece; the refinement's are those of an interaction less those of its decoder."""
        frames = [(self.size, self.size)]
        encode, _ = _counted(self.encode)
        prepare, context = _counted(self.prepare)
        decode, _ = _counted(lambda: self._bare(context, [[self._click]], None, None, frames))
        interact, interaction = _counted(lambda: self.network(context, [[self._click]], None, None, frames))
        self.network.paste(interaction, 0, None, frames[0])
        flops = {"encode": encode, "prepare": prepare, "decode": decode, "refine": interact - decode}
        return {f"{name}_gflops": value for name, value in flops.items()}

    def warm_up(self, prompts: list[Click]) -> None:
        """Leave nothing to compile, record or choose for the clock to see."""
        pixel_loops.load()
        if self.device.startswith("cuda"):
            record(self.network, REFINER, after=0)
            self.segment(prompts[:2], batch=1)
            self.segment(prompts, batch=_PROMPTS)

    def repetition(self) -> _Repetition:
        """One encode, a click without the refiner, and one with it."""
        frame, clicks = (self.size, self.size), [[self._click]]
        self._features = {}
        _settle()
        memory.reset(self.device)
        held = _peak(self.device)
        _, encode = self.timed(self.encode)
        # What the encoder freed in pieces too small for the clicks is no memory that they take.
        _settle()
        context = Context(self._features, [self._image_3SS], None)

        def click(network: SamRef, context: Context) -> Tensor:
            return network.paste(network(context, clicks, None, None, [frame]), 0, None, frame)

        _, decode = self.timed(lambda: self._bare(context, clicks, None, None, [frame]))
        _, bare_click = self.timed(lambda: click(self._bare, context))
        bare_peak = _peak(self.device)
        prepared, prepare = self.timed(self.prepare)
        _, interact = self.timed(partial(self.network, prepared, clicks, None, None, [frame]))
        del prepared
        _, whole = self.timed(lambda: click(self.network, self.prepare()))
        taken = (bare_peak - held, _peak(self.device) - held) if _resettable(self.device) else (None, None)
        return _Repetition(encode, decode, bare_click, prepare, interact, whole, *taken)

    def annotate(self) -> list[float]:
        """The seconds of each click of a loop towards a disk; where the selector would paste costs the same and is left
        out.
        """
        frame, context = (self.size, self.size), self.prepare()
        away = np.arange(self.size) - self.size // 2
        truth = (away[:, None] ** 2 + away[None] ** 2 < (self.size // 4) ** 2).astype(np.int8)
        clicks: list[Click] = []
        coarse = result = None
        mask = np.zeros(frame, bool)
        times = [self._clock()]
        for _ in range(_LOOP_CLICKS):
            clicks.append(next_click(truth, mask, clicks) or self._click)
            interaction = self.network(context, [clicks], coarse, None if result is None else [result], [frame])
            coarse, result = interaction.coarse_B1MM, self.network.paste(interaction, 0, None, frame)
            (mask,) = to_host(result > self.network.backbone.threshold)
            times.append(self._clock())
        return [end - start for start, end in pairwise(times)]

    def segment(self, prompts: list[Click], batch: int) -> None:
        """Every prompt on its own gives a mask at the image's size."""
        frame, context = (self.size, self.size), self.prepare()
        together = batch > 1 and self._image_3SS.is_cuda
        if together:
            context = replace(context, images=Images(self._image_3SS[None], [frame]))
        for start in range(0, len(prompts), batch):
            clicks = [[prompt] for prompt in prompts[start : start + batch]]
            objects, frames = range(len(clicks)), [frame] * len(clicks)
            own = context.select([0] * len(clicks))
            if together:
                all_frames = Frames.of(frames, self.network.result_size, self._image_3SS.device)
                interaction = self.network(own, clicks, None, None, all_frames)
                masks = self.network.masks(interaction, all_frames, objects, None, [True] * len(clicks))
            else:
                interaction = self.network(own, clicks, None, None, frames)
                results = [self.network.paste(interaction, i, None, frame) for i in objects]
                masks = torch.stack(results) > self.network.backbone.threshold
            to_host(masks)


def _counted(work: Callable[[], T]) -> tuple[float, T]:
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton, which no other stage on a CPU needs

    with FlopCounterMode(display=False) as counter:
        done = work()
    return counter.get_total_flops() / 1e9, done


def _grid(side: int, size: int) -> list[Click]:
    """side×side positive clicks at the centres of as many equal cells of the image."""
    at = [int((i + 0.5) * size / side) for i in range(side)]
    return [Click(x, y, True) for y in at for x in at]


def _times(repetitions: list[_Repetition]) -> dict[str, float]:
    images = [each.encode + each.click for each in repetitions]
    bare = [each.encode + each.bare_click for each in repetitions]
    seconds = {
        "encode": [each.encode for each in repetitions],
        "prepare": [each.prepare for each in repetitions],
        "decode": [each.decode for each in repetitions],
        "refine": [each.interact - each.decode for each in repetitions],
        "click": [each.click for each in repetitions],
    }
    medians = {f"{name}_seconds": statistics.median(values) for name, values in seconds.items()}
    # A difference that noise made negative was not measured. (Without a refiner nothing is prepared: 0 is the truth.)
    found = {name: value for name, value in medians.items() if value > 0}
    found["fps"] = 1 / statistics.median(images)
    found["refiner_fps_ratio"] = statistics.median(a / b for a, b in zip(bare, images, strict=True))
    if len(images) > 1:
        low, _, high = statistics.quantiles([1 / each for each in images], n=4, method="inclusive")
        found["fps_spread"] = high - low
    return found


def _memory(repetition: _Repetition, network: SamRef) -> dict[str, float]:
    if repetition.memory is None or repetition.bare_memory is None:
        return {}
    peak = _gigabytes(network) + repetition.memory
    bare_peak = _gigabytes(network.backbone) + repetition.bare_memory
    return {"memory_gb": peak, "refiner_memory_ratio": peak / bare_peak}


def _gigabytes(module: nn.Module) -> float:
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers())) / 1e9


def _settle() -> None:
    """Give back what is free: memory that glibc keeps from earlier work would be used again, and not be counted."""
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def _resettable(device: str) -> bool:
    """Whether a peak can be set back: of a device, and on Linux of a process."""
    return device.startswith("cuda") or Path("/proc/self/clear_refs").exists()


def _peak(device: str) -> float:
    """The peak memory of the device, or on a CPU of the process, since the last reset, in 10⁹ bytes."""
    peaks = memory.peaks(device)
    return peaks["device_peak_memory_gb" if device.startswith("cuda") else "peak_memory_gb"]
