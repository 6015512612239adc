"""What is logged of a trial, a training and a sweep, as MLflow's own values (written for MLflow 3.17)."""

import contextlib
import csv
import getpass
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from samref.measures import heading, measured, measured_of
from samref.repetitions import Repetitions
from samref.stage import Stage
from samref.summary import Summary
from samref.trial import Trial
from samref_sweep.planning.configurations import best, configurations, goal, headlines, mean_text, words
from samref_sweep.planning.plan import Plan
from samref_sweep.record.mlflow_client import Dataset, DatasetInput, InputTag, Metric, Param
from samref_sweep.record.rows import settings_row
from samref_sweep.spec.settings import short_names
from samref_sweep.store.store import Store

_NO_NAME = r"[^\w.\- ]"  # what the name of a metric may not have in MLflow
MAX_CHARACTERS = 500
"""The longest value of a parameter or a tag."""
LISTED = 20
"""Configurations that a sweep's run shows; `configurations.csv` has all."""


def milliseconds(started: str) -> int:
    """A summary's `started` as MLflow's time."""
    return int(datetime.fromisoformat(started).timestamp() * 1000)


def trial_metrics(
    trial: Trial, summaries: Mapping[str, Summary], store: Store, own: Callable[[Stage], Mapping[str, float]]
) -> Iterator[Metric]:
    """Every measured number as one value, `own` ones of the sweep too, and the mean IoU after each click as a series.

    All at the time when the trial's own stage started, so that logging it again writes the same points.
    """
    leaf = next(stage for stage in trial.stages if stage.kind in ("evaluate", "profile") and stage.id in summaries)
    stamp = milliseconds(summaries[leaf.id].started)
    values: dict[str, float] = dict(measured_of(trial, lambda stage: summaries.get(stage.id), own))
    values["device_seconds"] = sum(summary.device_seconds for summary in summaries.values())
    for name, value in values.items():
        yield Metric(re.sub(_NO_NAME, " ", name), value, stamp, 0)
    evaluate = trial.stage("evaluate")
    if evaluate and evaluate.id in summaries:
        for click, value in enumerate(miou_per_click(store.file(evaluate.id, "clicks.npz")), start=1):
            yield Metric("miou_at_click", value, stamp, click)


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


def training_metrics(summary: Summary) -> Iterator[Metric]:
    """What a training measured as a whole."""
    for name, value in measured(summary).items():
        yield Metric(name, value, milliseconds(summary.started), 0)


def params(settings: Mapping[str, Any]) -> list[Param]:
    """Settings as parameters; what is not set is left out."""
    return [Param(key, clip(value)) for key, value in settings.items() if value is not None]


def trial_params(trial: Trial) -> list[Param]:
    """Every setting of a trial."""
    return params(settings_row(trial.config))


def training_params(stage: Stage) -> list[Param]:
    """The settings that a training depends on, by the names that its trials have them under."""
    return params({f"{part}.{name}": value for part, own in stage.config.items() for name, value in own.items()})


def datasets(stages: Iterable[Stage]) -> list[DatasetInput]:
    """What stages train on and evaluate on, by name and contents."""
    found = []
    for stage in stages:
        if stage.kind in ("train", "evaluate"):
            named = stage.config[stage.kind]
            about = json.dumps({"name": named["data"], "samples": named["samples"]})
            # A digest may have 36 characters.
            data = Dataset(named["data"], str(stage.key["data"])[-36:], "local", about)
            context = "training" if stage.kind == "train" else "evaluation"
            found.append(DatasetInput(data, [InputTag("mlflow.data.context", context)]))
    return found


def origin(file: Path, commit: str | None) -> dict[str, str]:
    """Tags that MLflow's own page shows: the sweep file as source, the commit as version, and the user."""
    tags = {"mlflow.source.name": str(file), "mlflow.source.type": "LOCAL", **commit_tag(commit)}
    with contextlib.suppress(KeyError, OSError, ImportError):  # a container's user may have no name
        tags["mlflow.user"] = getpass.getuser()
    return tags


def commit_tag(commit: str | None) -> dict[str, str]:
    """The commit of the code that ran, as MLflow's own tag."""
    return {"mlflow.source.git.commit": commit} if commit else {}


class Overview:
    """What a sweep's run says of its configurations: means and deviations over their seeds."""

    def __init__(
        self, plan: Plan, summary: Callable[[Stage], Summary | None], own: Callable[[Stage], Mapping[str, float]]
    ) -> None:
        self._names = headlines(plan)
        self._axes = short_names(plan.sweep.axes)
        cache: dict[str, Mapping[str, float]] = {}

        def of(trial: Trial) -> Mapping[str, float]:
            if trial.id not in cache:
                cache[trial.id] = measured_of(trial, summary, own)
            return cache[trial.id]

        self._rows: list[tuple[str, dict[str, Repetitions]]] = []
        every = configurations(plan)
        for each in every:
            means = {name: mean for name in self._names if (mean := each.summary(name, of))}
            self._rows.append((words(each.values, self._axes) or "all", means))
        self._best = best(every, goal(plan), of)
        self._goal = goal(plan)
        self._purpose = plan.sweep.purpose

    @property
    def best(self) -> str:
        """The best configuration, and its mean; empty while none is done."""
        if self._best is None:
            return ""
        configuration, mean = self._best
        where = words(configuration.values, self._axes) or "all"
        return f"{where}: {self._goal.name} {mean_text(mean)}, n = {mean.count}"

    def metrics(self, stamp: int) -> Iterator[Metric]:
        """Mean and deviation of each configuration's headline metrics, and of the best."""
        for where, means in self._rows[:LISTED]:
            where = re.sub(_NO_NAME, " ", where)
            for name, made in means.items():
                for what, value in (("mean", made.mean), ("std", made.std)):
                    if value is not None:
                        yield Metric(f"{re.sub(_NO_NAME, ' ', name)} {what}/{where}", value, stamp, 0)
        if self._best is not None and (value := self._best[1].mean) is not None:
            yield Metric(f"best {re.sub(_NO_NAME, ' ', self._goal.name)}", value, stamp, 0)

    @property
    def text(self) -> str:
        """The purpose, the best, and a table of configurations, in Markdown."""
        head = ["configuration", *map(heading, self._names), "n"]
        lines = [" | ".join(head), " | ".join("---" for _ in head)]
        for where, means in self._rows[:LISTED]:
            cells = [mean_text(means[name]) if name in means else "" for name in self._names]
            lines.append(" | ".join([where.replace("|", "\\|"), *cells, next((m.count for m in means.values()), "0")]))
        more = [f"… and {len(self._rows) - LISTED} more in configurations.csv"] if len(self._rows) > LISTED else []
        told = [f"Best: {self.best}"] if self.best else []
        return "\n\n".join([*filter(None, [self._purpose]), *told, "\n".join(lines), *more])

    @property
    def table(self) -> str:
        """All configurations as CSV."""
        out = io.StringIO()
        writer = csv.writer(out)
        columns = [f"{name} {what}" for name in self._names for what in ("mean", "std", "n")]
        writer.writerow(["configuration", *columns])
        for where, means in self._rows:
            cells = [(m.mean, m.std, m.n) if (m := means.get(name)) else ("", "", 0) for name in self._names]
            writer.writerow([where, *(cell for three in cells for cell in three)])
        return out.getvalue()


def clip(value: Any) -> str:
    """A value as text that MLflow takes."""
    text = str(value)
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"
