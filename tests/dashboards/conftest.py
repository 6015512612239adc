"""Writes realistic results folders for the tests of the dashboards, by the contract of docs/results.md."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from samref_sweep.record.schemas import SCHEMAS

Writer = Callable[..., list[dict[str, Any]]]

THRESHOLDS = (85, 90, 95)
SETTINGS: dict[str, Any] = {
    "model.backbone": "tiny",
    "model.checkpoint": "auto",
    "model.freeze_backbone": True,
    "model.refiner": "gfr+lfr",
    "train.data": "shapes",
    "train.gamma": 0.6,
    "train.steps": 400,
    "train.seed": 0,
    "train.init": None,
    "evaluate.data": "davis",
    "evaluate.theta": 1.1,
    "evaluate.max_clicks": 20,
    "evaluate.clicker": "ritm",
    "evaluate.seed": 0,
}


@pytest.fixture(scope="session")
def write_results() -> Writer:
    """The writer, as a fixture: pytest does not let tests import each other."""
    return _write_results


def _write_results(
    folder: Path,
    *,
    axes: Mapping[str, Sequence[Any]] | None = None,
    name: str = "theta",
    purpose: str = "How the selector’s threshold θ trades the global result against the previous mask.",
    num_samples: int = 12,
    failed: Sequence[int] = (),
    not_run: Sequence[int] = (),
    random_weights: bool = False,
    schema: int = 1,
    settings: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Write one results folder for the grid of `axes`; `failed` and `not_run` are indices of trials."""
    axes = {"evaluate.theta": (1.05, 1.1, 1.2, 1.3), "train.gamma": (0.6, 0.9)} if axes is None else axes
    folder.mkdir(parents=True, exist_ok=True)
    trials: list[dict[str, Any]] = []
    clicks: list[dict[str, Any]] = []
    points = list(product(*axes.values())) if axes else []
    for index, point in enumerate(points):
        values = {**SETTINGS, **(settings or {}), **dict(zip(axes, point, strict=True))}
        status = "failed" if index in failed else "not run" if index in not_run else "done"
        trial, made = _trial(values, status, name, num_samples, random_weights)
        trials.append(trial)
        clicks += made
    about = {
        "name": name,
        "purpose": purpose,
        "file": f"sweeps/{name}.yaml",
        "axes": {axis: list(values) for axis, values in axes.items()},
        "planned": len(points),
    }
    about["command"] = f"samref-sweep sweeps/{name}.yaml"
    metadata = {"samref.schema": str(schema), "samref.sweep": json.dumps(about)}
    _write(folder, "trials", trials, metadata)
    _write(folder, "clicks", clicks)
    stage_of = {trial["trial"]: trial["stage_evaluate"] for trial in trials}
    objects = dict.fromkeys((stage_of[click["trial"]], click["sample"]) for click in clicks)
    masks = [{"stage": stage, "sample": sample, **_box(sample)} for stage, sample in objects]
    _write(folder, "masks", masks)
    _write(folder, "photographs", _photographs(trials, clicks))
    stages = dict.fromkeys(trial["stage_train"] for trial in trials if trial["stage_train"])
    _write(folder, "training", _training(list(stages)))
    _write(folder, "profile", _profile(trials))
    return trials


def _write(folder: Path, kind: str, rows: list[dict[str, Any]], metadata: dict[str, str] | None = None) -> None:
    """Write a table as samref-sweep does: a column that it does not have is an error here."""
    schema = SCHEMAS[kind]
    unknown = {name for row in rows for name in row} - set(schema.names)
    assert not unknown, f"{kind}.parquet has no {', '.join(sorted(unknown))}"
    pq.write_table(pa.Table.from_pylist(rows, schema=schema.with_metadata(metadata)), folder / f"{kind}.parquet")


def _trial(
    values: dict[str, Any], status: str, name: str, num_samples: int, random_weights: bool
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    identity = json.dumps([values, random_weights], sort_keys=True, default=str)
    digest = f"{random.Random(identity).getrandbits(48):012x}"
    model = {key: value for key, value in values.items() if key.startswith(("model.", "train."))}
    trained = f"train-{random.Random(str(model)).getrandbits(48):012x}" if values["train.data"] else None
    clicks = _clicks(f"trial-{digest}", values, num_samples) if status == "done" else []
    trial = {
        "sweep": name,
        "trial": f"trial-{digest}",
        "status": status,
        "reason": {
            "failed": "CUDA out of memory in evaluate-9f2c at batch 16",
            "not run": "its training failed",
        }.get(status),
        "stage_train": trained,
        "stage_evaluate": f"evaluate-{digest}",
        "stage_profile": f"profile-{values['model.backbone']}",
        "device_seconds": 812.4 + num_samples if status == "done" else None,
        "hardware": "1 × NVIDIA H200, 16 CPU cores",
        "commit": "3f2a9c1d0b7e",
        "versions": json.dumps({"torch": "2.15.0", "ray": "2.60.0", "samref-sweep": "0.1.0"}),
        "random_weights": random_weights,
        "evaluate_data_fingerprint": f"contents of {values['evaluate.data']}",
        "started": datetime(2026, 11, 21, 14, 3, 9, tzinfo=UTC),
        **values,
        **(_headline(clicks, num_samples, values["evaluate.max_clicks"]) if clicks else {}),
    }
    return trial, clicks


def _clicks(trial: str, values: dict[str, Any], num_samples: int) -> list[dict[str, Any]]:
    theta, gamma = float(values["evaluate.theta"]), float(values["train.gamma"] or 0.5)
    chance = random.Random(trial)
    quality = 1.0 - 4 * (theta - 1.12) ** 2 + 0.3 * gamma + chance.gauss(0, 0.03)
    rows: list[dict[str, Any]] = []
    for sample in range(num_samples):
        own = random.Random(sample)
        start, ceiling, speed = (
            own.uniform(0.3, 0.85),
            own.uniform(0.9, 0.99),
            own.uniform(0.1, 0.9) * quality,
        )
        if sample % 6 == 5:
            ceiling = own.uniform(0.6, 0.89)
        for click in range(1, values["evaluate.max_clicks"] + 1):
            iou = ceiling - (ceiling - start) * math.exp(-speed * (click - 1)) + chance.gauss(0, 0.004)
            ratio = None if click == 1 else chance.lognormvariate(0.09, 0.12)
            row = {
                "trial": trial,
                "dataset": values["evaluate.data"],
                "sample": f"{('bear', 'camel', 'swan', 'kite', 'train', 'goat')[sample % 6]}-{sample:05d}",
                "click": click,
                "x": chance.randrange(854),
                "y": chance.randrange(480),
                "positive": click == 1 or chance.random() < 0.6,
                "iou": min(1.0, max(0.0, iou)),
                "pasted_on": "global" if ratio is None or ratio < theta else "previous",
                "error_ratio": ratio,
            }
            rows.append(row)
    return rows


def _box(sample: str) -> dict[str, Any]:
    """A mask of 854×480 px: a box of 200×100 px."""
    x, y = (random.Random(sample).randrange(end) for end in (654, 380))
    runs = [480 * x + y, *[100, 380] * 199, 100]
    return {"height": 480, "width": 854, "counts": [*runs, 480 * 854 - sum(runs)]}


def _photographs(trials: list[dict[str, Any]], clicks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A photograph of 400×225 px for each object, and a truth like its mask."""
    contents = {trial["trial"]: trial["evaluate_data_fingerprint"] for trial in trials}
    shade = np.linspace(0, 255, 400, dtype=np.uint8)[None].repeat(225, axis=0)
    jpeg = cv2.imencode(".jpg", shade)[1].tobytes()
    objects = dict.fromkeys((contents[click["trial"]], click["sample"]) for click in clicks)
    return [{"data": data, "sample": sample, **_box(sample), "jpeg": jpeg} for data, sample in objects]


def _headline(clicks: list[dict[str, Any]], num_samples: int, max_clicks: int) -> dict[str, Any]:
    samples: dict[str, list[dict[str, Any]]] = {}
    for click in clicks:
        samples.setdefault(click["sample"], []).append(click)
    metrics: dict[str, Any] = {"num_samples": num_samples}
    for percent in THRESHOLDS:
        reached = [[c["click"] for c in made if c["iou"] >= percent / 100] for made in samples.values()]
        firsts = [min(found, default=max_clicks) for found in reached]
        metrics[f"noc_at_{percent}"] = sum(firsts) / num_samples
        metrics[f"nof_at_{percent}"] = float(sum(first == max_clicks for first in firsts))
    for number in (1, 3, 5, 10, 20):
        after = [made[number - 1]["iou"] for made in samples.values() if len(made) >= number]
        metrics[f"miou_at_{number}"] = sum(after) / len(after) if after else None
    for where in ("global", "previous"):
        metrics[f"clicks_on_{where}"] = sum(c["pasted_on"] == where for c in clicks) / num_samples
    return {
        **metrics,
        "seconds_per_click": 0.0412,
        "parameters": 641_800_000,
        "parameters_leaf": 636_300_000,
        "fps": 1.67,
    }


def _training(stages: list[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for stage in stages:
        chance = random.Random(stage)
        level = chance.uniform(0.2, 0.4)
        for step in range(400):
            value = level + 1.1 * math.exp(-step / 90) + chance.gauss(0, 0.05)
            rows.append({"stage": stage, "step": step, "metric": "loss", "value": value})
            rows.append({"stage": stage, "step": step, "metric": "learning_rate", "value": 1e-4})
    return rows


def _profile(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    models = {trial["stage_profile"]: trial["model.backbone"] for trial in trials if trial["status"] == "done"}
    measured: dict[str, Any] = {
        "parameters": 641_800_000,
        "parameters_leaf": 636_300_000,
        "fps": 1.67,
        "memory_gb": 3.7,
    }
    return [
        {"stage": stage, "model": model, "refiner": "gfr+lfr", "device": "NVIDIA H200", **measured}
        | {"encode_seconds": 0.58, "click_seconds": 0.0106}
        for stage, model in models.items()
    ]
