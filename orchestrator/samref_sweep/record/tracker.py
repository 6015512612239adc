"""MLflow as the live view of a sweep: its runs are made, followed and ended while the sweep goes on.

All calls are made by one thread of the driver: what was done from what the store holds, and once a second what runs and
what one training reported. While the server is away they wait, and what was not logged in the end (or the driver was
killed) is logged by the next run of the same command, or by `--sync`. An error here is a warning, never the sweep's.
"""

import contextlib
import hashlib
import itertools
import queue
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Self

from samref.errors import masked
from samref.trial import Trial
from samref_sweep.errors import StoreError
from samref_sweep.planning.plan import Outcome, Plan, leaves
from samref_sweep.planning.work import Event
from samref_sweep.record.live import Live
from samref_sweep.record.mlflow_client import RunStatus, said
from samref_sweep.record.mlflow_runs import SweepRuns
from samref_sweep.store.locks import exclusive
from samref_sweep.store.store import Store

CLOSE_SECONDS = 60
GIVE_UP_SECONDS = 5
"""What the sweep's run is waited for after an error."""
RETRY_SECONDS = 10.0
TICK_SECONDS = 1.0
LATER = "the sweep goes on, and the same command with --sync logs later what is missing"

Task = Callable[[SweepRuns], object]


class Tracker:
    """Logs a plan's trials while they run, or, where it is not `live`, those that are done.

    `warn` is called with a line where MLflow does not answer, or refuses something.
    """

    def __init__(self, plan: Plan, store: Store, uri: str, warn: Callable[[str], None], *, live: bool = False) -> None:
        self.link: str | None = None
        """The address of the sweep's run on MLflow's page, once it is known."""
        self._plan = plan
        self._store = store
        self._uri = uri
        # MLflow's errors have its URI in many forms.
        self._warn: Callable[[str], None] = lambda text: warn(masked(text))
        self._is_live = live
        self._live = Live()
        self._seen: dict[str, int] = {}
        self._ended: dict[str, float] = {}
        self._by_leaf: defaultdict[str, list[Trial]] = defaultdict(list)
        self._index(plan.trials)
        self._tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._last: Task | None = None
        self._closing = threading.Event()
        self._token = secrets.token_hex(8)
        self._complete_log = False
        self._refused = False
        self._runs: SweepRuns | None = None
        self._thread = threading.Thread(target=self._work, daemon=True, name="mlflow")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Leave no run behind that seems to go on, where the sweep ends with an exception."""
        if kind is not None and self._thread.ident:
            self._end("KILLED", None, GIVE_UP_SECONDS)

    def start(self) -> None:
        """Begin, with the trials that are to come and those that were done before."""
        if not self._thread.ident:
            self._thread.start()
            self._plan_ahead()
            done = self._store.done()
            for stage in self._plan.stages.values():
                if stage.kind == "train" and stage.id in done:
                    self._tasks.put(partial(SweepRuns.record_training, stage=stage))
            self._complete(self._plan.trials, done.__contains__)

    def on_event(self, event: Event) -> None:
        """Follow what happens to a unit of work, and log the trials that it completed."""
        self._live.hear(event)
        self.start()
        if event.kind == "done":
            for stage in event.work.stages:
                self._ended[stage.id] = time.time()
                if stage.kind == "train":
                    self._tasks.put(partial(SweepRuns.record_training, stage=stage))
            completed = (trial for stage in event.work.stages for trial in self._by_leaf.get(stage.id, ()))
            self._complete(completed, self._store.has)
        elif event.kind == "failed" and event.failure and event.work.kind == "train":
            task = partial(SweepRuns.fail_training, stage=event.work.stages[0], failure=event.failure)
            self._tasks.put(task)

    def grow(self, plan: Plan) -> None:
        """Follow a search, whose plan has more trials than before."""
        fresh = plan.trials[len(self._plan.trials) :]
        self._plan = plan
        self._index(fresh)
        if fresh and self._thread.ident:
            self._plan_ahead()
            self._complete(fresh, self._store.has)

    def close(
        self,
        outcomes: Sequence[Outcome],
        *,
        interrupted: bool,
        results: Path | None = None,
        patience_seconds: float | None = CLOSE_SECONDS,
    ) -> bool:
        """Log what failed, end the sweep's run, and wait for the thread, but not for ever unless patience is None.

        `results` is the folder of the sweep's tables and page, which become files of its run. Tells whether all is
        logged.
        """
        self.start()
        for trial, outcome in zip(self._plan.trials, outcomes, strict=True):
            if outcome.status in ("failed", "stopped"):
                self._tasks.put(partial(SweepRuns.fail, trial=trial, outcome=outcome))
        failed = any(outcome.status == "failed" for outcome in outcomes)
        status: RunStatus = "KILLED" if interrupted else "FAILED" if failed else "FINISHED"
        self._end(status, results, patience_seconds)
        return self._complete_log

    def _end(self, status: RunStatus, results: Path | None, patience_seconds: float | None) -> None:
        self._last = partial(SweepRuns.end, status=status, folder=results)
        self._tasks.put(self._last)
        self._closing.set()
        self._thread.join(patience_seconds)
        if self._thread.is_alive():
            self._warn(f"MLflow ({self._uri}) is slow; {LATER}")

    def _index(self, trials: Iterable[Trial]) -> None:
        for trial in trials:
            for stage in leaves(trial):
                self._by_leaf[stage.id].append(trial)

    def _plan_ahead(self) -> None:
        self._tasks.put(partial(SweepRuns.name, plan=self._plan))
        if self._is_live:
            self._tasks.put(self._schedule)

    def _complete(self, trials: Iterable[Trial], done: Callable[[str], bool]) -> None:
        for trial in trials:
            if all(done(stage.id) for stage in leaves(trial)):
                self._tasks.put(partial(SweepRuns.record, trial=trial))

    def _work(self) -> None:
        """Do all tasks in order, and between them once a second what is live."""
        ticked, over = time.monotonic(), False
        while not over:
            task: Task | None = None
            with contextlib.suppress(queue.Empty):
                task = self._tasks.get(timeout=max(0.0, ticked + TICK_SECONDS - time.monotonic()))
            if task and not self._do(task):
                return
            over = task is not None and task is self._last  # after which no run is to seem to go on
            if not over and time.monotonic() - ticked >= TICK_SECONDS:
                if not self._do(self._tick):
                    return
                ticked = time.monotonic()
        self._complete_log = not self._refused

    def _tick(self, runs: SweepRuns) -> None:
        """Once a second: what runs, and one call for what one training reported."""
        running = self._live.running()
        if running != self._seen:
            runs.follow(running)
            self._seen = running
        if taken := self._live.take():
            runs.points(*taken)

    def _do(self, task: Task) -> bool:
        """Do a task; one that fails is done again, on a new connection, until the sweep is over: then False.

        Once is no reason to warn, unless nothing comes after it: a database may be busy. Between two tasks another
        driver of the same sweep may log; what it did is looked up before ours goes on.
        """
        name = hashlib.sha256(self._plan.sweep.name.encode()).hexdigest()[:16]
        for attempt in itertools.count(1):
            last = self._closing.is_set()
            try:
                lock = self._store.node.root / f"mlflow-{name}.lock"
                with exclusive(lock, self._token, give_up=self._closing) as undisturbed:
                    if self._runs is None or not undisturbed:
                        self._runs = None
                        self._runs = self._connected()
                    task(self._runs)
                    self._refused |= self._runs.refused
                return True
            except StoreError as error:  # no fault of MLflow's, and no reason for all else to wait
                if not self._refused:
                    self._warn(f"MLflow lacks what cannot be read: {error}")
                self._refused = True
                self._forget_damaged()
                return True
            except Exception as error:  # MLflow raises dozens of kinds; none may end a sweep
                self._runs = None
                if attempt == 2 or (last and attempt == 1):
                    self._warn(f"MLflow ({self._uri}) does not take what happens: {said(error)}; {LATER}")
                if last:
                    return False
                self._closing.wait(RETRY_SECONDS)
        return False

    def _forget_damaged(self) -> None:
        self._runs = None
        with contextlib.suppress(StoreError):
            done = self._store.done()
            for stage_id in [stage_id for stage_id in list(self._ended) if stage_id not in done]:
                self._ended.pop(stage_id, None)

    def _connected(self) -> SweepRuns:
        """The sweep's runs as they are now, with those that are to come."""
        runs = SweepRuns(self._plan, self._store, self._uri, self._ended, self._warn, self._is_live)
        self.link = runs.link
        self._seen = {}
        if self._is_live:
            self._schedule(runs)
        return runs

    def _schedule(self, runs: SweepRuns) -> None:
        runs.schedule(self._live.running())
