"""A sweep's runs in MLflow: the sweep's own, one below it for each trial and one for each training that trials share.

They are found again by their tags. A run's times are those of its stages: a trial lasts from the start of its first
stage to the end of its last one, whenever it is logged. MLflow never changes a run's start, so the run that was made
when its trial was only planned is replaced by another one when the trial begins.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from samref.part import as_json
from samref.stage import Stage
from samref.trial import Trial
from samref_sweep.failures import Failure
from samref_sweep.planning.configurations import common, words
from samref_sweep.planning.own_metrics import OwnMetrics
from samref_sweep.planning.plan import Outcome, Plan, leaves
from samref_sweep.record import mlflow_content as content
from samref_sweep.record.mlflow_client import LACKS, Metric, Run, Runs, RunStatus, as_tags
from samref_sweep.record.points import Point, finished_points
from samref_sweep.spec.settings import short_names
from samref_sweep.store import manifest
from samref_sweep.store.store import Store

PLANNED = 100
"""Trials whose runs are made when the sweep starts; those of others are made when they are done."""
TO_COME = "samref.planned"
"""Tag of a run that was made before anything of its trial began."""


class SweepRuns:
    """The runs of one sweep in MLflow.

    `ended` has the seconds since 1970 of stages that end while the sweep runs, by id; of others the store tells. Where
    `live` says that the sweep is going to run, its own run is RUNNING. `uri` and `warn` are as of `Runs`.
    """

    def __init__(
        self, plan: Plan, store: Store, uri: str, ended: Mapping[str, float], warn: Callable[[str], None], live: bool
    ) -> None:
        self._plan = plan
        self._store = store
        self._live = live
        self._dated = store.dated()
        self._ended = ended
        self._mlflow = Runs(uri, store.node.root, warn)
        self._origin = {"samref.sweep": plan.sweep.name, **content.origin(plan.sweep.file, manifest.commit())}
        self._runs: dict[str, Run] = {}  # by the id of the trial or the training
        self._followed: dict[str, frozenset[str]] = {}  # id of a run that is not ended → its stages
        self._steps: dict[str, set[int]] = {}  # training → steps whose points were logged while it ran
        self._changed = False
        self.name(plan)
        self._parent = self._find_runs() or self._new_parent()
        if live:
            self._mlflow.set_status(self._parent, "RUNNING")

    @property
    def link(self) -> str:
        """The address of the sweep's run on MLflow's page."""
        return self._mlflow.link(self._parent)

    @property
    def refused(self) -> bool:
        """Whether MLflow refused a part of a record for good."""
        return bool(self._mlflow.refused)

    def name(self, plan: Plan) -> None:
        """Give the plan's runs names that say what sets them apart; their ids are tags."""
        self._plan = plan
        axes = short_names(plan.sweep.axes)
        points: dict[str, list[Mapping[str, Any]]] = {}
        self._names: dict[str, str] = {}
        for trial, point in zip(plan.trials, plan.points, strict=True):
            self._names[trial.id] = words(point, axes) or trial.id
            for stage in trial.stages:
                points.setdefault(stage.id, []).append(point)
        self._trainings = {id_: stage for id_, stage in plan.stages.items() if stage.kind == "train"}
        for id_ in self._trainings:
            self._names[id_] = f"training {words(common(points[id_]), axes)}".strip()

    def schedule(self, running: Mapping[str, int]) -> None:
        """Make the runs of the first trials that are to come, and follow them from now on; `running` as in `follow`."""
        to_do = {stage.id for work in self._plan.works for stage in work.stages}
        for trial in self._plan.trials[:PLANNED]:
            stages = frozenset(stage.id for stage in trial.stages)
            if trial.id in self._followed or to_do.isdisjoint(stages) or all(map(self._known, leaves(trial))):
                continue
            self._followed[trial.id] = stages
            if trial.id not in self._runs:
                begun = [running[id_] for id_ in stages & running.keys()]
                start = self._start(trial.stages) or min(begun, default=None)
                self._make(trial, start, "RUNNING" if begun else "SCHEDULED")

    def follow(self, running: Mapping[str, int]) -> None:
        """Set the state of all that is not ended, given which stages run since when: RUNNING while one of its does.

        A training's run is made when it begins.
        """
        for id_ in (running.keys() & self._trainings.keys()) - self._followed.keys():
            run = self._begin(self._trainings[id_], running[id_])
            self._mlflow.log(run, params=content.training_params(self._trainings[id_]))
        for name, stages in self._followed.items():
            begun = [running[id_] for id_ in stages & running.keys()]
            run = self._runs[name]
            if begun and TO_COME in run.tags:
                run = self._replace(name, run, min(begun))
            self._mlflow.set_status(run, "RUNNING" if begun else "SCHEDULED")

    def points(self, id_: str, points: Sequence[Point]) -> None:
        """Log what a running training reported, in one call."""
        if id_ in self._followed and points:
            self._mlflow.points(self._runs[id_], [Metric(*point) for point in points])
            self._steps[id_].update(step for name, _, _, step in points if name.startswith("train/"))

    def record_training(self, stage: Stage) -> None:
        """Log a finished training, which the runs of its trials name; one that was logged to the end is left alone."""
        if self._is_finished(stage.id, [stage]):
            return
        summary, end = self._store.summary(stage.id), self._end([stage])
        start = content.milliseconds(summary.started)
        if stage.id not in self._steps:
            self._begin(stage, start)
        run = self._runs[stage.id]
        points = finished_points(stage, self._store, start, end, self._steps[stage.id])
        metrics = [*(Metric(*point) for point in points), *content.training_metrics(summary)]
        params, tags = content.training_params(stage), as_tags(content.commit_tag(summary.commit))
        self._mlflow.log(run, metrics=metrics, params=params, tags=tags)
        self._mlflow.inputs(run, content.datasets([stage]))
        self._finish(stage.id, run, "FINISHED", end)

    def record(self, trial: Trial) -> None:
        """Log a completed trial; one that was logged to the end is left alone.

        Done again after half of it, it writes the same points once more, which MLflow keeps once.
        """
        if self._is_finished(trial.id, leaves(trial)):
            return
        summaries = {stage.id: self._store.summary(stage.id) for stage in trial.stages if self._store.has(stage.id)}
        start = content.milliseconds(min(summary.started for summary in summaries.values()))
        run = self._runs.get(trial.id)
        if run is None:
            run = self._make(trial, start, "RUNNING", whole=False)
        elif TO_COME in run.tags:
            run = self._replace(trial.id, run, start)
        own = OwnMetrics(self._plan.sweep, self._store)
        commit = next((summaries[leaf.id].commit for leaf in leaves(trial)), None)
        self._mlflow.log(
            run,
            metrics=list(content.trial_metrics(trial, summaries, self._store, own)),
            params=content.trial_params(trial),
            tags=as_tags({**self._training_tags(trial), **content.commit_tag(commit)}),
        )
        self._mlflow.inputs(run, content.datasets(trial.stages))
        files = {id_.partition("-")[0]: summary.to_json() for id_, summary in summaries.items()}
        self._mlflow.values(run, {**files, "trial": as_json(trial.config.model_dump())})
        self._finish(trial.id, run, "FINISHED", self._end(trial.stages))

    def fail_training(self, stage: Stage, failure: Failure) -> None:
        """Log that a training failed or was stopped early, and why; a later success takes its place."""
        if stage.id not in self._runs:
            self._begin(stage, int(time.time() * 1000))
        self._fail(stage.id, "KILLED" if failure.kind == "stopped" else "FAILED", str(failure))

    def fail(self, trial: Trial, outcome: Outcome) -> None:
        """Log that a trial failed or was stopped early, and why; a later success takes its place."""
        if trial.id not in self._runs:
            self._make(trial, self._start(trial.stages), "RUNNING")
        self._fail(trial.id, "KILLED" if outcome.status == "stopped" else "FAILED", outcome.reason or "")

    def end(self, status: RunStatus, folder: Path | None) -> None:
        """End the sweep's own run, with what is to be said of all trials, and the files of its results' folder.

        Where nothing was logged since it ended, nothing is changed.
        """
        self.follow({})  # what runs no more is to come: the same command goes on
        run = self._parent
        if not (self._changed or self._live or run.status != status or LACKS in run.tags):
            return
        stages = [stage for stage in self._plan.stages.values() if self._known(stage)]
        end = self._end(stages) if stages and status == "FINISHED" else int(time.time() * 1000)
        overview = content.Overview(
            self._plan,
            lambda stage: self._store.summary(stage.id, checked=False) if self._known(stage) else None,
            OwnMetrics(self._plan.sweep, self._store),
        )
        tags = {"mlflow.note.content": overview.text, "samref.best": overview.best or "none"}
        self._mlflow.log(run, metrics=list(overview.metrics(end)), tags=as_tags(tags))
        self._mlflow.text(run, overview.table, "configurations.csv")
        made = sorted(path for kind in ("parquet", "html") for path in folder.glob(f"*.{kind}")) if folder else []
        for path in filter(Path.is_file, [self._plan.sweep.file, *made]):
            self._mlflow.file(run, path)
        self._mlflow.finish(run, status, end)

    def _find_runs(self) -> Run | None:
        """Look up the sweep's runs, and give its own; of two for one trial, the first answer was lost."""
        parent = None
        for run in self._mlflow.tagged("samref.sweep", self._plan.sweep.name):
            name = run.tags.get("samref.trial") or run.tags.get("samref.stage")
            if name in self._runs or (name is None and parent is not None):
                self._mlflow.delete(run)
            elif name is None:
                parent = run
            else:
                self._runs[name] = run
        for child in self._runs.values() if parent else ():
            self._mlflow.tag(child, {"mlflow.parentRunId": parent.id if parent else ""})
        return parent

    def _new_parent(self) -> Run:
        """The sweep's own run, which began when the first of its stages did, or begins now."""
        start = None if self._live else self._start(self._plan.stages.values())
        parent = self._mlflow.create(self._plan.sweep.name, self._origin, start, "RUNNING")
        if self._plan.sweep.purpose:
            self._mlflow.tag(parent, {"mlflow.note.content": self._plan.sweep.purpose})
        for child in self._runs.values():  # the one that they had was deleted
            self._mlflow.tag(child, {"mlflow.parentRunId": parent.id})
        self._changed = True
        return parent

    def _make(self, trial: Trial, start: int | None, status: RunStatus, *, whole: bool = True) -> Run:
        """The run of a trial that began then, or is to come; with its parameters, unless all follows at once."""
        stages = content.clip(json.dumps([stage.id for stage in trial.stages]))
        tags = {"samref.trial": trial.id, "samref.stages": stages, **self._training_tags(trial)}
        if start is None:
            tags[TO_COME] = "true"
        run = self._create(trial.id, tags, start, status)
        if whole:
            self._mlflow.log(run, params=content.trial_params(trial))
        return run

    def _replace(self, name: str, planned: Run, start: int) -> Run:
        """The run of a trial that began, in place of the one that was made when it was planned."""
        trial = next(trial for trial in self._plan.trials if trial.id == name)
        self._mlflow.delete(planned)
        return self._make(trial, min(start, self._start(trial.stages) or start), "RUNNING")

    def _begin(self, stage: Stage, start: int) -> Run:
        """Make the run of a training, or take up the one that it had."""
        self._followed[stage.id] = frozenset([stage.id])
        if run := self._runs.get(stage.id):
            self._steps[stage.id] = self._mlflow.steps(run, "train/loss")
            return run
        self._steps[stage.id] = set()
        return self._create(stage.id, {"samref.stage": stage.id}, start, "RUNNING")

    def _create(self, name: str, tags: Mapping[str, str], start: int | None, status: RunStatus) -> Run:
        tags = {**self._origin, "mlflow.parentRunId": self._parent.id, **tags}
        self._runs[name] = self._mlflow.create(self._names[name], tags, start, status)
        self._changed = True
        return self._runs[name]

    def _training_tags(self, trial: Trial) -> dict[str, str]:
        """What links a trial's run to its training's."""
        train = trial.stage("train")
        if train is None or train.id not in self._runs:
            return {"samref.training": train.id} if train else {}
        run = self._runs[train.id]
        page = f"#/experiments/{self._mlflow.experiment}/runs/{run.id}"
        told = f"Its training, with loss and system metrics: [{self._names[train.id]}]({page})"
        return {"samref.training": train.id, "samref.training_run": run.id, "mlflow.note.content": told}

    def _fail(self, name: str, status: RunStatus, reason: str) -> None:
        """End a run that failed, once: a later run that does not try it again changes nothing."""
        run, reason = self._runs[name], content.clip(reason)
        if run.status != status or run.tags.get("samref.reason") != reason:
            self._mlflow.tag(run, {"samref.reason": reason})
            self._finish(name, run, status, int(time.time() * 1000))
        self._followed.pop(name, None)

    def _finish(self, name: str, run: Run, status: RunStatus, end: int) -> None:
        self._mlflow.finish(run, status, end)
        self._followed.pop(name, None)
        self._changed = True

    def _is_finished(self, name: str, stages: Iterable[Stage]) -> bool:
        """Whether all was logged; where stages were made anew since, it is logged anew."""
        run = self._runs.get(name)
        if run is None or run.status != "FINISHED" or LACKS in run.tags:
            return False
        return self._end(stages) <= (run.end or 0)

    def _known(self, stage: Stage) -> bool:
        return stage.id in self._ended or stage.id in self._dated

    def _start(self, stages: Iterable[Stage]) -> int | None:
        """When the first of some stages started that are done; None where none is."""
        started = [self._store.summary(stage.id, checked=False).started for stage in stages if self._known(stage)]
        return content.milliseconds(min(started)) if started else None

    def _end(self, stages: Iterable[Stage]) -> int:
        """When the last of some stages ended."""
        return int(1000 * max(self._ended.get(s.id) or self._dated.get(s.id, -math.inf) for s in stages))
