"""MLflow on a real SQLite file: a run per trial, once, and never a sweep lost for it."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from mlflow import MlflowClient
from toys import NamedContents, toy_plan, toy_sweep, write_toy_stage
from tracked import runs_of, times, track

from samref.config import Runtime
from samref.stage import Job, Report
from samref_sweep.execution.telemetry import sampled
from samref_sweep.execution.unit import perform
from samref_sweep.failures import Failure
from samref_sweep.planning.plan import Plan, plan
from samref_sweep.record import tables
from samref_sweep.record.mlflow_content import miou_per_click
from samref_sweep.record.tracker import Tracker
from samref_sweep.store import manifest
from samref_sweep.store.folder import FolderStore
from samref_sweep.store.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("mlflow_database")]


def test_each_trial_is_one_run_below_the_sweep_however_often_it_is_logged(finished: tuple[Plan, Store]) -> None:
    planned, store = finished
    assert track(planned, store) == []
    assert track(planned, store) == []

    client = MlflowClient(tracking_uri=store.node.mlflow)
    experiment = client.get_experiment_by_name("samref-sweep")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = {run.data.tags["samref.trial"]: run for run in runs if "samref.trial" in run.data.tags}
    assert parent.info.status == "FINISHED"
    assert set(children) == {trial.id for trial in planned.trials}
    assert len(runs) == 1 + 4 + 2  # the sweep, its trials, and their trainings

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


def test_a_disk_that_is_full_is_told_in_lines_without_tracebacks_or_sql(
    finished: tuple[Plan, Store],
    small_disk: Path,
    new_database: Callable[[Path], None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    planned, store = finished
    new_database(small_disk / "mlflow.db")
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - 3 * 4096))
    warnings = track(planned, store, uri=f"sqlite:///{small_disk}/mlflow.db")
    assert warnings
    assert all(re.fullmatch("[^\n]*database or disk is full(; the sweep goes on, [^\n]*)?", each) for each in warnings)
    assert capfd.readouterr().err == ""


def test_a_sample_that_ended_early_keeps_its_last_iou(finished: tuple[Plan, Store]) -> None:
    planned, store = finished
    evaluate = planned.trials[0].stage("evaluate")
    assert evaluate is not None
    assert miou_per_click(store.file(evaluate.id, "clicks.npz")) == [0.75, 0.875]


def test_what_was_sampled_of_the_machine_is_logged_with_its_time(finished: tuple[Plan, Store]) -> None:
    planned, store = finished
    train = planned.trials[0].stage("train")
    assert train is not None
    told: list[dict[str, float]] = []
    with sampled(store.folder(train.id) / "system.jsonl", "cpu", lambda step, metrics: told.append(metrics)) as report:
        report(7, {"loss": 1.0})
    assert told[0]["loss"] == 1.0
    assert told[0]["system/step"] == 0  # the newest reading is older
    (store.folder(train.id) / manifest.FILE).unlink()
    manifest.write(store.folder(train.id))
    assert track(planned, store) == []
    run = runs_of(store.node.mlflow)[train.id]
    client = MlflowClient(tracking_uri=store.node.mlflow)
    (point,) = client.get_metric_history(run.info.run_id, "system/system_memory_usage_megabytes")
    assert point.value > 100
    assert point.timestamp == int(told[0]["system/time"] * 1000)


def test_runs_last_as_long_as_their_stages_and_nothing_to_do_changes_no_times(finished: tuple[Plan, Store]) -> None:
    planned, store = finished
    assert track(planned, store) == []
    first, dated = times(store.node.mlflow), store.dated()
    started = datetime.fromisoformat("2026-01-02T03:04:05.000006+00:00")  # of all toy stages
    for trial in planned.trials:
        end = max(dated[stage.id] for stage in trial.stages)
        assert first[trial.id] == (int(started.timestamp() * 1000), int(end * 1000), "FINISHED")
    assert first[""][1] == max(end for _, end, _ in first.values())
    assert track(planned, store) == []
    assert times(store.node.mlflow) == first


def test_a_trial_shows_its_numbers_data_source_and_training(finished: tuple[Plan, Store]) -> None:
    planned, store = finished
    assert track(planned, store) == []
    runs = runs_of(store.node.mlflow)
    trial = planned.trials[0]
    run, train, evaluate = runs[trial.id], trial.stage("train"), trial.stage("evaluate")
    assert train is not None
    assert evaluate is not None
    assert run.data.metrics["miou_at_1"] == 0.5
    assert run.data.metrics["device_seconds"] == 1.5 * len(trial.stages)
    data = {each.tags[0].value: (each.dataset.name, each.dataset.digest) for each in run.inputs.dataset_inputs}
    assert data == {"training": ("shapes", train.key["data"]), "evaluation": ("shapes", evaluate.key["data"])}
    tags = run.data.tags
    assert (tags["samref.training"], tags["samref.training_run"]) == (train.id, runs[train.id].info.run_id)
    assert tags["mlflow.source.name"] == "toy.yaml"
    assert tags["mlflow.user"]
    training = runs[train.id]
    assert training.info.run_name == "training gamma=0.6"
    assert training.data.params["train.gamma"] == "0.6"
    assert training.data.metrics["train_steps_per_second"] == 4
    client = MlflowClient(tracking_uri=store.node.mlflow)
    curves = {
        name: client.get_metric_history(training.info.run_id, f"train/{name}") for name in ("loss", "learning_rate")
    }
    assert 100 < len(curves["loss"]) == len(curves["learning_rate"]) <= 200
    assert all(point.value == 1 / point.step for point in curves["loss"])
    stamps = [point.timestamp for point in sorted(curves["loss"], key=lambda point: point.step)]
    assert stamps == sorted(stamps)
    assert training.info.start_time <= stamps[0] < stamps[-1] <= training.info.end_time


def test_the_sweeps_run_tells_means_of_seeds_and_has_the_files(store: FolderStore, tmp_path: Path) -> None:
    sweep = toy_sweep(gammas=[0.6], thetas=[1.05, 1.5])
    points = [{**point, "train.seed": seed} for point in sweep.points for seed in (0, 1)]
    model = sweep.configs[0].model.model_copy(update={"checkpoint": "auto"})  # random weights are never the best
    configs = [
        config.model_copy(update={"model": model, "train": config.train.model_copy(update={"seed": seed})})
        for config in sweep.configs
        if config.train
        for seed in (0, 1)
    ]
    file = tmp_path / "toy.yaml"
    file.write_text("purpose: a toy\n")
    axes = {**sweep.axes, "train.seed": (0, 1)}
    planned = plan(
        replace(sweep, file=file, axes=axes, points=tuple(points), configs=tuple(configs)), NamedContents(), ()
    )

    def write(job: Job, report: Report) -> None:
        write_toy_stage(job, report)
        for stage, out in zip(job.stages, job.outs, strict=True):
            if stage.kind == "evaluate":  # the toy's NoC90 is its θ; the second seed needs two clicks more
                summary = json.loads((out / "summary.json").read_text())
                second = stage.needs["weights"] == planned.trials[1].stage("train").id  # type: ignore[union-attr]
                summary["metrics"]["noc_at_90"] += 2 * second
                (out / "summary.json").write_text(json.dumps(summary))

    for work in planned.works:
        perform(work, store, runtime=Runtime(), report=lambda step, metrics: None, runner=write)
    results = tmp_path / "results"
    outcomes = tables.write(planned, store, {}, results, "")
    (results / "dashboard.html").write_text("<p>")
    assert Tracker(planned, store, store.node.mlflow, pytest.fail).close(outcomes, interrupted=False, results=results)
    parent = runs_of(store.node.mlflow)[""]
    assert parent.data.metrics["noc_at_90 mean/gamma 0.6 theta 1.05"] == pytest.approx(2.05)
    assert parent.data.metrics["noc_at_90 std/gamma 0.6 theta 1.05"] == pytest.approx(2**0.5)
    assert parent.data.metrics["best noc_at_90"] == pytest.approx(2.05)
    assert parent.data.tags["samref.best"] == "gamma=0.6 theta=1.05: noc_at_90 2.05 ± 1.41, n = 2"
    assert "gamma=0.6 theta=1.5 | 2.50 ± 1.41" in parent.data.tags["mlflow.note.content"]
    client = MlflowClient(tracking_uri=store.node.mlflow)
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert files >= {"toy.yaml", "configurations.csv", "trials.parquet", "dashboard.html"}
