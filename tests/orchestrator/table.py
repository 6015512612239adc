"""The dispatcher at a table: orders are done by hand, and the test's clock goes when it is told to; no Ray."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from toys import toy_plan, write_toy_stage

from samref.config import Runtime
from samref.stage import Kind
from samref_sweep.execution.dispatch import Dispatcher, Order
from samref_sweep.execution.requests import resolve_all
from samref_sweep.execution.unit import perform
from samref_sweep.planning.plan import Plan
from samref_sweep.planning.work import Event, Work
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


def until(table: Table, kind: Kind) -> Order:
    """Do all before the first order of a kind, which is started."""
    for order in table.orders():
        if order.work.kind == kind:
            return order
        table.do(order)
    raise AssertionError(kind)
