"""The record of a sweep: six Parquet tables, rebuilt from the store whenever they are written.

    trials.parquet     one row per trial: status, every setting, every headline metric
    clicks.parquet     one row per click of every trial: keep the trajectory, metrics are queries
    masks.parquet      the last masks of each evaluation's hardest objects
    training.parquet   what each training reported while it ran
    profile.parquet    what each model costs
    stages.parquet     what each stage took: time, rate, memory

`SCHEMAS` is the contract with the dashboards; `VERSION` is raised when a column changes its name, type or meaning.
A metric that was not measured is null.
"""

from __future__ import annotations

import json
import os
import typing
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from samref.config import Part, TrialConfig
from samref.stage import Stage
from samref.trial import Trial
from samref_sweep.errors import StoreError
from samref_sweep.failures import Failure
from samref_sweep.planning.plan import Outcome, Plan, leaves
from samref_sweep.planning.redo import other_code
from samref_sweep.spec.settings import options, part_of
from samref_sweep.store.folder import Store

VERSION = "1"
BYTES_PER_GROUP = 32 << 20
"""In memory, of a table's row groups: half a million clicks, or ten thousand masks."""

METRICS: dict[str, pa.DataType] = {
    "num_samples": pa.int64(),
    **{name: pa.float64() for name in ("noc_at_85", "noc_at_90", "noc_at_95")},
    **{name: pa.float64() for name in ("nof_at_85", "nof_at_90", "nof_at_95")},
    **{f"miou_at_{click}": pa.float64() for click in (1, 3, 5, 10, 20)},
    **{f"boundary_miou_at_{click}": pa.float64() for click in (1, 5, 20)},
    **{name: pa.float64() for name in ("clicks_on_global", "clicks_on_previous", "seconds_per_click")},
    "parameters": pa.int64(),
    "parameters_leaf": pa.int64(),
    "fps": pa.float64(),
    "memory_gb": pa.float64(),
    "train_steps_per_second": pa.float64(),
    "train_accumulation": pa.int64(),
    "train_peak_memory_gb": pa.float64(),
    "train_device_peak_memory_gb": pa.float64(),
}
PROFILE_METRICS = (
    *("parameters", "parameters_leaf", "fps", "fps_spread", "memory_gb"),
    *(f"{piece}_seconds" for piece in ("encode", "prepare", "decode", "refine", "click")),
    *("loop_seconds_per_click", "sat_latency_seconds", "sat_latency_batched_seconds"),
    *(f"{piece}_gflops" for piece in ("encode", "prepare", "decode", "refine")),
    *("refiner_fps_ratio", "refiner_memory_ratio"),
)
PASTED_ON = ("global", "previous")
FILES = {"evaluate": ("samples.json", "clicks.npz", "masks.npz"), "train": ("training.jsonl",)}
"""What the tables read of a stage beside its summary."""
RATES = {"embed": "images_per_second", "train": "steps_per_second"}
MEASURED = ("hardware", "device_seconds", "peak_memory_gb", "device_peak_memory_gb")


def _settings() -> dict[str, pa.DataType]:
    """Every setting's dotted name and type; `train.init` is JSON, a list its entries joined by commas."""
    columns = {}
    for part_name, field in TrialConfig.model_fields.items():
        part = part_of(field)
        assert part is not None
        for name, inner in part.model_fields.items():
            columns[f"{part_name}.{name}"] = _type(inner.annotation)
    return columns


def _type(annotation: Any) -> pa.DataType:
    kinds = [option for option in options(annotation) if option is not type(None)]
    kind = typing.get_args(kinds[0])[0] if typing.get_origin(kinds[0]) is typing.Annotated else kinds[0]
    # bool before int: every bool is an int.
    types = ((bool, pa.bool_()), (int, pa.int64()), (float, pa.float64()))
    return next((arrow for python, arrow in types if kind is python), pa.string())


_TRIALS: dict[str, pa.DataType] = {
    "sweep": pa.string(),
    "trial": pa.string(),
    "status": pa.string(),
    "reason": pa.string(),
    "stage_train": pa.string(),
    "stage_evaluate": pa.string(),
    "stage_profile": pa.string(),
    "device_seconds": pa.float64(),
    "hardware": pa.string(),
    "commit": pa.string(),
    "versions": pa.string(),
    "random_weights": pa.bool_(),
    "checkpoint_fingerprint": pa.string(),
    "train_data_fingerprint": pa.string(),
    "evaluate_data_fingerprint": pa.string(),
    "started": pa.timestamp("us", tz="UTC"),
    **_settings(),
    **METRICS,
}


def _schema(columns: dict[str, pa.DataType]) -> pa.Schema:
    return pa.schema(columns)


SCHEMAS: dict[str, pa.Schema] = {
    "trials": pa.schema(_TRIALS),
    "clicks": _schema(
        {
            "trial": pa.string(),
            "dataset": pa.string(),
            "sample": pa.string(),
            "click": pa.int16(),
            "x": pa.int32(),
            "y": pa.int32(),
            "positive": pa.bool_(),
            "iou": pa.float32(),
            "pasted_on": pa.dictionary(pa.int8(), pa.string()),
            "error_ratio": pa.float32(),
        }
    ),
    "masks": _schema(
        {
            "stage": pa.string(),
            "sample": pa.string(),
            "height": pa.int32(),
            "width": pa.int32(),
            "counts": pa.list_(pa.int32()),
        }
    ),
    "training": _schema({"stage": pa.string(), "step": pa.int32(), "metric": pa.string(), "value": pa.float64()}),
    "profile": _schema(
        {
            "stage": pa.string(),
            "model": pa.string(),
            "refiner": pa.string(),
            "precision": pa.string(),
            "device": pa.string(),
            **{name: METRICS.get(name, pa.float64()) for name in PROFILE_METRICS},
        }
    ),
    "stages": _schema(
        {
            "stage": pa.string(),
            "kind": pa.string(),
            "hardware": pa.string(),
            "started": pa.timestamp("us", tz="UTC"),
            "commit": pa.string(),
            "device_seconds": pa.float64(),
            "per_second": pa.float64(),
            "accumulation": pa.int64(),
            "peak_memory_gb": pa.float64(),
            "device_peak_memory_gb": pa.float64(),
        }
    ),
}


def write(plan: Plan, store: Store, failures: Mapping[str, Failure], folder: Path, command: str) -> tuple[Outcome, ...]:
    """Write all tables of a plan's trials from what the store holds now; gives what became of each trial.

    A stage whose files turn out to be damaged is not done, and its trial failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sweep = {
        "name": plan.sweep.name,
        "purpose": plan.sweep.purpose,
        "file": str(plan.sweep.file),
        "command": command,
        "axes": {key: list(values) for key, values in plan.sweep.axes.items()},
        "planned": len(plan.trials),
    }
    reader = Reader(store)
    for trial in plan.trials:
        for leaf in leaves(trial):
            reader.summary(leaf)
    done, stages = store.done(), plan.stages.values()
    outcomes = plan.outcomes(done, {**failures, **reader.damaged})
    sweep["other_code"] = other_code(stages, done, store.codes.all()).text
    rows = (
        trial_row(plan.sweep.name, trial, outcome, reader) for trial, outcome in zip(plan.trials, outcomes, strict=True)
    )
    _write(folder, "trials", _batches("trials", rows), {"samref.sweep": json.dumps(sweep)})
    _write(folder, "clicks", (table for trial in plan.trials for table in _clicks(trial, reader)))
    _write(folder, "masks", (table for stage in stages for table in _masks(stage, reader)))
    _write(folder, "training", (table for stage in stages for table in _training(stage, reader)))
    _write(folder, "profile", _batches("profile", (row for stage in stages for row in _profile(stage, reader))))
    _write(folder, "stages", _batches("stages", (row for stage in stages for row in _stage(stage, reader))))
    return outcomes


class Reader:
    """Reads each finished stage once; a damaged one counts as not done."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._done = store.done()
        self._summaries: dict[str, dict[str, Any] | None] = {}
        self.damaged: dict[str, Failure] = {}
        """Stage id → what is wrong with its files."""

    def summary(self, stage: Stage | None) -> dict[str, Any] | None:
        if stage is None or stage.id not in self._done:
            return None
        if stage.id not in self._summaries:
            try:
                self._summaries[stage.id] = self._store.summary(stage.id)
                for name in FILES.get(stage.kind, ()):
                    self._store.file(stage.id, name)
            except StoreError as error:
                self._summaries[stage.id] = None
                self.damaged[stage.id] = Failure(str(error), kind="storage")
        return self._summaries[stage.id]

    def file(self, stage: Stage, name: str) -> Path:
        """One of the FILES of a stage that has a summary."""
        return self._store.file(stage.id, name)


def trial_row(sweep: str, trial: Trial, outcome: Outcome, reader: Reader) -> dict[str, Any]:
    """A trial's row of trials.parquet; what is not known is left out."""
    train, evaluate, profile = (trial.stage(kind) for kind in ("train", "evaluate", "profile"))
    summaries = [summary for stage in trial.stages if (summary := reader.summary(stage))]
    row: dict[str, Any] = {
        "sweep": sweep,
        "trial": trial.id,
        "status": outcome.status,
        "reason": outcome.reason,
        "stage_train": train.id if train else None,
        "stage_evaluate": evaluate.id if evaluate else None,
        "stage_profile": profile.id if profile else None,
        "device_seconds": sum(summary["device_seconds"] for summary in summaries) if summaries else None,
        "random_weights": random_weights(trial),
        "checkpoint_fingerprint": evaluate.key["checkpoint"] if evaluate else None,
        "train_data_fingerprint": train.key["data"] if train else None,
        "evaluate_data_fingerprint": evaluate.key["data"] if evaluate else None,
        **settings_row(trial.config),
    }
    if ran := reader.summary(evaluate) or reader.summary(profile):
        row |= {"hardware": ran["hardware"], "commit": ran["commit"], "versions": json.dumps(ran["versions"])}
        row["started"] = datetime.fromisoformat(ran["started"])
    for stage in (evaluate, profile):
        if summary := reader.summary(stage):
            row |= {name: value for name, value in summary["metrics"].items() if name in METRICS}
    if summary := reader.summary(train):
        row |= training_cost(summary)
    return row


def training_cost(summary: Mapping[str, Any]) -> dict[str, float | int]:
    """What a training took, by the names of its columns; those that were measured."""
    measured = {**summary, **summary["metrics"]}
    names = ("steps_per_second", "accumulation", "peak_memory_gb", "device_peak_memory_gb")
    return {f"train_{name}": measured[name] for name in names if name in measured}


def random_weights(trial: Trial) -> bool:
    """Whether the image encoder's weights are random: loaded from nothing and trained by no stage."""
    leaf = trial.stage("evaluate")
    trained = any("encoder" in stage.key["modules"] for stage in trial.stages if stage.kind == "train")
    return leaf is not None and str(leaf.key["checkpoint"]).startswith("random") and not trained


def settings_row(config: TrialConfig) -> dict[str, Any]:
    """Every setting under its dotted name, as the table holds it; a part that is null is left out."""
    row: dict[str, Any] = {}
    for part_name in TrialConfig.model_fields:
        part: Part | None = getattr(config, part_name)
        for name, value in part.model_dump().items() if part else ():
            if isinstance(value, dict):
                value = json.dumps(value)
            elif isinstance(value, tuple | list):
                value = ",".join(value)
            row[f"{part_name}.{name}"] = value
    return row


def _clicks(trial: Trial, reader: Reader) -> Iterator[pa.Table]:
    stage = trial.stage("evaluate")
    if stage is None or reader.summary(stage) is None:
        return
    samples = np.array(json.loads(reader.file(stage, "samples.json").read_text()), dtype=object)
    with np.load(reader.file(stage, "clicks.npz")) as arrays:
        count = len(arrays["click"])
        error_ratio, pasted_on = (arrays["error_ratio"], arrays["pasted_on"].astype(np.int8))
        yield pa.table(
            {
                "trial": pa.repeat(trial.id, count),
                "dataset": pa.repeat(trial.config.evaluate.data, count),
                "sample": pa.array(samples[arrays["sample"]], pa.string()),
                **{name: pa.array(arrays[name]) for name in ("click", "x", "y", "positive", "iou")},
                "pasted_on": pa.DictionaryArray.from_arrays(
                    pa.array(pasted_on - 1, pa.int8(), mask=pasted_on == 0), pa.array(PASTED_ON)
                ),
                "error_ratio": pa.array(error_ratio, pa.float32(), mask=np.isnan(error_ratio)),
            }
        ).cast(SCHEMAS["clicks"])


def _masks(stage: Stage, reader: Reader) -> Iterator[pa.Table]:
    if stage.kind != "evaluate" or reader.summary(stage) is None:
        return
    samples = np.array(json.loads(reader.file(stage, "samples.json").read_text()), dtype=object)
    with np.load(reader.file(stage, "masks.npz")) as arrays:
        yield pa.table(
            {
                "stage": pa.repeat(stage.id, len(arrays["sample"])),
                "sample": pa.array(samples[arrays["sample"]], pa.string()),
                **{name: pa.array(arrays[name]) for name in ("height", "width")},
                "counts": pa.ListArray.from_arrays(arrays["offsets"], arrays["counts"]),
            },
            schema=SCHEMAS["masks"],
        )


def _training(stage: Stage, reader: Reader) -> Iterator[pa.Table]:
    if stage.kind == "train" and reader.summary(stage):
        lines = reader.file(stage, "training.jsonl").read_text().splitlines()
        rows = [{"stage": stage.id, **json.loads(line)} for line in lines if line]
        yield pa.Table.from_pylist(rows, schema=SCHEMAS["training"])


def _profile(stage: Stage, reader: Reader) -> Iterator[dict[str, Any]]:
    summary = reader.summary(stage) if stage.kind == "profile" else None
    if summary is not None:
        model = stage.config["model"]
        metrics = {name: summary["metrics"].get(name) for name in PROFILE_METRICS}
        named = {"stage": stage.id, "model": model["backbone"], "refiner": model["refiner"]}
        named["precision"] = model["precision"]
        yield {**named, "device": summary["hardware"], **metrics}


def _stage(stage: Stage, reader: Reader) -> Iterator[dict[str, Any]]:
    summary = reader.summary(stage)
    if summary is None:
        return
    metrics = summary["metrics"]
    rate = metrics.get(RATES.get(stage.kind))
    if seconds := metrics.get("seconds_per_click"):
        rate = 1 / seconds
    yield {
        "stage": stage.id,
        "kind": stage.kind,
        "started": datetime.fromisoformat(summary["started"]),
        "commit": summary["commit"],
        "per_second": rate,
        "accumulation": metrics.get("accumulation"),
        **{name: summary.get(name) for name in MEASURED},
    }


def _batches(name: str, rows: Iterator[dict[str, Any]]) -> Iterator[pa.Table]:
    yield pa.Table.from_pylist(list(rows), schema=SCHEMAS[name])


def _write(folder: Path, name: str, tables: Iterator[pa.Table], metadata: Mapping[str, str] | None = None) -> None:
    """Write a table aside and rename it, so that a reader sees the old one or the new one."""
    schema = SCHEMAS[name].with_metadata({"samref.schema": VERSION, **(metadata or {})})
    aside = folder / f".{name}.parquet.{os.getpid()}"
    try:
        with pq.ParquetWriter(aside, schema, compression="zstd") as writer:
            waiting: list[pa.Table] = []
            size = 0
            for table in tables:
                waiting.append(table)
                size += table.nbytes
                if size >= BYTES_PER_GROUP:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting, size = [], 0
            if waiting:
                writer.write_table(pa.concat_tables(waiting))
        aside.replace(folder / f"{name}.parquet")
    finally:
        aside.unlink(missing_ok=True)
