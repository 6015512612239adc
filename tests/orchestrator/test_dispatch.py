"""What starts next, and what follows from each end and from damage: no Ray, milliseconds."""

from dataclasses import replace
from typing import Any

import pytest
from table import NODES, Table, destroy, make, of_kind, one_trial, until
from toys import toy_plan

from samref_sweep.errors import ResourceError
from samref_sweep.execution.dispatch import REBUILDS, Loss
from samref_sweep.execution.requests import resolve_all
from samref_sweep.failures import Failure, FailureKind
from samref_sweep.planning.plan import Plan
from samref_sweep.planning.work import Work
from samref_sweep.spec.policy import Resources, Retry
from samref_sweep.store.store import Store


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
