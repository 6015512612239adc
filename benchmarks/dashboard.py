"""The page of a large sweep: 5 000 trials, 40 metrics each, and a million clicks. Time, size, and where time goes.

    uv run python benchmarks/dashboard.py [--trials 5000] [--samples 10] [--profile]

Numbers are drawn, not measured: only their count matters here. Needs no samref, no torch, no sweep.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from samref_dashboards.report import main as dashboard

THETAS = (1.05, 1.1, 1.15, 1.2, 1.3)
DATA = ("davis", "grabcut", "berkeley", "sbd")
SEEDS = 5
CLICKS = 20
KEPT_MASKS = 32
RUNS = 601
"""Of a mask: an object 300 px wide."""
NUM_METRICS = 40


def write(folder: Path, num_trials: int, num_samples: int) -> None:
    """Write five tables: θ × dataset × seed × as many learning rates as it takes."""
    chance = np.random.default_rng(0)
    per_rate = len(THETAS) * len(DATA) * SEEDS
    trials: list[dict[str, Any]] = []
    for index in range(num_trials):
        theta, rest = THETAS[index % 5], index // 5
        data, rest = DATA[rest % 4], rest // 4
        seed, rate = rest % SEEDS, rest // SEEDS
        trials.append(_trial(index, theta, data, seed, 1e-4 * 1.1**rate, chance))
    about = {
        "name": "large",
        "purpose": f"{num_trials} trials of {NUM_METRICS} metrics.",
        "file": "sweeps/large.yaml",
        "command": "samref-sweep sweeps/large.yaml",
        "axes": {"evaluate.theta": THETAS, "evaluate.data": DATA, "train.seed": list(range(SEEDS))}
        | {"train.learning_rate": [1e-4 * 1.1**rate for rate in range(-(-num_trials // per_rate))]},
        "planned": num_trials,
    }
    metadata = {"samref.schema": "1", "samref.sweep": json.dumps(about)}
    pq.write_table(pa.Table.from_pylist(trials).replace_schema_metadata(metadata), folder / "trials.parquet")
    pq.write_table(_clicks(trials, num_samples, chance), folder / "clicks.parquet")
    pq.write_table(_masks(trials, min(num_samples, KEPT_MASKS), chance), folder / "masks.parquet", compression="zstd")
    stages = sorted({trial["stage_train"] for trial in trials})
    steps = np.tile(np.arange(0, 20_000, 200, dtype=np.int32), len(stages))
    training = {
        "stage": pa.array(np.repeat(stages, 100), pa.string()),
        "step": steps,
        "metric": pa.repeat("loss", len(steps)),
        "value": np.exp(-steps / 4000) + chance.normal(0, 0.02, len(steps)),
    }
    pq.write_table(pa.table(training), folder / "training.parquet")
    profile = {"stage": "profile-0", "model": "sam_vit_h", "refiner": "gfr+lfr", "device": "NVIDIA H200"}
    profile |= {"parameters": 641_800_000, "parameters_leaf": 636_300_000}
    costs = {"fps": 12.0, "memory_gb": 3.7, "encode_seconds": 0.07, "click_seconds": 0.01}
    pq.write_table(pa.Table.from_pylist([{**profile, **costs}]), folder / "profile.parquet")


def _trial(index: int, theta: float, data: str, seed: int, rate: float, chance: np.random.Generator) -> dict[str, Any]:
    names = [f"{kind}_at_{percent}" for kind in ("noc", "nof") for percent in (85, 90, 95)]
    names += [f"miou_at_{click}" for click in (1, 3, 5, 10, 20)]
    names += ["clicks_on_global", "clicks_on_previous", "seconds_per_click", "train_steps_per_second"]
    names += [f"boundary_miou_at_{click}" for click in (1, 3, 5, 10, 20)]
    names += [f"another_metric_{number}" for number in range(NUM_METRICS - len(names))]
    return {
        "sweep": "large",
        "trial": f"trial-{index:012x}",
        "status": "failed" if index % 97 == 0 else "done",
        "reason": f"CUDA out of memory at batch {index}" if index % 97 == 0 else None,
        "stage_train": f"train-{seed}-{rate:.6g}",
        "stage_evaluate": f"evaluate-{index:012x}",
        "stage_profile": "profile-0",
        "device_seconds": float(chance.uniform(100, 900)),
        "hardware": "1 × NVIDIA H200",
        "commit": "3f2a9c1d0b7e",
        "versions": '{"torch": "2.15.0"}',
        "random_weights": False,
        "started": None,
        "num_samples": 50,
        "model.backbone": "sam_vit_h",
        "model.refiner": "gfr+lfr",
        "model.checkpoint": "auto",
        "train.data": "coco_lvis",
        "train.seed": seed,
        "train.learning_rate": rate,
        "evaluate.data": data,
        "evaluate.theta": theta,
        "evaluate.max_clicks": CLICKS,
        "evaluate.clicker": "ritm",
        **{name: float(value) for name, value in zip(names, chance.uniform(0.2, 19.0, len(names)), strict=True)},
    }


def _clicks(trials: Sequence[dict[str, Any]], num_samples: int, chance: np.random.Generator) -> pa.Table:
    done = [trial for trial in trials if trial["status"] == "done"]
    each = num_samples * CLICKS
    count = len(done) * each
    click = np.tile(np.arange(1, CLICKS + 1, dtype=np.int16), len(done) * num_samples)
    sample = np.tile(np.repeat(np.arange(num_samples), CLICKS), len(done))
    iou = 1 - 0.6 * np.exp(-click / (2.0 + sample % 7)) - chance.uniform(0, 0.05, count)
    return pa.table(
        {
            "trial": pa.array(np.repeat([trial["trial"] for trial in done], each)),
            "dataset": pa.array(np.repeat([trial["evaluate.data"] for trial in done], each)),
            "sample": pa.array(np.char.add("object-", sample.astype(str))),
            "click": click,
            "x": chance.integers(0, 854, count, dtype=np.int32),
            "y": chance.integers(0, 480, count, dtype=np.int32),
            "positive": chance.random(count) < 0.6,
            "iou": iou.astype(np.float32),
            "pasted_on": pa.array(np.where(chance.random(count) < 0.5, "global", "previous")),
            "error_ratio": chance.lognormal(0.1, 0.1, count).astype(np.float32),
        }
    )


def _masks(trials: Sequence[dict[str, Any]], num_masks: int, chance: np.random.Generator) -> pa.Table:
    stages = [trial["stage_evaluate"] for trial in trials if trial["status"] == "done"]
    count = len(stages) * num_masks
    # In each of 300 columns the object begins and ends about where it did in the one before.
    inside = (240 * np.sin(np.linspace(0.1, 3, RUNS // 2))).astype(np.int32)
    inside = inside + chance.integers(-2, 3, (count, RUNS // 2), dtype=np.int32)
    counts = np.zeros((count, RUNS), np.int32)
    counts[:, 1::2], counts[:, 2::2] = inside, 480 - inside
    counts[:, 0] = 240 * 480
    counts[:, -1] += 854 * 480 - counts.sum(axis=1, dtype=np.int32)
    return pa.table(
        {
            "stage": pa.array(np.repeat(stages, num_masks)),
            "sample": pa.array(np.char.add("object-", np.tile(np.arange(num_masks), len(stages)).astype(str))),
            "height": pa.repeat(pa.scalar(480, pa.int32()), count),
            "width": pa.repeat(pa.scalar(854, pa.int32()), count),
            "counts": pa.ListArray.from_arrays(np.arange(0, RUNS * (count + 1), RUNS, dtype=np.int32), counts.ravel()),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--samples", type=int, default=10, help="objects of each trial; 20 clicks each")
    parser.add_argument("--profile", action="store_true", help="also print where the time goes")
    parser.add_argument("--keep", type=Path, help="folder to write into, kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        write(folder, options.trials, options.samples)
        profiler = cProfile.Profile(subcalls=False)
        start = time.perf_counter()
        if options.profile:
            profiler.runcall(dashboard, [str(folder), "--no-open"])
        else:
            dashboard([str(folder), "--no-open"])
        seconds = time.perf_counter() - start
        page = folder / "dashboard.html"
        print(f"{options.trials} trials, {options.samples * CLICKS * options.trials:,} clicks: "
              f"{seconds:.1f} s, {page.stat().st_size / 1e6:.2f} MB")  # fmt: skip
        if options.profile:
            pstats.Stats(profiler).sort_stats("cumulative").print_stats(35)


if __name__ == "__main__":
    main()
