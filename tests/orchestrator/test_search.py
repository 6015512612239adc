"""Random and adaptive search, early stopping and budgets: on toy stages, by hand and on real Ray."""

import time
from pathlib import Path
from typing import Any

import optuna
import pyarrow.parquet as pq
import pytest
from searches import OPTUNA, SWEEP, sweep
from toys import NamedContents, write_toy_stage

from samref.config import Runtime
from samref.measures import MEASURES
from samref.stage import Job, Report
from samref_sweep.errors import SpecError
from samref_sweep.execution.ray.tuner import execute
from samref_sweep.execution.search import Search
from samref_sweep.execution.unit import perform
from samref_sweep.failures import Failure
from samref_sweep.planning.own_metrics import OwnMetrics
from samref_sweep.planning.plan import plan
from samref_sweep.record.mlflow_content import Overview
from samref_sweep.record.schemas import SCHEMAS
from samref_sweep.record.tables import write
from samref_sweep.screen.ranking import ranking
from samref_sweep.screen.tally import Tally
from samref_sweep.spec.objective import Objective
from samref_sweep.spec.sweep import Sweep
from samref_sweep.store.store import Store


def points(made: Sweep) -> list[tuple[Any, ...]]:
    return [tuple(point.values()) for point in made.points]


def test_random_draws_differ_lie_in_their_ranges_and_grow(tmp_path: Path) -> None:
    axes = (
        "parameters: {evaluate.theta: {min: 1, max: 2}, train.learning_rate: {min: 1e-5, max: 1e-1, log: true}, "
        "train.max_clicks: {min: 1, max: 3}, model.refiner: [none, gfr]}"
    )
    text = f"{SWEEP}method: random\ntrials: 200\n{axes}"
    drawn = points(sweep(tmp_path, text))
    assert len(set(drawn)) == 200
    thetas, rates, clicks, refiners = zip(*drawn, strict=True)
    assert all(1 <= theta <= 2 for theta in thetas)
    assert 0.4 < sum(rate < 1e-3 for rate in rates) / 200 < 0.6  # 1e-3 is in the middle of the logarithms
    assert set(clicks) == {1, 2, 3}
    assert set(refiners) == {"none", "gfr"}
    assert points(sweep(tmp_path, text, "trials=5")) == drawn[:5]
    assert points(sweep(tmp_path, text, "seed=1", "trials=5")) != drawn[:5]


def test_random_draws_of_few_combinations_are_all_of_them_and_repeat_for_seeds(tmp_path: Path) -> None:
    text = f"{SWEEP}method: random\ntrials: 50\nparameters: {{train.gamma: [0.6, 0.9], evaluate.theta: [1, 2]}}\n"
    assert sorted(points(sweep(tmp_path, text))) == [(0.6, 1), (0.6, 2), (0.9, 1), (0.9, 2)]
    assert len(points(sweep(tmp_path, text, "seeds=3"))) == 12
    assert len(points(sweep(tmp_path, text, "exclude=[{train.gamma: 0.6}]"))) == 2


def perform_all(search: Search, store: Store, runner: Any = write_toy_stage) -> None:
    """Every suggestion's work at once, one suggestion at a time."""
    todo = list(search.plan.works)
    while True:
        for work in todo:
            perform(work, store, runtime=Runtime(), report=lambda step, metrics: None, runner=runner)
        search.settle({})
        if not search.num_left:
            return
        todo = list(search.more())


def thetas(search: Search) -> list[float]:
    return [trial.config.evaluate.theta for trial in search.plan.trials]


def test_tpe_looks_where_the_metric_was_good_and_shares_trainings(tmp_path: Path, store: Store) -> None:
    # The toy's NoC90 is its θ.
    search = Search(sweep(tmp_path, OPTUNA, "trials=30"), NamedContents(), store)
    perform_all(search, store)
    found = thetas(search)
    assert len(found) == 30
    assert sum(found[20:]) / 10 < sum(found[:10]) / 10 - 0.2
    assert search.plan.counts()["train"].total == 2
    assert len(list((store.root / "stages").glob("train-*"))) == 2


def test_a_search_goes_on_from_the_store_and_is_extended(tmp_path: Path, store: Store) -> None:
    made = sweep(tmp_path, OPTUNA)
    first = Search(made, NamedContents(), store)
    works = [work for _ in range(3) for work in first.more()]
    for work in works[:-1]:  # and then the driver was killed
        perform(work, store, runtime=Runtime(), report=lambda step, metrics: None, runner=write_toy_stage)
    journal = next((store.root / "searches").iterdir())
    journal.write_text(journal.read_text() + '\n{"train.gam')  # while it wrote the fourth suggestion

    second = Search(made, NamedContents(), store)
    assert [trial.id for trial in second.plan.trials] == [trial.id for trial in first.plan.trials]
    assert [work.kind for work in second.plan.works] == [works[-1].kind]
    assert (second.num_open, second.num_left) == (1, 9)
    perform_all(second, store)
    assert len(set(thetas(second))) == 12

    assert first.anew == second.anew == ""

    third = Search(sweep(tmp_path, OPTUNA, "trials=14"), NamedContents(), store)
    assert (third.num_open, third.num_left, third.plan.works) == (0, 2, ())
    assert thetas(third) == thetas(second)
    perform_all(third, store)
    assert len(set(thetas(third))) == 14  # the random draws do not begin again

    wider = Search(sweep(tmp_path, OPTUNA.replace("max: 2}", "max: 3}")), NamedContents(), store)
    assert wider.anew.startswith(
        "the search of s begins anew: what it suggested before (14 of its points) was for other "
    )
    wider.more()
    assert Search(sweep(tmp_path, OPTUNA), NamedContents(), store).anew == "", "it goes on from what it suggested"


def test_each_suggestion_is_repeated_for_the_seeds_and_told_their_mean(tmp_path: Path, store: Store) -> None:
    text = OPTUNA.replace("evaluate.theta: {min: 1, max: 2}", "evaluate.theta: [1, 2]") + "seeds: 2\n"
    search = Search(sweep(tmp_path, text, "trials=4"), NamedContents(), store)
    perform_all(search, store)
    assert len({t.config.train.seed for t in search.plan.trials if t.config.train}) == 2
    told = [(trial.params["evaluate.theta"], trial.value) for trial in search._study.trials if trial.value]
    assert len(told) == 4
    assert told == [(index, 1.0 + index) for index, _ in told]


def test_two_metrics_are_a_front_and_a_failure_is_told_as_one(tmp_path: Path, store: Store) -> None:
    text = OPTUNA.replace("metric: noc_at_90", "metric: [noc_at_90, {name: fps, goal: maximize}]")
    search = Search(sweep(tmp_path, text), NamedContents(), store)
    assert isinstance(search._sampler, optuna.samplers.NSGAIISampler)
    search.more()
    training = search.plan.trials[0].stage("train")
    assert training is not None
    search.settle({training.id: Failure("boom")})
    perform_all(search, store)
    states = [trial.state.name for trial in search._study.trials]
    assert (states[0], states.count("COMPLETE")) == ("FAIL", 11)
    assert all(trial.values[1] == 2.0 for trial in search._study.trials if trial.values)


@pytest.mark.parametrize("metric", ["noc_at_90", "[noc_at_90, {name: fps, goal: maximize}]"])
def test_a_repeat_counts_for_nothing_and_few_combinations_are_all_suggested(
    tmp_path: Path, store: Store, metric: str
) -> None:
    space = "parameters: {train.gamma: [0.6, 0.9], evaluate.theta: [1, 2, 3]}\n"
    text = f"{SWEEP}method: optuna\nmetric: {metric}\n{space}"
    some = Search(sweep(tmp_path, text, "trials=5"), NamedContents(), store)
    perform_all(some, store)
    assert len({trial.id for trial in some.plan.trials}) == len(some.plan.trials) == 5
    every = Search(sweep(tmp_path, text, "trials=20"), NamedContents(), store)
    assert [trial.id for trial in every.plan.trials] == [trial.id for trial in some.plan.trials]
    perform_all(every, store)
    assert (len(every.plan.trials), every.num_left, every.num_open) == (6, 0, 0)
    assert len(every._journal.read()) == 6
    assert len([trial for trial in every._study.trials if trial.state.name == "COMPLETE"]) == 6


def test_what_is_excluded_is_never_suggested(tmp_path: Path, store: Store) -> None:
    text = OPTUNA + "exclude: [{train.gamma: 0.6}]\n"
    search = Search(sweep(tmp_path, text), NamedContents(), store)
    perform_all(search, store)
    assert {trial.config.train.gamma for trial in search.plan.trials if trial.config.train} == {0.9}
    assert search.num_left == 0


def test_every_metric_can_be_optimised_and_is_in_the_tables() -> None:
    written = {*SCHEMAS["trials"].names, *SCHEMAS["profile"].names}
    for name, measure in MEASURES.items():
        assert name in written
        assert Objective(name=name, goal="maximize").direction == "maximize"
        if measure.better:
            assert Objective(name=name).direction == {"lower": "minimize", "higher": "maximize"}[measure.better]


def test_a_search_reads_what_trainings_and_profiles_measured(tmp_path: Path, store: Store) -> None:
    text = OPTUNA.replace("metric: noc_at_90", "metric: [train_steps_per_second, {name: parameters, goal: maximize}]")
    search = Search(sweep(tmp_path, text), NamedContents(), store)
    perform_all(search, store)
    complete = [trial for trial in search._study.trials if trial.state.name == "COMPLETE"]
    assert complete
    assert all(trial.values == [4.0, 7] for trial in complete)


def slow_or_lossy(job: Job, report: Report) -> None:
    """A training whose loss is its γ at every step; where γ is 0.1 it takes a minute."""
    if job.stages[0].kind == "train":
        gamma = job.stages[0].config["train"]["gamma"]
        for step in range(1, 101):
            report(step, {"total": 100, "loss": gamma})
            time.sleep(0.6 if gamma == 0.1 else 0)
    write_toy_stage(job, report)


def run(made: Sweep, store: Store, runner: Any, search: Search | None = None) -> Any:
    events: list[Any] = []
    remembered = store.failures.all()
    planned = search.plan if search else plan(made, NamedContents(), store.done())
    planned = planned.without(remembered)
    result = execute(planned, store, runtime=Runtime(), on_event=events.append, runner=runner, jobs=1, search=search)
    failures = {**remembered, **result.failures}
    return result, planned.outcomes(store.done(), failures), events


@pytest.mark.slow
@pytest.mark.usefixtures("ray_head")
def test_asha_and_a_trial_s_hours_stop_trainings_on_ray_and_they_stay_stopped(tmp_path: Path, store: Store) -> None:
    """Toy stages say that they took 1.5 s each: a trial's evaluation begins with 4.5 s used, the training with 1.5."""
    axes = "parameters: {train.gamma: [0.5, 0.6, 0.4, 0.1]}\n"
    text = f"{SWEEP}scheduler: {{name: asha, grace_steps: 10}}\n{axes}"
    made = sweep(tmp_path, text, f"budget.trial_hours={6 / 3600}")
    result, outcomes, events = run(made, store, slow_or_lossy)
    assert [outcome.status for outcome in outcomes] == ["done", "stopped", "done", "stopped"]
    reasons = [outcome.reason or "" for outcome in outcomes]
    assert reasons[1].startswith("train: stopped by asha at step 10: its loss, 0.6, was number 2 of the 2")
    assert reasons[3].startswith("train: budget.trial_hours, 0.00166667, are used up; --retry-failed with a larger")
    assert not result.interrupted
    assert sum(event.kind == "failed" for event in events) == 2

    _, outcomes, events = run(made, store, slow_or_lossy)
    assert [outcome.status for outcome in outcomes] == ["done", "stopped", "done", "stopped"]
    assert events == []


@pytest.mark.slow
@pytest.mark.usefixtures("ray_head")
def test_a_search_on_ray_fills_the_workers_and_finishes(tmp_path: Path, store: Store) -> None:
    made = sweep(tmp_path, OPTUNA, "trials=6")
    search = Search(made, NamedContents(), store)
    result, _, _ = run(made, store, write_toy_stage, search)
    assert not result.interrupted
    assert (len(search.plan.trials), search.num_open, search.num_left) == (6, 0, 0)
    assert {outcome.status for outcome in search.plan.outcomes(store.done(), {})} == {"done"}


def test_metrics_made_of_clicks_are_goals_and_stand_wherever_others_do(tmp_path: Path, store: Store) -> None:
    (tmp_path / "counted_clicks.py").write_text("def negative(clicks):\n    return sum(~clicks['positive']) / 4\n")
    goals = "metric: [noc_at_70, {name: './counted_clicks.py:negative', goal: maximize}]"
    text = OPTUNA.replace("metric: noc_at_90", goals)
    made = sweep(tmp_path, text, "trials=2", "model.checkpoint=auto")  # of random weights none is the best
    search = Search(made, NamedContents(), store)
    perform_all(search, store)
    values = {"noc_at_70": 1.5, "counted_clicks:negative": 0.25}  # of the toys' three clicks
    assert [trial.values for trial in search._study.trials] == [list(values.values())] * 2

    outcomes = search.plan.outcomes(store.done(), {})
    for row in ranking(search.plan, outcomes, store).values():
        assert {name: row["metrics"][name]["mean"] for name in values} == values
    assert "best noc_at_70 1.50" in Tally(lambda: Search(made, NamedContents(), store).plan, store).head()
    write(search.plan, store, {}, tmp_path / "results", "")
    rows = pq.read_table(tmp_path / "results" / "trials.parquet").select(list(values)).to_pylist()
    assert rows == [values, values]
    overview = Overview(search.plan, lambda stage: store.summary(stage.id), OwnMetrics(search.plan.sweep, store))
    assert {"best noc_at_70", "counted_clicks negative mean"} <= {
        metric.key.partition("/")[0] for metric in overview.metrics(0)
    }


def test_which_way_a_metric_of_ones_own_is_better_has_to_be_said(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"neither way is better by itself; say which: \{name: \./mine\.py:share, goal"):
        sweep(tmp_path, OPTUNA.replace("metric: noc_at_90", "metric: ./mine.py:share"))
    with pytest.raises(SpecError, match=r"there is no such metric\. .*noc_at_90, .* and noc_at_80, noc_at_80_in_10"):
        sweep(tmp_path, OPTUNA.replace("metric: noc_at_90", "metric: nothing"))
    with pytest.raises(SpecError, match=r"metrics: \./mine\.py:share: there is no file .*mine\.py"):
        sweep(tmp_path, OPTUNA.replace("metric: noc_at_90", "metric: {name: ./mine.py:share, goal: minimize}"))
