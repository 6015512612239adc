"""The rows of the tables as plain values: what each trial, profile and stage of a sweep says in Parquet.

Needs neither pyarrow nor numpy, so that MLflow's runs can have the same settings.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from samref import path_files
from samref.config import TrialConfig
from samref.measures import MEASURES, measured, measured_of
from samref.part import Part, as_json
from samref.protocol import protocol, short_hash
from samref.stage import Stage
from samref.summary import Summary
from samref.trial import Trial
from samref_sweep.errors import StoreError
from samref_sweep.failures import Failure
from samref_sweep.planning.configurations import random_weights
from samref_sweep.planning.plan import Outcome
from samref_sweep.store.store import Store

FILES = {"evaluate": ("samples.json", "clicks.npz", "masks.npz"), "train": ("training.jsonl",)}
"""Kind → what the tables read of such a stage beside its summary."""


class Reader:
    """Reads each finished stage's summary once; a stage whose files are damaged counts as not done."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._done = store.done()
        self._summaries: dict[str, Summary | None] = {}
        self.damaged: dict[str, Failure] = {}
        """Stage id → what is wrong with its files."""

    def summary(self, stage: Stage | None) -> Summary | None:
        """A stage's summary; None where it is not done, its files are damaged, or there is no stage."""
        if stage is None or stage.id not in self._done:
            return None
        if stage.id not in self._summaries:
            try:
                self._summaries[stage.id] = self.store.summary(stage.id)
                curve = (path_files.FILE,) if "curve" in stage.key else ()
                for name in (*FILES.get(stage.kind, ()), *curve):
                    self.store.file(stage.id, name)
            except StoreError as error:
                self._summaries[stage.id] = None
                self.damaged[stage.id] = Failure(str(error), kind="storage")
        return self._summaries[stage.id]


def trial_row(
    sweep: str, trial: Trial, outcome: Outcome, reader: Reader, own: Callable[[Stage], Mapping[str, float]]
) -> dict[str, Any]:
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
        "device_seconds": sum(summary.device_seconds for summary in summaries) if summaries else None,
        "random_weights": random_weights(trial),
        "checkpoint_fingerprint": evaluate.key["checkpoint"] if evaluate else None,
        "train_data_fingerprint": train.key["data"] if train else None,
        "evaluate_data_fingerprint": evaluate.key["data"] if evaluate else None,
        **settings_row(trial.config),
    }
    if ran := reader.summary(evaluate) or reader.summary(profile):
        row |= {"hardware": ran.hardware, "commit": ran.commit, "versions": json.dumps(ran.versions)}
    if summaries:
        row["started"] = min(datetime.fromisoformat(summary.started) for summary in summaries)
    found = measured_of(trial, reader.summary, own)
    config, objects = trial.config, found.get("num_samples")
    contents = row["evaluate_data_fingerprint"]
    keys = protocol(config.model, config.evaluate, contents=contents, objects=None if objects is None else int(objects))
    row |= {"protocol": short_hash(keys), "protocol_keys": json.dumps(keys)}
    return row | {name: value for name, value in found.items() if name not in MEASURES or MEASURES[name].in_trials}


def settings_row(config: TrialConfig) -> dict[str, Any]:
    """Every setting under its dotted name, as the table holds it; a part that is null is left out."""
    row: dict[str, Any] = {}
    for part_name in TrialConfig.model_fields:
        part: Part | None = getattr(config, part_name)
        for name, value in part.model_dump().items() if part else ():
            if isinstance(value, dict):
                value = json.dumps(as_json(value))
            elif isinstance(value, tuple | list):
                value = ",".join(map(str, value))
            row[f"{part_name}.{name}"] = value
    return row


def profile_rows(stages: Iterable[Stage], reader: Reader) -> Iterator[dict[str, Any]]:
    """The rows of profile.parquet: one for each profile that is done."""
    for stage in stages:
        if stage.kind == "profile" and (summary := reader.summary(stage)):
            model = stage.model
            own = {"stage": stage.id, "model": model.backbone, "refiner": model.refiner, "precision": model.precision}
            yield own | {"device": summary.hardware} | measured(summary)


def stage_rows(stages: Iterable[Stage], reader: Reader) -> Iterator[dict[str, Any]]:
    """The rows of stages.parquet: one for each stage that is done."""
    for stage in stages:
        if summary := reader.summary(stage):
            metrics = summary.metrics
            rate = metrics.get("images_per_second") or metrics.get("steps_per_second")
            if seconds := measured(summary).get("seconds_per_click"):
                rate = 1 / seconds
            names = ("hardware", "commit", "device_seconds", "peak_memory_gb", "device_peak_memory_gb")
            yield {
                "stage": stage.id,
                "kind": stage.kind,
                "started": datetime.fromisoformat(summary.started),
                "per_second": rate,
                "accumulation": metrics.get("accumulation"),
                **{name: getattr(summary, name) for name in names},
            }
