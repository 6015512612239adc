"""Results folders that hold the paper's published numbers (arXiv 2408.11535), as a sweep would have written them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

TABLE_1 = (
    (1.05, 7.20, 12.80, 4.60, 9.30),
    (1.10, 9.44, 10.56, 4.54, 9.10),
    (1.15, 12.89, 7.11, 4.59, 9.20),
    (1.20, 15.01, 4.99, 4.61, 9.35),
    (1.30, 16.87, 3.13, 4.60, 9.37),
)
"""θ, clicks on the global result, on the previous mask, NoC90, NoC95."""
TABLE_2 = (
    ("segnext_vit_b_sax2", "none", None, 22.1, 85.71, 7.18, 11.52, 700),
    ("sam_vit_b", "gfr+lfr", False, 5.1, 89.0, 6.09, 9.72, 596),
    ("sam_vit_h", "none", None, 4.21, 88.0, 6.50, 10.53, 653),
    ("sam_vit_h", "gfr+lfr", True, 5.22, 89.6, 5.44, 9.16, 566),
    ("sam2_hiera_l", "none", None, 4.12, 88.26, 5.90, 9.87, 611),
    ("sam2_hiera_l", "gfr+lfr", True, 5.29, 89.1, 5.60, 8.99, 565),
)
"""Backbone, refiner, frozen in training (None: not trained), latency, 5-mIoU, NoC90, NoC95, NoF95."""
TABLE_3 = (
    ("sam_vit_h", "none", 635.6, 1.70, 3.7),
    ("sam_vit_h", "gfr+lfr", 636.3, 1.67, 3.7),
    ("sam2_hiera_l", "none", 216.8, 4.65, 2.3),
    ("sam2_hiera_l", "gfr+lfr", 218.0, 4.34, 2.3),
)
"""Backbone, refiner, leaf parameters in millions, FPS, memory in GB."""
CLICK_TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(("trial", "dataset", "sample", "pasted_on"), pa.string()),
    **dict.fromkeys(("click", "x", "y"), pa.int32()),
    "positive": pa.bool_(),
    **dict.fromkeys(("iou", "error_ratio"), pa.float32()),
}
TRAINING_TYPES: dict[str, pa.DataType] = {"stage": pa.string(), "step": pa.int32(), "metric": pa.string()}


def write_table_1(folder: Path) -> None:
    """The θ sweep on DAVIS."""
    names = ("evaluate.theta", "clicks_on_global", "clicks_on_previous", "noc_at_90", "noc_at_95")
    trials = [
        _trial(f"trial-{index}", **dict(zip(names, row, strict=True)), stage_train="train-0")
        for index, row in enumerate(TABLE_1)
    ]
    _write(folder, trials, [], {"evaluate.theta": [row[0] for row in TABLE_1]})


def write_table_2(folder: Path) -> None:
    """The methods on HQSeg-44K."""
    trials, profiles = [], []
    for index, (backbone, refiner, frozen, latency, miou, at_90, at_95, failures) in enumerate(TABLE_2):
        settings = {"model.backbone": backbone, "model.refiner": refiner, "model.freeze_backbone": frozen is not False}
        measured = {"miou_at_5": miou / 100, "noc_at_90": at_90, "noc_at_95": at_95, "nof_at_95": float(failures)}
        stage, trained = f"profile-{index}", None if frozen is None else f"train-{index}"
        data = {"evaluate.data": "hqseg44k", "stage_profile": stage, "stage_train": trained}
        trials.append(_trial(f"trial-{index}", **settings, **measured, **data))
        profiles.append(_profile(stage, backbone, refiner, sat_latency_seconds=latency))
    _write(folder, trials, profiles, dict.fromkeys(("model.backbone", "model.refiner"), ()))


def write_table_3(folder: Path) -> None:
    """What the models cost."""
    trials, profiles = [], []
    for index, (backbone, refiner, leaf, fps, memory) in enumerate(TABLE_3):
        settings = {"model.backbone": backbone, "model.refiner": refiner, "stage_profile": f"profile-{index}"}
        trials.append(_trial(f"trial-{index}", **settings))
        costs = {"parameters_leaf": round(leaf * 1e6), "fps": fps, "memory_gb": memory}
        profiles.append(_profile(f"profile-{index}", backbone, refiner, **costs))
    _write(folder, trials, profiles, dict.fromkeys(("model.backbone", "model.refiner"), ()))


def _trial(name: str, **values: Any) -> dict[str, Any]:
    return {
        "sweep": "published",
        "trial": name,
        "status": "done",
        "reason": None,
        "stage_train": None,
        "stage_evaluate": f"evaluate-{name}",
        "stage_profile": None,
        "device_seconds": None,
        "hardware": None,
        "commit": None,
        "versions": None,
        "random_weights": False,
        "started": None,
        "num_samples": None,
        "model.backbone": "sam_vit_h",
        "model.refiner": "gfr+lfr",
        "model.freeze_backbone": True,
        "train.data": "coco_lvis",
        "evaluate.data": "davis",
        "evaluate.theta": 1.1,
        "evaluate.max_clicks": 20,
        **dict.fromkeys(("noc_at_90", "noc_at_95", "clicks_on_global", "clicks_on_previous")),
        **values,
    }


def _profile(stage: str, backbone: str, refiner: str, **costs: Any) -> dict[str, Any]:
    names = ("parameters", "parameters_leaf", "fps", "memory_gb", "encode_seconds", "click_seconds")
    about = {"stage": stage, "model": backbone, "refiner": refiner, "device": "NVIDIA V100"}
    return {**about, **dict.fromkeys(names), "sat_latency_seconds": None, **costs}


def _write(
    folder: Path, trials: Sequence[dict[str, Any]], profiles: Sequence[dict[str, Any]], axes: dict[str, Any]
) -> None:
    folder.mkdir(parents=True)
    about = {"name": "published", "purpose": "The paper's numbers.", "file": "", "command": "", "axes": axes}
    metadata = {"samref.schema": "1", "samref.sweep": json.dumps({**about, "planned": len(trials)})}
    pq.write_table(pa.Table.from_pylist(list(trials)).replace_schema_metadata(metadata), folder / "trials.parquet")
    pq.write_table(pa.Table.from_pylist([], schema=pa.schema(CLICK_TYPES)), folder / "clicks.parquet")
    training = pa.schema({**TRAINING_TYPES, "value": pa.float64()})
    pq.write_table(pa.Table.from_pylist([], schema=training), folder / "training.parquet")
    if profiles:
        pq.write_table(pa.Table.from_pylist(list(profiles)), folder / "profile.parquet")
