"""What a Tune trial runs: one order, in a worker process that Tune uses again for later ones (written for Ray 2.60)."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from ray import tune

from samref.config import Runtime
from samref.stage import Stopped
from samref_sweep.execution.dispatch import Order
from samref_sweep.execution.ray.messages import StopSign, end_report, order_in, progress_report
from samref_sweep.execution.ray.presence import node_here
from samref_sweep.execution.unit import Runner, Sharing, attempt, run_watched
from samref_sweep.store.opening import open_store
from samref_sweep.store.store import Store

REPORT_SECONDS = 1.0
ANSWER_SECONDS = 120.0
"""How long a report to a driver on another node may wait until its worker counts as lost. After a cut of less than a
minute Ray keeps the node, but the driver's call may have gone with its connection, which Ray finds after five."""


def trainable(where: str, runtime: Runtime, runner: Runner, sign: StopSign) -> Callable[[dict[str, Any]], None]:
    """The function that Tune calls in a worker with an order's configuration.

    Of the runtime the folders count: device and threads are set from what each order takes.
    """

    drivers = node_here()

    def carry_out(config: dict[str, Any]) -> None:
        tell = tune.report if node_here() == drivers else _tell
        order, store = order_in(config), open_store(where, patient=True)
        request = order.request
        device, threads = "cuda" if request.gpu else "cpu", max(1, int(request.cpu))
        failure = attempt(
            order.work,
            store,
            runtime=replace(runtime, device=device, threads=threads),
            report=_Reports(order, sign, tell),
            runner=_in_group(order, runner, store) if request.workers > 1 else runner,
            time_limit=request.time_limit,
            stopping=lambda: sign.seen(order),
        )
        tell(end_report(failure))

    return carry_out


def reserved(config: Mapping[str, Any]) -> tune.PlacementGroupFactory:
    """What Tune holds for a unit of work. The processes of a training reserve theirs themselves, as one group; of a
    stage in shards, all but the first."""
    order = order_in(config)
    request = order.request
    if request.workers > 1 and order.work.kind == "train":
        return _bundle(memory=1)  # bytes; a group may not ask for nothing at all
    return _bundle(CPU=request.cpu, GPU=request.gpu)


@cache
def _bundle(**resources: float) -> tune.PlacementGroupFactory:
    """One object for all trials of a kind: Tune keeps what each was given."""
    return tune.PlacementGroupFactory([resources])


def _tell(report: dict[str, Any]) -> None:
    """Pass a report on to Tune; where the driver does not take it, exit, so that what runs here is tried again."""
    lost = threading.Timer(ANSWER_SECONDS, _give_up)
    lost.daemon = True
    lost.start()
    try:
        tune.report(report)
    finally:
        lost.cancel()


def _give_up() -> None:
    print(f"the driver took no report for {ANSWER_SECONDS:.0f} s; this worker ends, and another goes on", flush=True)
    os._exit(1)


class _Reports:
    """Passes a stage's reports on to Tune, not more often than the driver can look at them."""

    def __init__(self, order: Order, sign: StopSign, tell: Callable[[dict[str, Any]], None]) -> None:
        self._order = order
        self._sign = sign
        self._tell = tell
        self._last = 0.0
        self._step_before = 0

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        at_rung = any(self._step_before < rung <= step for rung in self._order.rungs)
        self._step_before = step
        # The driver handles every report in its loop: one a second and worker is enough to look at.
        if at_rung or time.monotonic() - self._last >= REPORT_SECONDS:
            self._last = time.monotonic()
            self._tell(progress_report(step, metrics))
        if at_rung and self._sign.seen(self._order):  # Tune came back from the report with the driver's verdict
            raise Stopped


def _in_group(order: Order, runner: Runner, store: Store) -> Runner:
    """The runner of a stage whose work several processes share."""
    request, log = order.request, f"{order.work.id}.log"
    if order.work.kind != "train":
        from samref_sweep.execution.ray.shard_group import ShardGroup

        if not isinstance(runner, Sharing):
            return runner
        return ShardGroup(request.workers, request.cpu, request.gpu, store.where, order.work.needs, log, runner)
    from samref.run_stage import run_in_group
    from samref_sweep.execution.ray.train_group import TrainGroup  # imports Ray Train, which few sweeps need

    in_each = run_in_group if runner is run_watched else runner
    return TrainGroup(request.workers, request.cpu, request.gpu, store.node.logs / log, in_each)
