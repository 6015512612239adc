"""What starts next, and what follows from how it ended: the policy of a sweep's execution. Knows nothing of Ray.

A `Dispatcher` is asked for orders and told what became of them. Two words are kept apart: the sweep is *interrupted*
(by a person, or by its budget), and one unit of work is *stopped* (by asha, or by its trial's budget).
"""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from samref.stage import Kind
from samref_sweep.errors import StoreError
from samref_sweep.execution.halving import Halving
from samref_sweep.execution.queue import Queue
from samref_sweep.execution.requests import Request
from samref_sweep.execution.search import Search
from samref_sweep.execution.seed_by_seed import SeedBySeed
from samref_sweep.execution.spending import Clock, sound, spent
from samref_sweep.failures import REMEMBERED, Failure, FailureKind
from samref_sweep.planning.plan import Plan
from samref_sweep.planning.work import Event, Work
from samref_sweep.store.store import Store

REBUILDS = 2
"""Times that a unit of work may find its inputs damaged; a disk that damages everything ends the sweep."""


@dataclass(frozen=True)
class Order:
    """A unit of work that is to start now, and how."""

    number: int
    """The unit of work's number in the queue."""
    work: Work
    request: Request
    rungs: tuple[int, ...] = ()
    """Steps at which the training is judged, so that it reports each of them."""
    stoppable: bool = False
    """Whether it may be stopped while the sweep goes on."""


@dataclass(frozen=True)
class Loss:
    """What is known of a worker process that went away without a word."""

    reason: str = "killed, out of memory, or its node went away"
    kind: FailureKind = "node_lost"
    counts: bool = True
    """Whether it counts as an attempt: not where a provider said that it takes the node back."""


@dataclass(frozen=True)
class Ending:
    """How an execution ended."""

    failures: Mapping[str, Failure]
    """Stage id → why it has no output."""
    interrupted: bool
    """Whether it was interrupted (Ctrl-C, a budget) before the queue was empty."""
    reason: str | None = None
    """Which budget interrupted it."""


class Dispatcher:
    """Hands out a plan's work, and decides what follows from each end of it: another attempt, a rebuild, a failure.

    Work of a kind without a request is never made anew; `jobs` bounds the units of work that run at a time. `stop` is
    called with the number of a running one that is to end in order, and with None for all of them.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        requests: Mapping[Kind, Request],
        *,
        on_event: Callable[[Event], None],
        stop: Callable[[int | None], object],
        jobs: int | None = None,
        search: Search | SeedBySeed | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.failures: dict[str, Failure] = {}
        self.interrupted = False
        """Whether nothing new is to start; what runs was told to end."""
        self._reason: str | None = None
        self._queue = Queue(plan.works, plan.done)
        self._stages = plan.stages
        self._store = store
        self._requests = requests
        self._on_event = on_event
        self._stop = stop
        self._jobs = jobs
        self._search = search
        self._retry = plan.sweep.retry
        self._spending = spent(plan, store, clock)
        scheduler = plan.sweep.scheduler
        self._halving = Halving(scheduler, plan.stages.values(), store.journal("rungs.jsonl")) if scheduler else None
        self._stopped: dict[int, Failure] = {}
        self._rebuilding: set[str] = set()
        self._workers: dict[int, int] = {}  # of each unit of work that runs
        self._attempts: Counter[tuple[int, FailureKind]] = Counter()

    @property
    def drained(self) -> bool:
        """Whether the sweep was interrupted and nothing runs any more; what was ordered is not to start either."""
        return self.interrupted and not self._spending.running

    @property
    def over(self) -> bool:
        """Whether there will be no more orders, when `next` just gave None."""
        return self._queue.exhausted or self.drained

    @property
    def ending(self) -> Ending:
        """How the execution ended."""
        return Ending(self.failures, self.interrupted or not self._queue.exhausted, self._reason)

    def interrupt(self, reason: str | None = None) -> None:
        """Start nothing new, and let what runs end in order."""
        self.interrupted = True
        self._reason = self._reason or reason
        self._stop(None)

    def check_budgets(self) -> None:
        """Interrupt the sweep, or stop what runs of a trial, where its budget is used up."""
        if not self.interrupted and (reason := self._spending.exceeded()):
            self.interrupt(reason)
        for number in self._spending.running:
            if number not in self._stopped and (reason := self._spending.exceeded_by_trial(number)):
                self._stop_one(number, reason)

    def next(self) -> Order | None:
        """The unit of work that is to start now; None where nothing can, yet or any more (`over`)."""
        self._grow()
        if self.interrupted or (self._jobs and self._queue.num_running >= self._jobs):
            return None
        taken = self._queue.take(self._fits)
        if taken is None:
            return None
        number, work = taken
        rungs = tuple(self._halving.rungs(work.stages[0])) if self._halving else ()
        stoppable = bool(rungs or self._spending.budget.trial_hours)
        request = self._request(work)
        self._workers[number] = request.workers
        return Order(number, work, request, rungs, stoppable)

    def _request(self, work: Work) -> Request:
        """What work that was just taken asks for; of `auto` workers, its share of the devices that would be idle."""
        request = self._requests[work.kind]
        if not request.auto:
            return request
        room = min(request.at_once, self._jobs or request.at_once)
        idle = room - sum(self._workers.values()) - 1 - self._queue.num_ready
        return replace(request, workers=1 + max(0, idle) // (1 + self._queue.num_ready))

    def started(self, number: int) -> None:
        """Take note that an order has its resources and runs."""
        work = self._queue.work(number)
        request = self._requests[work.kind]
        bounded = self._spending.budget.trial_hours is not None
        used_before = self._device_seconds(work.awaits) if bounded else 0.0
        devices = request.workers if work.kind == "train" else 1  # more come as there is room, and are reported
        self._spending.start(number, request.gpu, devices, used_before)
        self._on_event(Event("started", work))

    def progressed(self, number: int, metrics: Mapping[str, float]) -> None:
        """Take note of what running work reports, and stop it where it fell behind."""
        work = self._queue.work(number)
        if workers := metrics.get("workers"):
            self._spending.resize(number, int(workers))
        if self._halving and (reason := self._halving.judge(work.stages[0], metrics)):
            self._stop_one(number, reason)
        self._on_event(Event("progress", work, metrics=metrics))

    def ended(self, number: int, failure: Failure | None = None, loss: Loss | None = None) -> None:
        """Decide what follows from the end of an order; the store tells whether it has its output.

        `failure` is why it failed, where it could say so, and `loss` how its process was lost, where it could not.
        """
        work = self._queue.work(number)
        seconds = self._spending.end(number)
        self._workers.pop(number, None)
        missing = [stage.id for stage in work.stages if not self._store.has(stage.id)]
        final: Failure | None = None
        if missing and not self.interrupted:
            final, counts = self._judged(number, work, failure, loss or Loss(), seconds)
            if self._again(number, work, final, counts):
                self._on_event(Event("again", work, failure=final))
                return
            self._fail(missing, final)
        self._rebuilding.difference_update(stage.id for stage in work.stages)
        self._queue.finish(number, [stage.id for stage in work.stages if stage.id not in missing])
        if self._search:
            self._search.settle(self.failures)
        if final or not missing:
            self._on_event(Event("failed" if final else "done", work, failure=final))

    def _stop_one(self, number: int, reason: str) -> None:
        self._stopped[number] = Failure(reason, kind="stopped")
        self._stop(number)

    def _grow(self) -> None:
        """Ask the search for more, where there is room for it."""
        search = self._search
        if search is None:
            return
        room = self._jobs or max(self._requests[kind].at_once for kind in ("train", "evaluate"))
        while not self.interrupted and not self._queue.num_ready and search.num_left and search.num_open < room:
            for work in search.more():
                self._queue.add(work)
                self._stages.update((stage.id, stage) for stage in work.stages)
            search.settle(self.failures)

    def _fits(self, work: Work) -> bool:
        if work.kind == "profile" and any(other.kind != "profile" for other in self._queue.running):
            return False  # it comes last, and what runs may make other work ready
        # Nobody else holds resources for a training of several processes, so all of them would start at once.
        request = self._requests[work.kind]
        return request.workers == 1 or sum(w.kind == work.kind for w in self._queue.running) < request.at_once

    def _device_seconds(self, stage_ids: Iterable[str]) -> float:
        """Device-seconds of stages that are done, and of all that these needed."""
        needed: set[str] = set()
        left = list(stage_ids)
        while left:
            stage_id = left.pop()
            if stage_id not in needed and self._store.has(stage_id):
                needed.add(stage_id)
                left += self._stages[stage_id].needs.values() if stage_id in self._stages else ()
        done = filter(None, (sound(self._store, stage_id) for stage_id in needed))
        return sum(each.device_seconds for each in done)

    def _judged(
        self, number: int, work: Work, failure: Failure | None, loss: Loss, seconds: float
    ) -> tuple[Failure, bool]:
        """Why a unit of work has no output, and whether that counts as an attempt."""
        if stopped := self._stopped.get(number):
            return stopped, True
        if failure:
            return failure, True
        log = str(self._store.node.logs / f"{work.id}.log")
        limit = self._requests[work.kind].time_limit
        if limit is not None and seconds >= limit:
            return Failure(f"not done within resources.{work.kind}.time_limit, {limit:g} s", log, "time_limit"), True
        return Failure(f"its worker process was lost: {loss.reason}", log, loss.kind), loss.counts

    def _again(self, number: int, work: Work, failure: Failure, counts: bool) -> bool:
        """Put work that failed back into the queue, if it may be tried again or what it read can be made anew."""
        damaged = self._damaged(sorted(work.awaits))
        if any(stage_id not in self._stages for stage_id in damaged):
            return False
        rebuilt = [self._stages[stage_id] for stage_id in damaged]
        if any(stage.kind not in self._requests for stage in rebuilt):
            return False
        self._attempts[number, failure.kind] += counts
        if self._attempts[number, failure.kind] > (REBUILDS if damaged else self._retry.bound(failure.kind)):
            return False
        for stage in rebuilt:
            self._queue.lose(stage.id)
        for stage in rebuilt:
            if stage.id not in self._rebuilding:
                self._rebuilding.add(stage.id)
                self._queue.add(Work((stage,)))
        self._queue.again(number)
        return True

    def _damaged(self, stage_ids: Iterable[str]) -> list[str]:
        """Which of some stages the store has no more, and which of those that they need, each after its needs."""
        found: list[str] = []
        for stage_id in stage_ids:
            if not self._store.has(stage_id):
                needs: Iterable[str] = self._stages[stage_id].needs.values() if stage_id in self._stages else ()
                found += [each for each in (*self._damaged(needs), stage_id) if each not in found]
        return found

    def _fail(self, stage_ids: Iterable[str], failure: Failure) -> None:
        """Give stages up; later runs are told, where the failure would be the same again."""
        for stage_id in stage_ids:
            self.failures[stage_id] = failure
            if failure.kind in REMEMBERED:
                # Where even that cannot be written, a later run tries again.
                with contextlib.suppress(OSError, StoreError):
                    self._store.failures.remember(stage_id, failure)
