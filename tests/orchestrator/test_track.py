"""MLflow on a real SQLite file: a run per trial, once, and never a sweep lost for it."""

import json
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from toys import toy_plan, write_toy_stage

from samref.config import Runtime
from samref.stage import Job, Report
from samref_sweep.execution.telemetry import sampled
from samref_sweep.execution.unit import perform
from samref_sweep.failures import Failure
from samref_sweep.planning.plan import Plan
from samref_sweep.record.mlflow_runs import miou_per_click
from samref_sweep.record.tracker import Tracker
from samref_sweep.store import manifest
from samref_sweep.store.folder import FolderStore
from samref_sweep.store.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("mlflow_database")]


def track(planned: Plan, store: Store, failures: dict[str, Failure] | None = None, uri: str = "") -> list[str]:
    warnings: list[str] = []
    tracker = Tracker(planned, store, uri or store.node.mlflow, warnings.append)
    tracker.close(planned.outcomes(store.done(), failures or {}), interrupted=False)
    return warnings


def test_each_trial_is_one_run_below_the_sweep_however_often_it_is_logged(finished: tuple[Plan, Store]) -> None:
    planned, store = finished
    assert track(planned, store) == []
    assert track(planned, store) == []

    client = MlflowClient(tracking_uri=store.node.mlflow)
    experiment = client.get_experiment_by_name("samref-sweep")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "samref.trial" not in run.data.tags]
    children = {run.data.tags["samref.trial"]: run for run in runs if "samref.trial" in run.data.tags}
    assert parent.info.status == "FINISHED"
    assert set(children) == {trial.id for trial in planned.trials}
    assert len(runs) == 5

    run = children[planned.trials[0].id]
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert "theta=1.05" in run.info.run_name
    assert run.data.params["evaluate.theta"] == "1.05"
    assert run.data.metrics["noc_at_90"] == 1.05
    assert run.data.metrics["parameters"] == 7
    curve = client.get_metric_history(run.info.run_id, "miou_at_click")
    assert [(point.step, point.value) for point in curve] == [(1, 0.75), (2, 0.875)]
    assert len(client.get_metric_history(run.info.run_id, "train/loss")) <= 200
    assert {file.path for file in client.list_artifacts(run.info.run_id)} >= {"trial.json", "evaluate.json"}
    assert (store.root / "mlflow-artifacts").is_dir()


def test_a_trial_whose_evaluation_was_made_anew_is_logged_anew(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")

    def do(noc: float) -> None:
        def write(job: Job, report: Report) -> None:
            write_toy_stage(job, report)
            for out in job.outs:
                summary = json.loads((out / "summary.json").read_text())
                summary["metrics"] |= {"noc_at_90": noc} if "noc_at_90" in summary["metrics"] else {}
                (out / "summary.json").write_text(json.dumps(summary))

        for work in toy_plan(store, gammas=[0.6], thetas=[1.1]).works:
            perform(work, store, runtime=Runtime(), report=lambda step, metrics: None, runner=write)
        assert track(toy_plan(store, gammas=[0.6], thetas=[1.1]), store) == []

    def logged() -> float:
        client = MlflowClient(tracking_uri=store.node.mlflow)
        experiment = client.get_experiment_by_name("samref-sweep").experiment_id
        (run,) = client.search_runs([experiment], "metrics.noc_at_90 > 0")
        return float(run.data.metrics["noc_at_90"])

    do(1.5)
    assert logged() == 1.5
    store.supersede(name for name in store.done() if name.startswith("evaluate"))
    do(2.5)
    assert logged() == 2.5


def test_a_failed_trial_says_why_and_becomes_finished_when_it_is(finished: tuple[Plan, Store], tmp_path: Path) -> None:
    planned, full = finished
    empty = FolderStore(tmp_path / "empty")
    planned = toy_plan(empty)
    train = planned.trials[0].stage("train")
    assert train is not None
    uri = full.node.mlflow
    assert track(planned, empty, {train.id: Failure("boom")}, uri) == []
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("samref-sweep").experiment_id
    query = f"tags.`samref.trial` = '{planned.trials[0].id}'"
    (run,) = client.search_runs([experiment], query)
    assert (run.info.status, run.data.tags["samref.reason"]) == ("FAILED", "train: boom")

    assert track(planned, full, {}, uri) == []
    (run,) = client.search_runs([experiment], query)
    assert run.info.status == "FINISHED"


def test_a_database_that_cannot_be_written_is_one_warning(finished: tuple[Plan, Store], tmp_path: Path) -> None:
    planned, store = finished
    (tmp_path / "a-file").write_text("")
    (warning,) = track(planned, store, uri=f"sqlite:///{tmp_path}/a-file/mlflow.db")
    assert "\n" not in warning
    assert warning.endswith("the sweep goes on, and the same command with --sync logs later what is missing")


def test_a_sample_that_ended_early_keeps_its_last_iou(finished: tuple[Plan, Store]) -> None:
    planned, store = finished
    evaluate = planned.trials[0].stage("evaluate")
    assert evaluate is not None
    assert miou_per_click(store.file(evaluate.id, "clicks.npz")) == [0.75, 0.875]


def test_what_was_sampled_of_the_machine_is_logged_with_its_time(finished: tuple[Plan, Store]) -> None:
    planned, store = finished
    train = planned.trials[0].stage("train")
    assert train is not None
    with sampled(store.folder(train.id) / "system.jsonl", "cpu"):
        pass
    (store.folder(train.id) / manifest.FILE).unlink()
    manifest.write(store.folder(train.id))
    assert track(planned, store) == []
    client = MlflowClient(tracking_uri=store.node.mlflow)
    experiment = client.get_experiment_by_name("samref-sweep").experiment_id
    runs = client.search_runs([experiment], f"tags.`samref.trial` = '{planned.trials[0].id}'")
    (point,) = client.get_metric_history(runs[0].info.run_id, "system/system_memory_usage_megabytes")
    assert point.value > 100
    assert abs(point.timestamp / 1000 - time.time()) < 300
