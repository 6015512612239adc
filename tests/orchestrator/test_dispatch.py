"""What starts next and what follows from each end, by hand and by the clock of the test: no Ray, milliseconds."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from toys import NamedContents, toy_plan, toy_sweep, write_toy_stage

from samref.config import Runtime
from samref.stage import Kind
from samref_sweep.errors import ResourceError
from samref_sweep.execution.dispatch import REBUILDS, Dispatcher, Loss, Order
from samref_sweep.execution.requests import Request, resolve_all
from samref_sweep.execution.search import Search
from samref_sweep.execution.unit import perform
from samref_sweep.failures import Failure, FailureKind
from samref_sweep.planning.plan import Plan, plan
from samref_sweep.planning.work import KINDS, Event, Work
from samref_sweep.spec.policy import Budget, Resources, Retry, Scheduler
from samref_sweep.spec.sweep import read
from samref_sweep.store.store import Store

NODES = [{"CPU": 4.0}]


@dataclass
class Clock:
    """Goes when it is told to."""

    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds


class Table:
    """A dispatcher, with all that it said: events, and which work it told to stop."""

    def __init__(self, planned: Plan, store: Store, **options: Any) -> None:
        self.store = store
        self.clock = Clock()
        self.events: list[Event] = []
        self.stops: list[int | None] = []
        requests = options.pop("requests", None) or resolve_all(
            planned, NODES, store.where, growing=options.get("search") is not None
        )
        self.dispatcher = Dispatcher(
            planned,
            store,
            requests,
            on_event=self.events.append,
            stop=self.stops.append,
            clock=self.clock,
            **options,
        )

    def start(self) -> Order:
        """The next order, started."""
        order = self.dispatcher.next()
        assert order is not None
        self.dispatcher.started(order.number)
        return order

    def do(self, order: Order) -> None:
        """Make an order's output, and tell of its end."""
        make(order.work, self.store)
        self.dispatcher.ended(order.number)

    def orders(self) -> Iterator[Order]:
        while (order := self.dispatcher.next()) is not None:
            self.dispatcher.started(order.number)
            yield order

    def do_all(self) -> list[Kind]:
        """Do what can be done, one after the other; the kinds in that order."""
        done: list[Kind] = []
        for order in self.orders():
            self.do(order)
            done.append(order.work.kind)
        return done

    def words(self) -> list[tuple[str, Kind]]:
        return [(event.kind, event.work.kind) for event in self.events]


def make(work: Work, store: Store) -> None:
    perform(work, store, runtime=Runtime(), report=lambda step, metrics: None, runner=write_toy_stage)


def one_trial(store: Store, **policy: Any) -> Plan:
    """Embeddings of the training's and the evaluation's images, a training, an evaluation; the profile is done."""
    for work in toy_plan(store, gammas=(0.6,), thetas=(1.1,)).works:
        if work.kind == "profile":
            make(work, store)
    planned = toy_plan(store, gammas=(0.6,), thetas=(1.1,))
    return replace(planned, sweep=replace(planned.sweep, **policy))


def destroy(store: Store, stage_id: str) -> None:
    """What `Store.open` does with a damaged stage, as far as others see: it is done no more."""
    shutil.rmtree(store.folder(stage_id))


def of_kind(planned: Plan, kind: Kind) -> list[str]:
    return [stage.id for stage in planned.stages.values() if stage.kind == kind]


def test_everything_is_done_after_what_it_needs_and_then_it_is_over(store: Store) -> None:
    table = Table(toy_plan(store), store)
    assert not table.dispatcher.over
    done: set[str] = set()
    for order in table.orders():
        assert done.issuperset(order.work.needs.values())
        assert order.rungs == ()
        assert not order.stoppable
        table.do(order)
        done.update(stage.id for stage in order.work.stages)
    assert table.dispatcher.over
    ending = table.dispatcher.ending
    assert (ending.failures, ending.interrupted, ending.reason) == ({}, False, None)
    assert toy_plan(store).works == ()


def test_a_profile_starts_when_nothing_else_runs_or_can(store: Store) -> None:
    table = Table(toy_plan(store), store)
    running = list(table.orders())
    while running:
        kinds = {order.work.kind for order in running}
        assert kinds == {"profile"} or "profile" not in kinds
        table.do(running.pop(0))
        running += table.orders()
    assert table.dispatcher.over
    assert toy_plan(store).works == ()


def test_jobs_bound_what_runs_and_processes_of_a_training_what_they_would_fill(store: Store) -> None:
    table = Table(toy_plan(store), store, jobs=2)
    first = table.start()
    table.start()
    assert table.dispatcher.next() is None
    assert not table.dispatcher.over
    table.do(first)
    assert table.dispatcher.next() is not None

    planned = toy_plan(store, gammas=(0.1, 0.2, 0.3))
    resources = planned.sweep.resources | {"train": Resources(cpu=2, workers=2, gpu=0)}
    for work in planned.works:
        if work.kind == "embed":
            make(work, store)
    planned = toy_plan(store, gammas=(0.1, 0.2, 0.3))
    table = Table(replace(planned, sweep=replace(planned.sweep, resources=resources)), store)
    running = [order.work.kind for order in table.orders()]
    assert running.count("train") == 2  # four nodes' CPUs hold two trainings of two processes


@pytest.mark.parametrize(
    ("kind", "attempts"),
    [("error", 1), ("time_limit", 1), ("storage", 1), ("out_of_memory", 2), ("node_lost", 4)],
)
def test_each_kind_of_failure_has_its_attempts(store: Store, kind: FailureKind, attempts: int) -> None:
    planned = one_trial(store)
    table = Table(planned, store)
    failing = 0
    for order in table.orders():
        if order.work.kind == "train":
            failing += 1
            table.dispatcher.ended(order.number, Failure("no", kind=kind))
        else:
            table.do(order)
    assert failing == attempts
    assert [word for word, each in table.words() if each == "train"] == ["started", "again"] * (attempts - 1) + [
        "started",
        "failed",
    ]
    (training,) = of_kind(planned, "train")
    assert table.dispatcher.failures == {training: Failure("no", kind=kind)}
    remembered = {"error", "time_limit"} & {kind}
    assert {told.kind for told in store.failures.all().values()} == remembered
    assert table.dispatcher.over
    assert not table.dispatcher.ending.interrupted


def test_retries_are_counted_by_kind_and_preempted_attempts_do_not_count(store: Store) -> None:
    planned = one_trial(store, retry=Retry(node_lost=1, out_of_memory=1))
    table = Table(planned, store)
    ends: list[Any] = [*[(None, Loss("preempted", counts=False))] * 5, (Failure("full", kind="out_of_memory"), None)]
    ends += [(None, None), (None, Loss("its node's memory was full", "out_of_memory"))]
    for order in table.orders():
        if order.work.kind != "train":
            table.do(order)
        else:
            table.dispatcher.ended(order.number, *ends.pop(0))
    assert ends == []
    (failure,) = table.dispatcher.failures.values()
    assert (failure.reason, failure.kind) == (
        "its worker process was lost: its node's memory was full",
        "out_of_memory",
    )
    assert failure.log == str(store.node.logs / f"{of_kind(planned, 'train')[0]}.log")
    assert store.failures.all() == {}


def test_a_process_lost_after_its_limit_hung_and_one_lost_before_it_did_not(store: Store) -> None:
    planned = one_trial(store, retry=Retry(node_lost=1))
    resources = planned.sweep.resources | {"train": Resources(cpu=1, gpu=0, time_limit=3)}
    table = Table(replace(planned, sweep=replace(planned.sweep, resources=resources)), store)
    for order in table.orders():
        if order.work.kind != "train":
            table.do(order)
            continue
        table.clock.seconds += 2 if ("again", "train") not in table.words() else 3
        table.dispatcher.ended(order.number)
    (failure,) = table.dispatcher.failures.values()
    assert (failure.reason, failure.kind) == ("not done within resources.train.time_limit, 3 s", "time_limit")


def test_an_order_lost_before_it_started_is_given_again(store: Store) -> None:
    table = Table(one_trial(store), store)
    order = table.dispatcher.next()
    assert order is not None
    table.dispatcher.ended(order.number, loss=Loss("its node went away"))
    assert table.words() == [("again", order.work.kind)]
    assert table.do_all() == ["embed", "train", "embed", "evaluate"]


# Rebuilds


def until(table: Table, kind: Kind) -> Order:
    """Do all before the first order of a kind, which is started."""
    for order in table.orders():
        if order.work.kind == kind:
            return order
        table.do(order)
    raise AssertionError(kind)


def test_what_was_damaged_is_made_anew_with_what_it_needs_although_only_others_were_planned(store: Store) -> None:
    for work in one_trial(store).works:
        if work.kind != "evaluate":
            make(work, store)
    planned = one_trial(store)
    assert [work.kind for work in planned.works] == ["evaluate"]
    (training,) = of_kind(planned, "train")
    for stage_id in (training, planned.stages[training].needs["embeddings"]):
        destroy(store, stage_id)
    table = Table(planned, store)
    evaluation = table.start()
    table.dispatcher.ended(evaluation.number, Failure("the training has other bytes", kind="storage"))
    assert table.do_all() == ["embed", "train", "evaluate"]
    assert table.dispatcher.over
    assert table.dispatcher.failures == {}


def test_what_these_nodes_cannot_make_anew_fails_what_needs_it(store: Store) -> None:
    for work in one_trial(store).works:
        if work.kind != "evaluate":
            make(work, store)
    planned = one_trial(store)
    resources = planned.sweep.resources | {"train": Resources(gpu=4)}
    planned = replace(planned, sweep=replace(planned.sweep, resources=resources))
    table = Table(planned, store)  # the training is done: that no GPU is here does not matter
    destroy(store, of_kind(planned, "train")[0])
    evaluation = table.start()
    table.dispatcher.ended(evaluation.number, Failure("damaged", kind="storage"))
    assert table.dispatcher.over
    assert [str(failure) for failure in table.dispatcher.failures.values()] == ["damaged"]
    with pytest.raises(ResourceError, match="4 processes"):
        resolve_all(replace(one_trial(store), sweep=planned.sweep), NODES, store.where)


def test_a_disk_that_damages_everything_ends_the_sweep(store: Store) -> None:
    planned = one_trial(store)
    table = Table(planned, store)
    evaluation = until(table, "evaluate")
    for time in range(REBUILDS + 1):
        destroy(store, of_kind(planned, "train")[0])
        table.dispatcher.ended(evaluation.number, Failure(f"damaged {time}", kind="storage"))
        if time < REBUILDS:
            evaluation = until(table, "evaluate")
    assert table.dispatcher.over
    assert [str(failure) for failure in table.dispatcher.failures.values()] == [f"damaged {REBUILDS}"]


def test_two_that_find_the_same_damage_make_it_anew_once(store: Store) -> None:
    def planned() -> Plan:
        whole = toy_plan(store, gammas=(0.6,), thetas=(1.1, 1.2))
        works = tuple(Work((stage,)) for work in whole.works for stage in work.stages if stage.kind != "profile")
        return replace(whole, works=works)

    for work in planned().works:
        if work.kind != "evaluate":
            make(work, store)
    table = Table(planned(), store)
    both = list(table.orders())
    destroy(store, of_kind(planned(), "train")[0])
    for order in both:
        table.dispatcher.ended(order.number, Failure("damaged", kind="storage"))
    assert table.do_all() == ["train", "evaluate", "evaluate"]


def test_a_budget_counts_what_is_damaged_as_not_made(store: Store) -> None:
    for work in one_trial(store).works:
        if work.kind != "evaluate":
            make(work, store)
    planned = one_trial(store)
    for stage_id in store.done():
        (store.open(stage_id) / "summary.json").write_text("{}")
    planned = replace(planned, sweep=replace(planned.sweep, budget=Budget(gpu_hours=1, trial_hours=1)))
    assert Table(planned, store).start().work.kind == "evaluate"


# Interruption and budgets


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


# asha, search


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
