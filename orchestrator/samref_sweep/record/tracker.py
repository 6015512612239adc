"""MLflow as the live view of a sweep: a parent run per sweep, a child per trial, both found again by a tag.

All calls are made by one thread of the driver, from what the store holds. While the server is away they wait, and a
trial that was not logged in the end (or the driver was killed) is logged by the next run of the same command, or by
`--sync`. An error here is a warning, never the sweep's.
"""

from __future__ import annotations

import itertools
import queue
import secrets
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from samref.errors import masked
from samref.trial import Trial
from samref_sweep.planning.plan import Outcome, Plan, leaves
from samref_sweep.planning.work import Event
from samref_sweep.record.mlflow_runs import RunStatus, SweepRuns
from samref_sweep.store.locks import exclusive
from samref_sweep.store.store import Store

CLOSE_SECONDS = 60
RETRY_SECONDS = 10.0
LATER = "the sweep goes on, and the same command with --sync logs later what is missing"


class Tracker:
    """Logs a plan's trials as they are completed."""

    def __init__(self, plan: Plan, store: Store, uri: str, warn: Callable[[str], None]) -> None:
        self._plan = plan
        self._store = store
        self._uri = uri
        # MLflow's errors have its URI in many forms.
        self._warn: Callable[[str], None] = lambda text: warn(masked(text))
        self._by_leaf: defaultdict[str, list[Trial]] = defaultdict(list)
        self._index(plan.trials)
        self._tasks: queue.SimpleQueue[Callable[[SweepRuns], None] | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._token = secrets.token_hex(8)
        self._complete_log = False
        self._thread = threading.Thread(target=self._work, daemon=True, name="mlflow")

    def start(self) -> None:
        """Begin, with the trials that were done before; a sweep that is refused never gets here."""
        if not self._thread.ident:
            self._tasks.put(partial(SweepRuns.name, plan=self._plan))  # so that the sweep is there from the beginning
            self._thread.start()
            self._complete(self._plan.trials, self._store.done().__contains__)

    def on_event(self, event: Event) -> None:
        """Log the trials that this event completed."""
        self.start()
        if event.kind == "done":
            completed = (trial for stage in event.work.stages for trial in self._by_leaf.get(stage.id, ()))
            self._complete(completed, self._store.has)

    def grow(self, plan: Plan) -> None:
        """Follow a search, whose plan has more trials than before."""
        fresh = plan.trials[len(self._plan.trials) :]
        self._plan = plan
        self._index(fresh)
        if fresh and self._thread.ident:
            self._tasks.put(partial(SweepRuns.name, plan=plan))
            self._complete(fresh, self._store.has)

    def close(
        self, outcomes: Sequence[Outcome], *, interrupted: bool, patience_seconds: float | None = CLOSE_SECONDS
    ) -> bool:
        """Log what failed, end the sweep's run, and wait for the thread, but not for ever unless patience is None.

        Returns:
            Whether all is logged.
        """
        self.start()
        for trial, outcome in zip(self._plan.trials, outcomes, strict=True):
            if outcome.status in ("failed", "stopped"):
                self._tasks.put(partial(SweepRuns.fail, trial=trial, outcome=outcome))
        failed = any(outcome.status == "failed" for outcome in outcomes)
        status: RunStatus = "KILLED" if interrupted else "FAILED" if failed else "FINISHED"
        self._tasks.put(partial(SweepRuns.end, status=status))
        self._tasks.put(None)
        self._closing.set()
        self._thread.join(patience_seconds)
        if self._thread.is_alive():
            self._warn(f"MLflow ({self._uri}) is slow; {LATER}")
        return self._complete_log

    def _index(self, trials: Iterable[Trial]) -> None:
        for trial in trials:
            for stage in leaves(trial):
                self._by_leaf[stage.id].append(trial)

    def _complete(self, trials: Iterable[Trial], done: Callable[[str], bool]) -> None:
        for trial in trials:
            if all(done(stage.id) for stage in leaves(trial)):
                self._tasks.put(partial(SweepRuns.record, trial=trial))

    def _work(self) -> None:
        """Do all tasks in order; one that fails is done again, on a new connection, until the sweep is over.

        Once is no reason to warn, unless nothing comes after it: a database may be busy. Between two tasks another
        driver of the same sweep may log; what it did is looked up before ours goes on.
        """
        runs: SweepRuns | None = None
        while (task := self._tasks.get()) is not None:
            for attempt in itertools.count(1):
                last = self._closing.is_set()
                try:
                    lock = self._store.node.root / f"mlflow-{self._plan.sweep.name}.lock"
                    with exclusive(lock, self._token, give_up=self._closing) as undisturbed:
                        if runs is None or not undisturbed:
                            runs = SweepRuns(self._plan, self._store, self._uri)
                        task(runs)
                    break
                except Exception as error:  # MLflow raises dozens of kinds; none may end a sweep
                    runs = None
                    if attempt == 2 or (last and attempt == 1):
                        text = " ".join(str(error).split())[:400]
                        self._warn(f"MLflow ({self._uri}) does not answer: {text}; {LATER}")
                    if last:
                        return
                    self._closing.wait(RETRY_SECONDS)
        self._complete_log = True
