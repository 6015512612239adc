"""What cached embeddings are worth: steps per second with them, and with every batch encoded anew.

    python benchmarks/training.py --backbone sam_vit_b --batch-size 1 --steps 5

The same model (random weights, frozen encoder, decoder and refiner trained), the same batches, clicks and steps, one
after the other in one process: once as a sweep trains it, from embeddings on disk, and once through the encoder. Drawn
images; each is encoded once before, which is what a cache costs and is printed too. On two idle CPU cores SAM ViT-B
encodes an image in about 12 seconds: two to three minutes for the line above. On CUDA take more steps and samples.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from encoder import machine

from samref import backbones, memory
from samref.batches import ROUNDS
from samref.clicks import num_rounds
from samref.config import ModelConfig, Runtime, TrainConfig
from samref.embed import DataSource, embed
from samref.shards import whole
from samref.train import train


def main() -> None:
    """Measure, and print a line for each way and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="sam_vit_b", choices=backbones.names())
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5, help="measured steps of each way (default: 5)")
    parser.add_argument("--refiner", default="gfr+lfr", choices=["none", "gfr", "gfr+lfr"])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "tf32", "bf16"], help="of encoder and steps")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1; default: CUDA where there is one")
    options = parser.parse_args()

    runtime = Runtime(device=options.device, checkpoint_seconds=float("inf"))
    device = runtime.resolve_device()
    model = ModelConfig(
        backbone=options.backbone, checkpoint="none", refiner=options.refiner, precision=options.precision
    )
    config = TrainConfig(
        data="shapes",
        samples=2 * options.batch_size,
        modules=("decoder", "refiner") if options.refiner != "none" else ("decoder",),
        steps=options.steps,
        warmup_steps=0,
        batch_size=options.batch_size,
        precision=options.precision,
    )
    print(
        f"{options.backbone}, refiner {options.refiner}, batch {options.batch_size}, {options.steps} steps, "
        f"{options.precision}, on {machine(device)}; torch {torch.__version__}"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache = folder / "embeddings"
        cache.mkdir()
        clock = time.perf_counter()
        source = DataSource(name=config.data, split="train", samples=config.samples)
        whole(embed(model, source, config.resize, inputs={}, runtime=runtime), (cache,), folder / "shards")
        print(f"encoding {config.samples} images once: {time.perf_counter() - clock:.1f} s", flush=True)
        rates = {}
        for way, inputs in {"cached embeddings": {"embeddings": cache}, "encoding each batch": {}}.items():
            # The first step of a process, and of a device, is slower; a training of one step takes that out.
            run(model, config.model_copy(update={"steps": 1}), inputs, folder / f"{way} first", runtime)
            memory.reset(device)
            found = run(model, config, inputs, folder / way, runtime)
            rates[way] = found["steps_per_second"]
            peaks = ", ".join(f"{name} {value:.2f}" for name, value in memory.peaks(device).items())
            print(f"{way}: {rates[way]:.4g} steps/s, {peaks}, loss {found['loss']:.4f}", flush=True)
    print(f"ratio: {rates['cached embeddings'] / rates['encoding each batch']:.2f}")


def run(
    model: ModelConfig, config: TrainConfig, inputs: Mapping[str, Path], folder: Path, runtime: Runtime
) -> dict[str, float | int]:
    """One training; without `embeddings` in its inputs it encodes its batches, although the encoder is frozen."""
    out = folder / "out"
    out.mkdir(parents=True)
    return train(model, config, inputs=inputs, out=out, scratch=folder / "scratch", runtime=runtime, report=silent)


def steps_per_second(
    model: ModelConfig, config: TrainConfig, inputs: Mapping[str, Path], folder: Path, runtime: Runtime, warm: int = 16
) -> float:
    """Of one training without its first steps; the others' rounds of clicks are on average those of a long one.

    By then most shapes of the rounds have come twice, and are replayed as CUDA graphs.
    """
    counts = np.arange(config.max_clicks + 1)
    expected = np.average(counts, weights=config.gamma**counts)

    def deviation(seed: int) -> float:
        streams = (np.random.default_rng([seed, ROUNDS, step]) for step in range(warm, config.steps))
        return abs(float(np.mean([num_rounds(config.gamma, config.max_clicks, rng) for rng in streams]) - expected))

    times: list[float] = []
    (out := folder / "out").mkdir(parents=True)
    train(
        model,
        config.model_copy(update={"seed": min(range(200), key=deviation)}),
        inputs=inputs,
        out=out,
        scratch=folder / "scratch",
        runtime=runtime,
        report=lambda step, metrics: times.append(time.perf_counter()),
    )
    return (len(times) - warm) / (times[-1] - times[warm - 1])


def silent(step: int, metrics: Mapping[str, float]) -> None:
    """Reports nothing."""


if __name__ == "__main__":
    main()
