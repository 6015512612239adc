"""MLflow while a sweep runs, and what an interruption, a deletion or a refusal leave to the next time."""

from dataclasses import replace
from datetime import datetime

import pytest
from mlflow import MlflowClient
from toys import toy_plan, write_toy_stage
from tracked import runs_of, times, track, wait_for

from samref.config import Runtime
from samref_sweep.execution.unit import perform
from samref_sweep.planning.plan import Plan
from samref_sweep.planning.work import Event, Work
from samref_sweep.record import tracker as tracking
from samref_sweep.record.tracker import Tracker
from samref_sweep.store.folder import FolderStore
from samref_sweep.store.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("mlflow_database")]


def test_runs_are_there_when_the_sweep_starts_and_follow_what_runs(store: FolderStore) -> None:
    planned = toy_plan(store, gammas=[0.6], thetas=[1.05])
    (trial,) = planned.trials
    train = trial.stage("train")
    assert train is not None
    works = {work.kind: work for work in planned.works if work.stages[0].kind != "embed"}
    uri = store.node.mlflow
    tracker = Tracker(planned, store, uri, pytest.fail, live=True)

    def state(*names: str) -> list[str | None]:
        found = runs_of(uri)
        return [found[name].info.status if name in found else None for name in names]

    def do(work: Work) -> None:
        perform(work, store, runtime=Runtime(), report=lambda step, metrics: None, runner=write_toy_stage)
        tracker.on_event(Event("done", work))

    tracker.start()
    wait_for(lambda: state("", trial.id, train.id) == ["RUNNING", "SCHEDULED", None])
    placeholder = runs_of(uri)[trial.id]
    assert placeholder.data.params["evaluate.theta"] == "1.05"
    for work in planned.works:
        if work.kind == "embed":
            do(work)
    tracker.on_event(Event("started", works["train"]))
    wait_for(lambda: state(trial.id, train.id) == ["RUNNING", "RUNNING"])
    tracker.on_event(Event("progress", works["train"], {"step": 5, "total": 500, "recorded": 4, "loss": 0.25}))
    tracker.on_event(Event("progress", works["train"], {"step": 6, "total": 500, "recorded": 4, "loss": 0.25}))
    wait_for(lambda: "train/loss" in runs_of(uri)[train.id].data.metrics)
    do(works["train"])
    wait_for(lambda: state(trial.id, train.id) == ["SCHEDULED", "FINISHED"])
    for kind in ("evaluate", "profile"):
        tracker.on_event(Event("started", works[kind]))
        do(works[kind])
    assert tracker.close(planned.outcomes(store.done(), {}), interrupted=False)
    assert state("", trial.id, train.id) == ["FINISHED"] * 3
    run = runs_of(uri)[trial.id]
    started = datetime.fromisoformat("2026-01-02T03:04:05.000006+00:00")
    assert run.info.start_time == int(started.timestamp() * 1000) < placeholder.info.start_time
    client = MlflowClient(tracking_uri=uri)
    steps = [point.step for point in client.get_metric_history(runs_of(uri)[train.id].info.run_id, "train/loss")]
    assert len(steps) == len(set(steps)) > 100, "what was logged while it ran is not logged once more"


def test_an_interrupted_sweep_leaves_nothing_that_seems_to_run(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "TICK_SECONDS", 0)  # what runs is looked at between any two tasks
    planned = toy_plan(store)
    work = next(work for work in planned.works if work.kind == "train")
    tracker = Tracker(planned, store, store.node.mlflow, pytest.fail, live=True)
    tracker.on_event(Event("started", work))
    tracker.__exit__(OSError)
    found = {name: run.info.status for name, run in runs_of(store.node.mlflow).items()}
    assert found.pop("") == "KILLED"
    assert set(found.values()) == {"SCHEDULED"}


def test_a_stage_that_cannot_be_read_keeps_no_other_from_being_logged(finished: tuple[Plan, FolderStore]) -> None:
    planned, store = finished
    damaged, *others = planned.trials
    stage = damaged.stage("evaluate")
    assert stage is not None
    (store.folder(stage.id) / "clicks.npz").write_bytes(b"?")
    (told,) = track(planned, store)
    assert told.startswith("MLflow lacks what cannot be read: ")
    assert f"{stage.id}/clicks.npz" in told
    found = runs_of(store.node.mlflow)
    assert {found[trial.id].info.status for trial in others} == {"FINISHED"}
    assert found[""].info.status != "RUNNING"


@pytest.mark.parametrize("name", ["Anna's θ", "both 'kinds' of \"quotes\"", "50 %_; -- 蛙"])
def test_any_name_of_a_sweep_is_found_again(finished: tuple[Plan, Store], name: str) -> None:
    planned, store = finished
    planned = replace(planned, sweep=replace(planned.sweep, name=name))
    assert track(planned, store) == []
    first = times(store.node.mlflow)
    assert track(planned, store) == []
    assert times(store.node.mlflow) == first


def test_what_was_deleted_in_mlflow_is_there_again(finished: tuple[Plan, Store]) -> None:
    planned, store = finished
    assert track(planned, store) == []
    client = MlflowClient(tracking_uri=store.node.mlflow)
    first = runs_of(store.node.mlflow)
    for name in ("", planned.trials[0].id):
        client.delete_run(first[name].info.run_id)
    assert track(planned, store) == []
    again = runs_of(store.node.mlflow)
    assert again.keys() == first.keys()
    assert {run.data.tags.get("mlflow.parentRunId") for name, run in again.items() if name} == {again[""].info.run_id}
    client.delete_experiment(client.get_experiment_by_name("samref-sweep").experiment_id)
    (warning,) = track(planned, store)
    assert "the experiment samref-sweep was deleted there, and is restored" in warning
    assert runs_of(store.node.mlflow).keys() == first.keys()


def test_a_part_that_is_refused_is_said_once_and_logged_when_it_can_be(finished: tuple[Plan, Store]) -> None:
    planned, store = finished
    blocked = store.root / "mlflow-artifacts"
    blocked.write_text("no folder")
    (warning,) = track(planned, store)
    assert "does not take the files: " in warning
    runs = runs_of(store.node.mlflow)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert all(runs[trial.id].data.metrics["noc_at_90"] for trial in planned.trials)
    blocked.unlink()
    assert track(planned, store) == []
    client = MlflowClient(tracking_uri=store.node.mlflow)
    for name, run in runs_of(store.node.mlflow).items():
        assert "samref.lacks" not in run.data.tags
        if name.startswith("trial"):
            assert client.list_artifacts(run.info.run_id)
