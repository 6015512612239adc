"""All that the driver and a worker tell each other: an order as a Tune trial's configuration, reports, stop signs.

Tune copies and flattens configurations and reports again and again; only this module knows their keys.
"""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray.exceptions import RayError
from ray.experimental import internal_kv

from samref_sweep.execution.dispatch import Order
from samref_sweep.failures import Failure

_PROGRESS = "progress"
_END = "end"


def order_to_config(order: Order) -> dict[str, Any]:
    """The configuration of the Tune trial that carries out an order."""
    return {"number": order.number, "order": pickle.dumps(order)}


def order_in(config: Mapping[str, Any]) -> Order:
    """The order that a Tune trial's configuration stands for."""
    order: Order = pickle.loads(config["order"])
    return order


def progress_report(step: int, metrics: Mapping[str, float]) -> dict[str, Any]:
    """What a worker reports while it runs."""
    return {_PROGRESS: {"step": step, **metrics}}


def end_report(failure: Failure | None) -> dict[str, Any]:
    """What a worker reports last."""
    return {_END: failure}


def progress_in(result: Mapping[str, Any]) -> dict[str, float]:
    """The step and the metrics in what Tune received; empty where it is no progress."""
    # Tune flattens what was reported: {"progress": {"step": 1}} comes as {"progress/step": 1}.
    start = f"{_PROGRESS}/"
    return {key.removeprefix(start): value for key, value in result.items() if key.startswith(start)}


def failure_in(result: Mapping[str, Any] | None) -> Failure | None:
    """Why the work failed, by its worker's last report; None where it did not, or could not say."""
    return (result or {}).get(_END)


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
        try:
            return any(internal_kv._internal_kv_exists(self._key(number)) for number in numbers)
        except RayError:  # a link that is cut for a while; it is asked again
            return False

    def _key(self, number: int | None) -> str:
        return self.name if number is None else f"{self.name}/{number}"
