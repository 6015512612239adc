"""The ready queue in the words of Ray Tune: its searcher, and the callback that tells it what Tune does not.

Written for Ray 2.60, whose `Searcher` is a developer's interface.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray.exceptions import RayActorError
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from samref.stage import Kind, Stage
from samref_sweep.errors import StoreError
from samref_sweep.execution.queue import Queue
from samref_sweep.execution.requests import Request
from samref_sweep.execution.steering import Steering
from samref_sweep.failures import REMEMBERED, Failure, FailureKind
from samref_sweep.planning.events import Event
from samref_sweep.planning.work import Work
from samref_sweep.spec.policy import Retry
from samref_sweep.store.folder import Store

PROGRESS = "progress/"
OUT_OF_MEMORY = "running low on memory"
"""In the words of Ray's memory monitor."""
REBUILDS = 2
"""Times that a unit of work may find its inputs damaged; a disk that damages everything ends the sweep."""


class TuneQueue(Searcher):
    """The queue in the words of Tune: a Tune trial is a unit of work, told apart by Tune's trial id."""

    def __init__(
        self,
        queue: Queue,
        store: Store,
        requests: Mapping[Kind, Request],
        jobs: int | None,
        on_event: Callable[[Event], None],
        *,
        stages: Mapping[str, Stage],
        retry: Retry,
        steering: Steering,
        stop: Callable[[str], object],
    ) -> None:
        super().__init__()
        self.queue = queue
        self.failures: dict[str, Failure] = {}
        self.stopping = False
        """Whether nothing new is to start; what runs was told to end."""
        self.reason: str | None = None
        """Why it stops, unless a person said so."""
        self._store = store
        self._requests = requests
        self._jobs = jobs
        self._on_event = on_event
        self._stages = dict(stages)
        self._steering = steering
        self._stop = stop
        self._stopped: dict[str, Failure] = {}
        self._retry = retry
        self._numbers: dict[str, int] = {}
        self._trials: dict[str, Any] = {}
        self.all_trials: Sequence[Any] = ()
        """Tune's own list."""
        self._started: dict[str, float] = {}
        self._before: dict[str, float] = {}
        """Device-seconds of what running trials of Tune needed, where they are bounded."""
        self._rebuilding: set[str] = set()
        self._ended: Counter[tuple[int, FailureKind]] = Counter()

    @property
    def halted(self) -> bool:
        """Whether the sweep stops and nothing runs any more; what Tune holds ready is not to start."""
        return self.stopping and not self._trials

    def check_budget(self) -> None:
        """Stop the sweep, or what runs of a trial, when its budget is used up."""
        spending = self._steering.spending
        if not self.stopping and (reason := spending.exceeded()):
            self.stopping, self.reason = True, reason
            self._stop("")
        for trial_id, before in self._before.items():
            number = self._numbers[trial_id]
            work = self.queue.work(number)
            reason = spending.exceeded_by_trial(trial_id, before, self._requests[work.kind].workers)
            if reason and work.id not in self._stopped:
                self._end(number, reason)

    def _end(self, number: int, reason: str) -> None:
        """Stop one unit of work."""
        self._stopped[self.queue.work(number).id] = Failure(reason, kind="stopped")
        self._stop(f"/{number}")

    def _device_seconds(self, stage_ids: Iterable[str]) -> float:
        """Of stages that are done, and of all that these needed."""
        needed: set[str] = set()
        left = list(stage_ids)
        while left:
            stage_id = left.pop()
            if stage_id not in needed and self._store.has(stage_id):
                needed.add(stage_id)
                left += self._stages[stage_id].needs.values() if stage_id in self._stages else ()
        return sum(self._store.summary(stage_id).device_seconds for stage_id in needed)

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        self._grow()
        if self.queue.exhausted or self.halted:
            return Searcher.FINISHED  # type: ignore[return-value]  # Ray's annotation forgets it
        if self.stopping:
            return None
        if self._jobs and self.queue.num_running >= self._jobs:
            return None
        taken = self.queue.take(self._fits)
        if taken is None:
            return None
        number, work = taken
        self._numbers[trial_id] = number
        request = self._requests[work.kind]
        halving = self._steering.halving
        rungs = halving.rungs(work.stages[0]) if halving else []
        # As text: Tune copies and flattens a trial's configuration again and again.
        alone = bool(rungs or self._steering.spending.budget.trial_hours)  # whether it may be stopped alone
        told = {"number": number, "work": json.dumps(work.to_json()), "rungs": rungs, "alone": alone}
        return told | asdict(request)

    def _grow(self) -> None:
        """Ask the search for more, where there is room for it."""
        search = self._steering.search
        if search is None:
            return
        room = self._jobs or max(self._requests[kind].at_once for kind in ("train", "evaluate"))
        while not self.stopping and not self.queue.ready and search.num_left and search.num_open < room:
            for work in search.more():
                self.queue.add(work)
                self._stages.update((stage.id, stage) for stage in work.stages)
            search.settle(self.failures)

    def _fits(self, work: Work) -> bool:
        # Tune holds no resources for a training of several processes, so it would start them all at once.
        request = self._requests[work.kind]
        return request.workers == 1 or sum(w.kind == work.kind for w in self.queue.running) < request.at_once

    def on_trial_start(self, trial: Any) -> None:
        self._trials[trial.trial_id] = trial
        self._started[trial.trial_id] = time.monotonic()
        work = self.queue.work(self._numbers[trial.trial_id])
        request = self._requests[work.kind]
        self._steering.spending.start(trial.trial_id, request.gpu * request.workers)
        if self._steering.spending.budget.trial_hours is not None:
            self._before[trial.trial_id] = self._device_seconds(work.needs.values())
        self._on_event(Event("started", work))

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        # Tune flattens what was reported: {"progress": {"step": 1}} comes as {"progress/step": 1}.
        metrics = {key.removeprefix(PROGRESS): value for key, value in result.items() if key.startswith(PROGRESS)}
        if metrics:
            number = self._numbers[trial_id]
            work, halving = self.queue.work(number), self._steering.halving
            if halving and (reason := halving.judge(work.stages[0], metrics)):
                self._end(number, reason)
            self._on_event(Event("progress", work, metrics=metrics))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        number = self._numbers[trial_id]
        work = self.queue.work(number)
        # One that was lost while it started was not told of; Tune's newest trials stand last.
        trial = self._trials.pop(trial_id, None)
        if trial is None and error:
            trial = next((each for each in reversed(self.all_trials) if each.trial_id == trial_id), None)
        seconds = time.monotonic() - self._started.pop(trial_id, float("inf"))
        self._before.pop(trial_id, None)
        self._steering.spending.end(trial_id)
        missing = [stage.id for stage in work.stages if not self._store.has(stage.id)]
        failure: Failure | None = None
        if missing and not self.stopping:
            failure, counts = self._failure(work, trial, result or {}, seconds)
            if self._again(number, work, failure, counts):
                self._on_event(Event("again", work, failure=failure))
                return
            self.failures.update(dict.fromkeys(missing, failure))
            if failure.kind in REMEMBERED:
                # Where even that cannot be written, a later run tries again.
                with contextlib.suppress(OSError, StoreError):
                    for stage_id in missing:
                        self._store.remember_failure(stage_id, asdict(failure))
        self._rebuilding.difference_update(stage.id for stage in work.stages)
        self.queue.finish(number, [stage.id for stage in work.stages if stage.id not in missing])
        if self._steering.search:
            self._steering.search.settle(self.failures)
        if failure or not missing:
            self._on_event(Event("failed" if failure else "done", work, failure=failure))

    def _failure(self, work: Work, trial: Any, told: Mapping[str, Any], seconds: float) -> tuple[Failure, bool]:
        """Why a unit of work has no output, and whether that counts as an attempt."""
        if work.id in self._stopped:
            return self._stopped[work.id], True
        if told.get("reason"):
            return Failure(told["reason"], told["log"], told["kind"]), True
        log = str(self._store.logs / f"{work.id}.log")
        limit = self._requests[work.kind].time_limit
        if limit is not None and seconds >= limit:
            return Failure(f"not done within resources.{work.kind}.time_limit, {limit:g} s", log, "time_limit"), True
        why, kind, counts = _why_lost(trial)
        return Failure(f"its worker process was lost: {why}", log, kind), counts

    def _again(self, number: int, work: Work, failure: Failure, counts: bool) -> bool:
        """Put work that failed back into the queue, if it may be tried again or what it read can be made anew."""
        damaged = [need for need in work.needs.values() if not self._store.has(need)]
        if any(need not in self._stages for need in damaged):
            return False
        self._ended[number, failure.kind] += counts
        if self._ended[number, failure.kind] > (REBUILDS if damaged else self._retry.bound(failure.kind)):
            return False
        for need in damaged:
            self._rebuild(need)
        self.queue.again(number)
        return True

    def _rebuild(self, stage_id: str) -> None:
        """Put a stage whose output was found damaged back into the queue, after what it needs."""
        self.queue.lose(stage_id)
        stage = self._stages[stage_id]
        if stage_id in self._rebuilding:
            return
        self._rebuilding.add(stage_id)
        for need in stage.needs.values():
            if not self._store.has(need):
                self._rebuild(need)
        self.queue.add(Work((stage,)))

    # Tune snapshots and pickles its searcher and callbacks; ours are made anew from the store.
    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None: ...

    def save(self, checkpoint_path: str) -> None: ...

    def restore(self, checkpoint_path: str) -> None: ...


def _why_lost(trial: Any) -> tuple[str, FailureKind, bool]:
    """What Ray knows of the lost worker of a Tune trial: why, of which kind, and whether it counts as an attempt."""
    try:
        error = trial.get_pickled_error()  # kept of errors of the actor only
        lines = Path(trial.error_file).read_text().split("\n")
        last = next(line for line in reversed(lines) if line.strip()).strip()
    except (OSError, TypeError, AttributeError, StopIteration):
        return "killed, out of memory, or its node went away", "node_lost", True
    if OUT_OF_MEMORY in "".join(lines):
        return "Ray killed it because its node's memory was full", "out_of_memory", True
    return last, "node_lost", not (isinstance(error, RayActorError) and error.preempted)


class Started(TrialProgressCallback):
    """Tells the searcher when a trial gets its resources; Tune tells searchers only of results and ends.

    A TrialProgressCallback, because Tune adds one that prints each trial unless it is given its own.
    """

    def __init__(self, searcher: TuneQueue) -> None:
        super().__init__()
        self._searcher = searcher

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._searcher.all_trials = trials

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._searcher.on_trial_start(trial)

    def on_trial_result(self, *args: Any, **info: Any) -> None: ...

    def on_trial_error(self, *args: Any, **info: Any) -> None: ...

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        # Tune keeps every trial to the end: half of that are statistics of what it reported, which nobody reads.
        trial.metric_analysis.clear()
        trial.metric_n_steps.clear()


class Halt(Stopper):
    """Ends Tune's loop when the sweep stops and nothing runs any more."""

    def __init__(self, searcher: TuneQueue) -> None:
        self._searcher = searcher

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        self._searcher.check_budget()
        return self._searcher.halted
