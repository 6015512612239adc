"""The columns of the Parquet tables: the contract with the dashboards and with whoever reads the files.

Each column says in its field's metadata what it means, its unit, and which way is better (`lower`, `higher`), where
there is something to say; docs/results.md is made of it. `VERSION` is raised when a column changes its name, type or
meaning.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from samref.config import TrialConfig
from samref.measures import MEASURES, Better
from samref.stage import Kind
from samref_sweep.spec.settings import options, part_of

VERSION = "1"

TEXT, NUMBER, TIME = pa.string(), pa.float64(), pa.timestamp("us", tz="UTC")
_WORDS = pa.dictionary(pa.int8(), pa.string())


def column(
    name: str, meaning: str, type_: pa.DataType = TEXT, unit: str = "", better: Better | None = None
) -> pa.Field[Any]:
    """A column that explains itself in its field's metadata."""
    about = {"meaning": meaning, "unit": unit, "better": better}
    return pa.field(name, type_, metadata={key: value for key, value in about.items() if value})


def measures(kind: Kind | None = None) -> Iterator[pa.Field[Any]]:
    """The columns of what one kind of stage measures, or of all that a trial's row has."""
    for each in MEASURES.values():
        if each.in_trials if kind is None else each.kind == kind:
            yield column(each.name, each.meaning, pa.int64() if each.type is int else NUMBER, each.unit, each.better)


def _settings() -> Iterator[pa.Field[Any]]:
    """Every setting's dotted name and type; `train.init` is JSON, a list its entries joined by commas."""
    for part_name, field in TrialConfig.model_fields.items():
        part = part_of(field)
        assert part is not None
        for name, inner in part.model_fields.items():
            meaning = " ".join((inner.description or "").split())
            yield column(f"{part_name}.{name}", meaning, _type(inner.annotation))


def _type(annotation: Any) -> pa.DataType:
    kinds = [option for option in options(annotation) if option is not type(None)]
    kind = typing.get_args(kinds[0])[0] if typing.get_origin(kinds[0]) is typing.Annotated else kinds[0]
    # bool before int: every bool is an int.
    types = ((bool, pa.bool_()), (int, pa.int64()), (float, pa.float64()))
    return next((arrow for python, arrow in types if kind is python), pa.string())


SCHEMAS: dict[str, pa.Schema] = {
    "trials": pa.schema([
        column("sweep", "name of the sweep"),
        column("trial", "id: the hash of everything that can change the trial's numbers"),
        column("status", "`done`, `failed`, `stopped` (a scheduler ended its training early) or `not run`"),
        column("reason", "why it is not done; null when it is"),
        column("stage_train", "id of its training; null without one"),
        column("stage_evaluate", "id of its evaluation"),
        column("stage_profile", "id of its profile; null without one"),
        column("device_seconds", "device time of its stages; those that trials share count in each", NUMBER, "s"),
        column("hardware", "where the evaluation ran"),
        column("commit", "commit of the code that evaluated"),
        column("versions", "JSON: package → version"),
        column("random_weights", "not a result: the encoder's weights are random and not trained", pa.bool_()),
        column("checkpoint_fingerprint", "contents of the backbone's first weights, or `random:` and their seed"),
        column("train_data_fingerprint", "contents of the training samples; null without a training"),
        column("evaluate_data_fingerprint", "contents of the evaluated samples; those of others are never averaged"),
        column("started", "when the first of its stages that are done started", TIME, "UTC"),
        column("protocol", "short name of how it was evaluated: equal where `protocol_keys` are, but for two"),
        column("protocol_keys", "JSON: all that decides its numbers beside the model (docs/citing.md)"),
        *_settings(),
        *measures(),
    ]),
    "clicks": pa.schema([
        column("trial", "id of the trial"),
        column("dataset", "name of the dataset"),
        column("sample", "name of the sample: one image with one object"),
        column("click", "number of the click, from 1", pa.int16()),
        column("x", "to the right, in the original image", pa.int32(), "px"),
        column("y", "down, in the original image", pa.int32(), "px"),
        column("positive", 'the click says "object"', pa.bool_()),
        column("iou", "IoU after the click, in the original image, without ignored pixels", pa.float32(), "0 to 1"),
        column("pasted_on", "`global` (G_t) or `previous` (M_{t−1}); null without a refiner", _WORDS),
        column("error_ratio", "R_e, which is compared with θ; null where undefined (first click)", pa.float32()),
    ]),
    "masks": pa.schema([
        column("stage", "id of the evaluation (`stage_evaluate` in trials.parquet)"),
        column("sample", "name of the sample"),
        column("height", "height of the original image", pa.int32(), "px"),
        column("width", "width of the original image", pa.int32(), "px"),
        column("counts", "run lengths of the mask after the last click, as COCO's", pa.list_(pa.int32()), "px"),
    ]),
    "curves": pa.schema([
        column("trial", "id of the trial"),
        column("metric", "what it is of, by its column in trials.parquet"),
        column("theta_from", "the value holds for θ greater than this,", NUMBER),
        column("theta_to", "up to and including this (the selector's rule, R_e < θ, is strict)", NUMBER),
        column("value", "the metric of an evaluation at any such θ, exactly", NUMBER),
        column("low", "of NoC: lower end of the 95 % bootstrap interval over objects", NUMBER),
        column("high", "of NoC: its upper end", NUMBER),
        column("excess_low", "of NoC: such an interval of how much more clicks these are than at the best θ", NUMBER),
        column("excess_high", "of NoC: its upper end", NUMBER),
    ]),
    "photographs": pa.schema([
        column("data", "contents of the evaluated samples (`evaluate_data_fingerprint` in trials.parquet)"),
        column("sample", "name of the sample"),
        column("height", "height of the original image", pa.int32(), "px"),
        column("width", "width of the original image", pa.int32(), "px"),
        column("counts", "run lengths of the truth, as COCO's; ignored pixels count as 0", pa.list_(pa.int32()), "px"),
        column("jpeg", "the photograph, at most 400 px wide and high", pa.binary()),
    ]),
    "training": pa.schema([
        column("stage", "id of the training"),
        column("step", "optimiser steps made", pa.int32(), "steps"),
        column("metric", "what was measured, such as `loss`"),
        column("value", "its value", NUMBER),
    ]),
    "profile": pa.schema([
        column("stage", "id of the profile"),
        column("model", "name of the backbone"),
        column("refiner", "`none`, `gfr` or `gfr+lfr`"),
        column("precision", "arithmetic of the image encoder"),
        column("device", "what it was measured on"),
        *measures("profile"),
    ]),
    "stages": pa.schema([
        column("stage", "id of the stage"),
        column("kind", "`embed`, `train`, `evaluate` or `profile`"),
        column("hardware", "where it ran"),
        column("started", "when it started", TIME, "UTC"),
        column("commit", "commit of the code that ran it"),
        column("device_seconds", "wall time × processes, shared evenly by evaluations in one go", NUMBER, "s"),
        column("per_second", "images, steps, or clicks of all evaluations in one go; of no profile", NUMBER, "1/s"),
        column("accumulation", "parts of a training's batch, as it ended", pa.int64()),
        column("peak_memory_gb", "most memory of its process", NUMBER, "GB"),
        column("device_peak_memory_gb", "most memory on its GPU; null on a CPU", NUMBER, "GB"),
    ]),
}  # fmt: skip
