"""What work asks of a GPU: operators, waits and bytes, counted on a CPU.

    uv run python benchmarks/launches.py

A GPU is idle while Python dispatches the operators that it is to run, and while the host waits for it. Both can be
counted where there is none: the code that CUDA gets, on the CPU's tensors, under a `TorchDispatchMode`. The numbers are
exact and the same on any machine; what they cost in time is another question. Views are not counted, as they launch
nothing. Triton's kernels are, as they are launched.
"""

from __future__ import annotations

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is imported

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from unittest import mock

import numpy as np
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from samref import device_clicks, transfers, waves
from samref.batches import Batch
from samref.clickloop import ClickLoop
from samref.clicks import next_click
from samref.config import EvaluateConfig, ModelConfig, Runtime, TrainConfig
from samref.data import Sample
from samref.refiner import SamRef
from samref.starts import Start
from samref.step import training_step
from samref.thetas import Thetas
from samref.weights import build_model

Refiner = Literal["none", "gfr+lfr"]
_KERNELS = 3  # launches of one call of device_clicks.judge
_WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "bincount"}


@dataclass
class Counts:
    """What was counted, perhaps as a mean."""

    operators: float = 0
    """Calls of operators that launch something."""
    waits: float = 0
    """Times that the host waits for the device."""
    bytes_to_host: float = 0

    def each(self, other: Counts, times: int) -> Counts:
        """What one of so many more times has, given the counts without them."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Counts(*((own - base) / times for own, base in pairs))


class _Counting(TorchDispatchMode):
    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self._counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if not func.is_view and name not in ("detach", "_to_copy_view"):
            self._counts.operators += 1
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        if name in _WAITING or any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices):
            self._counts.waits += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def counting() -> Iterator[Counts]:
    """Counts everything inside of it."""
    counts = Counts()

    def arriving(self: transfers.Arriving, *tensors: Tensor, **options: Any) -> None:
        counts.waits += bool(tensors)
        counts.operators += len(tensors)
        counts.bytes_to_host += sum(tensor.nbytes for tensor in tensors)
        begin(self, *tensors, **options)

    def cpu(tensor: Tensor) -> Tensor:
        counts.waits += 1
        counts.operators += 1
        counts.bytes_to_host += tensor.nbytes
        return tensor

    def judge(*args: Any) -> Tensor:
        counts.operators += _KERNELS
        return kernels_judge(*args)

    begin, kernels_judge = transfers.Arriving.__init__, device_clicks.judge
    with (
        mock.patch.object(Tensor, "cpu", cpu),
        mock.patch.object(transfers.Arriving, "__init__", arriving),
        mock.patch.object(device_clicks, "judge", judge),
        _Counting(counts),
    ):
        yield counts


def network(refiner: Refiner) -> SamRef:
    """`tiny` with random weights, whose refiner suspects errors."""
    settings: dict[str, Any] = {"refiner_width": 16, "refiner_blocks": 2, "patch_size_px": 64}
    built = build_model(ModelConfig(backbone="tiny", refiner=refiner, **settings), Runtime(device="cpu"), weights=None)
    generator = torch.Generator().manual_seed(0)
    for part in built.refiner_modules():
        part.fusion.heads[-1].weight.data.normal_(generator=generator)  # type: ignore[operator, union-attr]
    return built


def click_round(built: SamRef, wave: int) -> Counts:
    """One round of a wave of so many samples, whose sizes differ."""
    rng = np.random.default_rng(0)
    reads = []
    for _ in range(wave):
        height, width = (int(rng.integers(side // 2, side)) for side in (16, 32))
        truth = np.zeros((height, width), np.int8)
        truth[height // 4 : -height // 4, 3:-3] = 1
        image = torch.from_numpy(rng.integers(0, 256, (3, height, width), np.uint8))
        features = {"embedding": torch.from_numpy(rng.normal(size=(1, 64, 16, 16)).astype(np.float32))}
        seen = torch.zeros(3, 256, 256, dtype=torch.uint8)
        reads.append(waves.Read(truth, features, image, seen, truth.shape, Start()))
    found = []
    for clicks in (2, 3):
        drawn = waves.assemble(0, waves.stack(reads, together=True), built, "cpu")
        loop = ClickLoop(built, EvaluateConfig(max_clicks=clicks), Thetas.each([1.1]), batch=wave, together=True)
        with counting() as counts:
            loop.run(drawn)
        found.append(counts)
    return found[1].each(found[0], 1)


def train_step(built: SamRef, batch: int, rounds: int = 1) -> Counts:
    """The forward part of a training's step, from the pixels on."""
    rng = np.random.default_rng(0)
    size = built.backbone.image_size
    images = torch.from_numpy(rng.integers(0, 256, (batch, 3, size, size), np.uint8))
    truths = np.zeros((batch, size, size), np.int8)
    truths[:, size // 4 : -size // 4, size // 3 : -size // 3] = 1
    samples = tuple(Sample(str(i), str(i)) for i in range(batch))
    centers = tuple(next_click(truth, np.zeros((size, size), bool), ()) for truth in truths)
    drawn = Batch(samples, tuple(range(batch)), list(images), images, truths, centers, {})
    config = TrainConfig(data="shapes", modules=("decoder", "refiner"))
    with ThreadPoolExecutor(1) as pool, counting() as counts:
        training_step(built, drawn, config, 0, rounds, "cpu", pool, together=True)
    return counts


def encoded_image(built: SamRef, batch: int) -> Counts:
    """The encoder on a batch, an image of it."""
    with torch.inference_mode(), counting() as counts:
        built.backbone.encode(torch.zeros(batch, 3, built.backbone.image_size, built.backbone.image_size))
    return counts.each(Counts(), batch)


def main() -> None:
    """Print the table."""
    print("| work | operators, 8 | operators, 32 | a further sample | waits, 32 | kB to the host, 32 |")
    print("|---|---|---|---|---|---|")
    for refiner in ("none", "gfr+lfr"):
        built = network(refiner)
        for name, count in (("a click's round", click_round), ("a training's step", train_step)):
            few, many = count(built, 8), count(built, 32)
            further = many.each(few, 24).operators
            print(
                f"| {name}, refiner {refiner} | {few.operators:.0f} | {many.operators:.0f} | {further:.1f} "
                f"| {many.waits:.0f} | {many.bytes_to_host / 1e3:.0f} |"
            )
    few, many = (encoded_image(built, batch) for batch in (1, 8))
    print(f"An image through the encoder: {few.operators:.0f} operators alone, {many.operators:.0f} in a batch of 8.")


if __name__ == "__main__":
    main()
