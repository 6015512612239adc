"""What ends a sweep, a trial or a training before its time, and what a search is asked for: no Ray, milliseconds."""

from dataclasses import replace
from pathlib import Path

from table import NODES, Table, make, one_trial, until
from toys import NamedContents, toy_plan, toy_sweep

from samref_sweep.execution.requests import Request, resolve_all
from samref_sweep.execution.search import Search
from samref_sweep.failures import Failure
from samref_sweep.planning.plan import plan
from samref_sweep.planning.work import KINDS
from samref_sweep.spec.policy import Budget, Scheduler
from samref_sweep.spec.sweep import read
from samref_sweep.store.store import Store


def test_a_budget_counts_what_is_damaged_as_not_made(store: Store) -> None:
    for work in one_trial(store).works:
        if work.kind != "evaluate":
            make(work, store)
    planned = one_trial(store)
    for stage_id in store.done():
        (store.open(stage_id) / "summary.json").write_text("{}")
    planned = replace(planned, sweep=replace(planned.sweep, budget=Budget(gpu_hours=1, trial_hours=1)))
    assert Table(planned, store).start().work.kind == "evaluate"


def test_an_interrupted_sweep_starts_nothing_new_and_ends_when_nothing_runs(store: Store) -> None:
    table = Table(toy_plan(store), store)
    running, ordered = table.start(), table.dispatcher.next()
    assert ordered is not None  # but has no resources yet
    table.dispatcher.interrupt()
    assert table.stops == [None]
    assert table.dispatcher.next() is None
    assert not table.dispatcher.drained
    table.dispatcher.ended(running.number)  # stopped in order: no output, and no failure
    assert table.dispatcher.drained
    assert table.dispatcher.over
    ending = table.dispatcher.ending
    assert (ending.failures, ending.interrupted, ending.reason) == ({}, True, None)
    assert table.words() == [("started", running.work.kind)]
    assert store.failures.all() == {}


def test_the_hours_of_a_run_interrupt_it_with_their_reason(store: Store) -> None:
    table = Table(one_trial(store, budget=Budget(hours=1)), store)
    order = table.start()
    table.clock.seconds = 3599
    table.dispatcher.check_budgets()
    assert table.stops == []
    table.clock.seconds = 3600
    table.dispatcher.check_budgets()
    table.dispatcher.check_budgets()
    assert table.stops == [None]
    table.do(order)
    reason = "budget.hours, 1, is used up; the same command goes on from here"
    assert (table.dispatcher.ending.interrupted, table.dispatcher.ending.reason) == (True, reason)


def test_gpu_hours_of_what_runs_interrupt_it(store: Store) -> None:
    requests = {kind: Request(cpu=1, gpu=1, at_once=4) for kind in KINDS}
    table = Table(one_trial(store, budget=Budget(gpu_hours=1)), store, requests=requests)
    for _ in range(2):
        table.start()
    table.clock.seconds = 1799
    table.dispatcher.check_budgets()
    assert not table.dispatcher.interrupted
    table.clock.seconds = 1801
    table.dispatcher.check_budgets()
    assert table.dispatcher.interrupted


def test_a_trial_over_its_hours_is_stopped_and_stays_so_and_the_others_go_on(store: Store) -> None:
    """Toy stages say that they took 1.5 s each, so the training begins with 1.5 s of its trial used."""
    planned = toy_plan(store, gammas=(0.9, 0.6), thetas=(1.1,))
    planned = replace(planned, sweep=replace(planned.sweep, budget=Budget(trial_hours=6 / 3600)))
    table = Table(planned, store)
    slow = until(table, "train")
    assert slow.stoppable
    table.clock.seconds += 4.4
    table.dispatcher.check_budgets()
    assert table.stops == []
    table.clock.seconds += 0.2
    table.dispatcher.check_budgets()
    table.dispatcher.check_budgets()
    assert table.stops == [slow.number]
    table.dispatcher.ended(slow.number)
    assert not table.dispatcher.interrupted
    kinds = table.do_all()
    assert kinds.count("train") == kinds.count("evaluate") == 1
    failures = table.dispatcher.failures
    outcomes = planned.outcomes(store.done(), failures)
    assert [outcome.status for outcome in outcomes] == ["stopped", "done"]
    assert (outcomes[0].reason or "").startswith("train: budget.trial_hours, 0.00166667, are used up; --retry-failed")
    assert [told.kind for told in store.failures.all().values()] == ["stopped"]
    assert not table.dispatcher.ending.interrupted


def test_asha_stops_what_falls_behind_and_no_other(store: Store) -> None:
    planned = toy_plan(store, gammas=(0.5, 0.6, 0.4, 0.7), thetas=(1.1,))
    planned = replace(planned, sweep=replace(planned.sweep, scheduler=Scheduler(grace_steps=10)))
    table = Table(planned, store)
    for order in table.orders():
        if order.work.kind != "train":
            assert not order.stoppable
            table.do(order)
            continue
        assert order.rungs[0] == 10
        assert order.stoppable
        gamma = order.work.stages[0].config["train"]["gamma"]
        for step in (5, 10):
            table.dispatcher.progressed(order.number, {"step": step, "loss": gamma})
        if order.number in table.stops:
            table.dispatcher.ended(order.number)
        else:
            table.do(order)
    outcomes = planned.outcomes(store.done(), table.dispatcher.failures)
    assert [outcome.status for outcome in outcomes] == ["done", "stopped", "done", "stopped"]
    start = "train: stopped by asha at step 10: its loss, 0.6, was number 2 of the 2"
    assert (outcomes[1].reason or "").startswith(start)
    assert sum(event.kind == "progress" for event in table.events) == 8
    assert sum(event.kind == "failed" for event in table.events) == 2
    assert len(store.failures.all()) == 2


OPTUNA = """
trial:
  model: {backbone: tiny, checkpoint: none}
  train: {data: shapes, steps: 100, warmup_steps: 10}
  evaluate: {data: shapes}
  profile: null
resources: {train: {cpu: 1, gpu: 0}, embed: {cpu: 1, gpu: 0}, evaluate: {cpu: 1, gpu: 0}}
method: optuna
metric: noc_at_90
trials: 6
parameters: {train.gamma: [0.6, 0.9], evaluate.theta: {min: 1, max: 2}}
"""


def test_a_search_is_asked_for_as_much_as_there_is_room_for(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(OPTUNA)
    search = Search(read(file), NamedContents(), store)
    table = Table(search.plan, store, jobs=2, search=search)
    failed = None
    while orders := list(table.orders()):
        assert len(orders) <= 2
        assert search.num_open <= 2
        for order in orders:
            if order.work.kind == "evaluate" and failed is None:
                failed = order.work.stages[0].id
                table.dispatcher.ended(order.number, Failure("broken"))
            else:
                table.do(order)
    assert table.dispatcher.over
    assert (len(search.plan.trials), search.num_open, search.num_left) == (6, 0, 0)
    statuses = [each.status for each in search.plan.outcomes(store.done(), table.dispatcher.failures)]
    assert sorted(statuses) == ["done"] * 5 + ["failed"]
    assert not table.dispatcher.ending.interrupted


def test_requests_are_there_for_all_that_may_be_made_anew(store: Store) -> None:
    planned = plan(toy_sweep(), NamedContents(), ())
    some = replace(planned, works=tuple(work for work in planned.works if work.kind == "evaluate"))
    assert set(resolve_all(some, NODES, store.where)) == set(KINDS)
