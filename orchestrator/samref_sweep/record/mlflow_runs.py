"""A sweep's runs in MLflow: what is logged of a trial, and how (written for MLflow 3.17).

The only module that imports mlflow; it calls `MlflowClient` alone, which keeps no state beside itself.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

# Before the import, which reads them. A server that is away must not hold up the end of a sweep; and what may have
# been done although no answer came is looked up before it is tried again, which MLflow's own retries do not.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunInfo, RunTag
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from samref.config import as_json
from samref.measures import measured_of
from samref.stage import TELEMETRY_FILE
from samref.summary import Summary
from samref.trial import Trial
from samref_sweep.planning.plan import Outcome, Plan, leaves
from samref_sweep.record.rows import settings_row
from samref_sweep.store.store import Store

EXPERIMENT = "samref-sweep"

TRAINING_POINTS = 200

MAX_PARAM_CHARACTERS = 500

MAX_BATCH_METRICS = 1000

SQLITE_SECONDS = 30
"""What a write waits for those who read the database, an open page of MLflow say; Python's own 5 s can be too few."""

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]


class SweepRuns:
    """The runs of one sweep in MLflow: a parent run, and a child for each trial, found again by their tags."""

    def __init__(self, plan: Plan, store: Store, uri: str) -> None:
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self._store = store
        self._sweep = plan.sweep.name
        self._names: dict[str, str] = {}
        self.name(plan)
        if uri.startswith("sqlite:///") and "?" not in uri:
            _make_database(Path(uri.removeprefix("sqlite:///")))
        waiting = f"?timeout={SQLITE_SECONDS}" if uri.startswith("sqlite:") and "?" not in uri else ""
        self._client = MlflowClient(tracking_uri=uri + waiting)
        # A server has its own place for artifacts; for a database MLflow would take ./mlruns of this folder.
        artifacts = None if uri.startswith("http") else store.node.root / "mlflow-artifacts"
        self._experiment = self._find_experiment(artifacts)
        self._runs: dict[str, RunInfo] = {}  # by trial id
        self._finished: set[str] = set()
        self._parent = ""
        finished = store.dated()
        ends = {t.id: max(finished.get(stage.id, math.inf) for stage in leaves(t)) for t in plan.trials}
        for run in self._search(f"tags.`samref.sweep` = '{self._sweep}'"):
            trial = run.data.tags.get("samref.trial")
            if trial in self._runs or (not trial and self._parent):
                self._client.delete_run(run.info.run_id)  # made twice, where the first answer was lost
            elif trial:
                self._runs[trial] = run.info
                # One whose stages were made anew since is logged anew.
                if run.info.status == "FINISHED" and ends.get(trial, 0) * 1000 <= run.info.end_time:
                    self._finished.add(trial)
            else:
                self._parent = run.info.run_id
        if self._parent:
            self._client.update_run(self._parent, status="RUNNING")
        else:
            tags = {"samref.sweep": self._sweep, "mlflow.runName": self._sweep}
            if plan.sweep.purpose:
                tags["mlflow.note.content"] = plan.sweep.purpose
            self._parent = self._client.create_run(self._experiment, tags=tags).info.run_id

    def name(self, plan: Plan) -> None:
        """Give the plan's runs names that say what sets its trials apart; their ids are tags."""
        for trial, point in zip(plan.trials, plan.points, strict=True):
            words = (f"{key.rpartition('.')[2]}={value}" for key, value in point.items())
            self._names[trial.id] = " ".join(words) or trial.id

    def record(self, trial: Trial) -> None:
        """Log a completed trial; one that was logged to the end is left alone.

        Done again after half of it, it writes the same points once more, which MLflow keeps once.
        """
        if trial.id in self._finished:
            return
        run = self._runs.get(trial.id) or self._create(trial)
        summaries: dict[str, Summary] = {
            stage.kind: self._store.summary(stage.id) for stage in trial.stages if self._store.has(stage.id)
        }
        # The stage's own time, so that logging a trial again writes the same points and not new ones.
        started = summaries[leaves(trial)[0].kind].started
        stamp = int(datetime.fromisoformat(started).timestamp() * 1000)
        metrics = [Metric(name, value, stamp, step) for name, value, step in self._metrics(trial, summaries)]
        if train := trial.stage("train"):
            with contextlib.suppress(FileNotFoundError):  # sampled on GPUs only
                metrics += _system_metrics(self._store.file(train.id, TELEMETRY_FILE))
        # Few calls: each is several transactions of a database. What is logged twice is written once.
        params = _params(trial)
        for first in range(0, max(1, len(metrics)), MAX_BATCH_METRICS):
            self._client.log_batch(run.run_id, metrics=metrics[first : first + MAX_BATCH_METRICS], params=params)
            params = []
        with tempfile.TemporaryDirectory() as folder:
            contents = {kind: summary.to_json() for kind, summary in summaries.items()}
            for name, content in {**contents, "trial": as_json(trial.config.model_dump())}.items():
                Path(folder, f"{name}.json").write_text(json.dumps(content, indent=1))
            if run.artifact_uri.startswith("file:"):
                # The client would ask the database where that is, which takes 3 ms.
                get_artifact_repository(run.artifact_uri).log_artifacts(folder)  # type: ignore[no-untyped-call]
            else:
                self._client.log_artifacts(run.run_id, folder)
        self._client.set_terminated(run.run_id, "FINISHED")
        self._finished.add(trial.id)

    def fail(self, trial: Trial, outcome: Outcome) -> None:
        """Log that a trial failed or was stopped early, and why; a later success takes its place."""
        run = self._runs.get(trial.id) or self._create(trial)
        reason = RunTag("samref.reason", (outcome.reason or "")[:MAX_PARAM_CHARACTERS])
        self._client.log_batch(run.run_id, params=_params(trial), tags=[reason])
        self._client.set_terminated(run.run_id, "KILLED" if outcome.status == "stopped" else "FAILED")
        self._finished.discard(trial.id)

    def end(self, status: RunStatus) -> None:
        """End the sweep's own run."""
        self._client.set_terminated(self._parent, status)

    def _create(self, trial: Trial) -> RunInfo:
        stages = json.dumps([stage.id for stage in trial.stages])[:5000]
        tags = {"samref.trial": trial.id, "samref.sweep": self._sweep, "samref.stages": stages}
        tags["mlflow.parentRunId"] = self._parent
        run = self._client.create_run(self._experiment, run_name=self._names[trial.id], tags=tags).info
        self._runs[trial.id] = run
        return run

    def _metrics(self, trial: Trial, summaries: Mapping[str, Summary]) -> Iterator[tuple[str, float, int]]:
        for name, value in measured_of(trial, lambda stage: summaries.get(stage.kind)).items():
            if not name.startswith("miou_at_"):  # below, after every click
                yield name, value, 0
        evaluate, train = trial.stage("evaluate"), trial.stage("train")
        if evaluate and "evaluate" in summaries:
            for click, value in enumerate(miou_per_click(self._store.file(evaluate.id, "clicks.npz")), start=1):
                yield "miou_at_click", value, click
        if train and "train" in summaries:
            yield from _training_curve(self._store.file(train.id, "training.jsonl"))

    def _find_experiment(self, artifacts: Path | None) -> str:
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        if experiment is not None:
            return str(experiment.experiment_id)
        location = artifacts.as_uri() if artifacts else None
        return str(self._client.create_experiment(EXPERIMENT, artifact_location=location))

    def _search(self, query: str) -> Iterator[Any]:
        token = None
        while True:
            page = self._client.search_runs([self._experiment], query, max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return


def _make_database(path: Path) -> None:
    """Make a database aside and rename it: one whose making was killed half-way can never be opened again."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        aside = Path(folder, path.name)
        MlflowClient(tracking_uri=f"sqlite:///{aside}").search_experiments(max_results=1)
        with contextlib.suppress(FileExistsError):  # another process was first
            os.link(aside, path)


def miou_per_click(clicks: Path) -> list[float]:
    """Mean IoU after each click; a sample that ended early keeps its last IoU."""
    with np.load(clicks) as arrays:
        sample, click, iou = arrays["sample"], arrays["click"], arrays["iou"]
    if not len(click):
        return []
    table = np.full((int(sample.max()) + 1, int(click.max())), np.nan)
    table[sample, click - 1] = iou
    for column in range(1, table.shape[1]):
        table[:, column] = np.where(np.isnan(table[:, column]), table[:, column - 1], table[:, column])
    return [float(value) for value in np.nanmean(table, axis=0)]


def _training_curve(path: Path) -> Iterator[tuple[str, float, int]]:
    """What a training reported, thinned evenly to a curve that MLflow's page can draw."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in path.read_text().splitlines():
        point = json.loads(line)
        curves.setdefault(point["metric"], []).append((point["step"], point["value"]))
    for metric, points in curves.items():
        every = -(-len(points) // TRAINING_POINTS)
        for step, value in points[::every]:
            yield f"train/{metric}", value, step


def _system_metrics(path: Path) -> Iterator[Metric]:
    """What a training on a GPU did to its machine; thinned like its curves, with its times."""
    readings = [json.loads(line) for line in path.read_text().splitlines()]
    for number, reading in enumerate(readings[:: -(-len(readings) // TRAINING_POINTS) or 1]):
        stamp = int(1000 * reading.pop("time"))
        for name, value in reading.items():
            yield Metric(f"system/{name}", value, stamp, number)


def _params(trial: Trial) -> list[Param]:
    return [Param(key, _clip(value)) for key, value in settings_row(trial.config).items() if value is not None]


def _clip(value: Any) -> str:
    text = str(value)
    return text if len(text) <= MAX_PARAM_CHARACTERS else text[: MAX_PARAM_CHARACTERS - 1] + "…"
