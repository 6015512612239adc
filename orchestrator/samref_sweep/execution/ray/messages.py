"""All that the driver and a worker tell each other: an order as a Tune trial's configuration, reports, stop signs.

Tune copies and flattens configurations and reports, so what travels is a plain dictionary; only this module knows its
keys.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ray.experimental import internal_kv

from samref_sweep.execution.dispatch import Order
from samref_sweep.execution.requests import Request
from samref_sweep.failures import Failure
from samref_sweep.planning.work import Work

_PROGRESS = "progress"
_END = "end"


def order_to_config(order: Order) -> dict[str, Any]:
    """The configuration of the Tune trial that carries out an order."""
    return {
        "number": order.number,
        # As text: Tune copies and flattens a trial's configuration again and again.
        "work": json.dumps(order.work.to_json()),
        "request": json.dumps(asdict(order.request)),
        "rungs": list(order.rungs),
        "stoppable": order.stoppable,
    }


def order_from_config(config: Mapping[str, Any]) -> Order:
    """The order that a Tune trial's configuration stands for."""
    work = Work.from_json(json.loads(config["work"]))
    return Order(config["number"], work, request_in(config), tuple(config["rungs"]), config["stoppable"])


def request_in(config: Mapping[str, Any]) -> Request:
    """What the order in a Tune trial's configuration takes; its work is not read."""
    return Request(**json.loads(config["request"]))


def progress_report(step: int, metrics: Mapping[str, float]) -> dict[str, Any]:
    """What a worker reports while it runs."""
    return {_PROGRESS: {"step": step, **metrics}}


def end_report(failure: Failure | None) -> dict[str, Any]:
    """What a worker reports last."""
    return {_END: asdict(failure) if failure else None}


def progress_in(result: Mapping[str, Any]) -> dict[str, float]:
    """The step and the metrics in what Tune received; empty where it is no progress."""
    # Tune flattens what was reported: {"progress": {"step": 1}} comes as {"progress/step": 1}.
    start = f"{_PROGRESS}/"
    return {key.removeprefix(start): value for key, value in result.items() if key.startswith(start)}


def failure_in(result: Mapping[str, Any] | None) -> Failure | None:
    """Why the work failed, by its worker's last report; None where it did not, or could not say."""
    start = f"{_END}/"
    told = {key.removeprefix(start): value for key, value in (result or {}).items() if key.startswith(start)}
    return Failure(**told) if told else None


@dataclass(frozen=True)
class StopSign:
    """Tells workers to end in order, through Ray's key-value store: all nodes see it at once, which files are not."""

    name: str
    """One execution's own."""

    def show(self, number: int | None) -> None:
        """Stop the unit of work of that number; with None, all of them."""
        internal_kv._internal_kv_put(self._key(number), b"")

    def seen(self, order: Order) -> bool:
        """Whether an order's work is to end."""
        numbers = (None, order.number) if order.stoppable else (None,)
        return any(internal_kv._internal_kv_exists(self._key(number)) for number in numbers)

    def _key(self, number: int | None) -> str:
        return self.name if number is None else f"{self.name}/{number}"
