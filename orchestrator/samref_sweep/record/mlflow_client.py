"""MLflow's client as this project uses it: runs of one experiment, parts of a record that fail alone, and one database.

The only module that imports mlflow (written for 3.17): it calls `MlflowClient`, which keeps no state beside itself.
"""

import contextlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

# Before the import, which reads them. A server that is away must not hold up the end of a sweep; and what may have
# been done although no answer came is looked up before it is tried again, which MLflow's own retries do not.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

__all__ = ["Dataset", "DatasetInput", "InputTag", "Metric", "Param", "Run", "RunStatus", "Runs"]  # for `record`

EXPERIMENT = "samref-sweep"
MAX_BATCH_METRICS = 1000
SQLITE_SECONDS = 30
"""What a write waits for those who read the database, an open page of MLflow say; Python's own 5 s can be too few."""
LACKS = "samref.lacks"
"""Tag of a run some parts of which MLflow refused; they are tried again by the next run of the sweep."""

RunStatus = Literal["FINISHED", "FAILED", "KILLED", "RUNNING", "SCHEDULED"]


@dataclass
class Run:
    """A run of ours, as it was when it was last looked at."""

    id: str
    artifacts: str
    """Where its files are, as a URI."""
    status: RunStatus
    start: int
    """Milliseconds since 1970, as all times of MLflow."""
    end: int | None
    tags: dict[str, str]
    lacking: list[str]
    """Parts of it that MLflow refused since it was looked at."""


class Runs:
    """The runs of this project's experiment at a tracking URI.

    Artifacts go beside the folder `root`, unless a server has a place for them. `warn` is called with what MLflow
    refuses for good, and with what was restored.
    """

    def __init__(self, uri: str, root: Path, warn: Callable[[str], None]) -> None:
        for name in ("mlflow", "alembic"):  # what they log as errors they raise as well, and `said` tells it
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self.refused: set[str] = set()
        """Parts of records that MLflow refused for good."""
        self._warn = warn
        self._uri = uri
        if uri.startswith("sqlite:///") and "?" not in uri:
            make_database(Path(uri.removeprefix("sqlite:///")))
        waiting = f"?timeout={SQLITE_SECONDS}" if uri.startswith("sqlite:") and "?" not in uri else ""
        self._client = MlflowClient(tracking_uri=uri + waiting)
        # A server has its own place for artifacts; for a database MLflow would take ./mlruns of this folder.
        artifacts = None if uri.startswith("http") else (root / "mlflow-artifacts").as_uri()
        self.experiment = self._find_experiment(artifacts)

    def link(self, run: Run) -> str:
        """The address of a run on MLflow's page: of the server, or of `mlflow ui` on this machine."""
        page = self._uri.rstrip("/") if self._uri.startswith("http") else "http://127.0.0.1:5000"
        return f"{page}/#/experiments/{self.experiment}/runs/{run.id}"

    def tagged(self, name: str, value: str) -> Iterator[Run]:
        """All runs with this value of a tag: those that ended well first, those that were only planned last."""
        # By any value that is as long: a filter's text cannot hold every letter.
        pattern = re.sub(r"[^\w.\- ]", "_", value, flags=re.ASCII)
        query, found, token = f"tags.`{name}` LIKE '{pattern}'", list[Any](), None
        while not found or token:
            page = self._client.search_runs([self.experiment], query, max_results=1000, page_token=token)
            found += page
            if not (token := page.token):
                break
        for run in sorted(found, key=lambda run: (run.info.status != "FINISHED", run.info.status == "SCHEDULED")):
            if run.data.tags[name] == value:
                info, tags = run.info, dict(run.data.tags)
                yield Run(info.run_id, info.artifact_uri, info.status, info.start_time, info.end_time, tags, [])

    def create(self, title: str, tags: Mapping[str, str], start: int | None, status: RunStatus) -> Run:
        """Make a run that began then; now, where that is None."""
        info = self._client.create_run(self.experiment, start_time=start, run_name=title, tags=dict(tags)).info
        run = Run(info.run_id, info.artifact_uri, "RUNNING", info.start_time, None, dict(tags), [])
        self.set_status(run, status)
        return run

    def set_status(self, run: Run, status: RunStatus) -> None:
        """Set a run's state, unless it has it already."""
        if run.status != status:
            self._client.update_run(run.id, status=status)
            run.status = status

    def delete(self, run: Run) -> None:
        """Delete a run, as MLflow does: it can be restored until it is collected."""
        self._client.delete_run(run.id)

    def tag(self, run: Run, tags: Mapping[str, str]) -> None:
        """Set tags of a run."""
        for name, value in tags.items():
            if run.tags.get(name) != value:
                self._client.set_tag(run.id, name, value)
                run.tags[name] = value

    def steps(self, run: Run, metric: str) -> set[int]:
        """The steps at which a metric was logged."""
        return {point.step for point in self._client.get_metric_history(run.id, metric)}

    def points(self, run: Run, metrics: Sequence[Metric]) -> None:
        """Log points in one call, as many as MLflow takes in one."""
        self._client.log_batch(run.id, metrics=metrics)

    def log(self, run: Run, **parts: Sequence[Any]) -> None:
        """Log metrics, params and tags in as few calls as MLflow takes."""
        # Each call is several transactions of a database. What is logged twice is written once.
        if self._tried(lambda: self._batches(run, **parts)) is not None:
            for name, values in parts.items():
                self.part(run, name, partial(self._batches, run, **{name: values}))

    def inputs(self, run: Run, datasets: list[DatasetInput]) -> None:
        """Log what a run read."""
        self.part(run, "inputs", lambda: self._client.log_inputs(run.id, datasets))

    def text(self, run: Run, text: str, name: str) -> None:
        """Log a text as a file."""
        self.part(run, "files", lambda: self._client.log_text(run.id, text, name))

    def file(self, run: Run, path: Path) -> None:
        """Log a file."""
        self.part(run, "files", lambda: self._client.log_artifact(run.id, str(path)))

    def values(self, run: Run, contents: Mapping[str, Any]) -> None:
        """Log values as files of JSON."""

        def write() -> None:
            with tempfile.TemporaryDirectory() as folder:
                for name, value in contents.items():
                    Path(folder, f"{name}.json").write_text(json.dumps(value, indent=1))
                if run.artifacts.startswith("file:"):
                    # The client would ask the database where that is, which takes 3 ms.
                    get_artifact_repository(run.artifacts).log_artifacts(folder)  # type: ignore[no-untyped-call]
                else:
                    self._client.log_artifacts(run.id, folder)

        self.part(run, "files", write)

    def part(self, run: Run, name: str, log: Callable[[], object]) -> None:
        """Do one part of a record; what MLflow refuses for good is noted and said once, and the rest goes on."""
        if (error := self._tried(log)) is not None and name not in run.lacking:
            run.lacking.append(name)
            if name in self.refused:
                return
            self.refused.add(name)
            self._warn(f"MLflow ({self._uri}) does not take the {name}: {said(error)}")

    def finish(self, run: Run, status: RunStatus, end: int) -> None:
        """End a run then; one that lacks parts is marked, and what was lacking before is not any more."""
        if run.lacking:
            self.tag(run, {LACKS: ", ".join(run.lacking)})
        elif run.tags.pop(LACKS, None):
            self._client.delete_tag(run.id, LACKS)
        if (run.status, run.end) != (status, end):
            self._client.set_terminated(run.id, status, end_time=end)
            run.status, run.end = status, end
        run.lacking = []

    def _find_experiment(self, artifacts: str | None) -> str:
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            return str(self._client.create_experiment(EXPERIMENT, artifact_location=artifacts))
        if experiment.lifecycle_stage != "active":
            self._client.restore_experiment(experiment.experiment_id)
            self._warn(f"MLflow ({self._uri}): the experiment {EXPERIMENT} was deleted there, and is restored")
        return str(experiment.experiment_id)

    def _batches(self, run: Run, metrics: Sequence[Metric] = (), **others: Any) -> None:
        for first in range(0, max(1, len(metrics)), MAX_BATCH_METRICS):
            self._client.log_batch(run.id, metrics=metrics[first : first + MAX_BATCH_METRICS], **others)
            others = {}

    def _tried(self, log: Callable[[], object]) -> Exception | None:
        """What MLflow says against a part; raised where MLflow does not answer at all, so that all is tried again."""
        try:
            log()
        except Exception as error:  # MLflow raises dozens of kinds
            self._client.get_experiment(self.experiment)
            return error
        return None


def said(error: Exception) -> str:
    """What MLflow raised, in a part of a line; without the SQL of a database that failed."""
    text = " ".join(str(error).split())
    return re.split(r" \[SQL: | \(Background on ", re.sub(r"^\(raised as a result of [^)]*\) ", "", text))[0][:400]


def as_tags(tags: Mapping[str, str]) -> list[RunTag]:
    """Tags as MLflow's own values."""
    return [RunTag(name, value) for name, value in tags.items()]


def make_database(path: Path) -> None:
    """Make a database aside and rename it: one whose making was killed half-way can never be opened again."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        aside = Path(folder, path.name)
        MlflowClient(tracking_uri=f"sqlite:///{aside}").search_experiments(max_results=1)
        with contextlib.suppress(FileExistsError):  # another process was first
            os.link(aside, path)
