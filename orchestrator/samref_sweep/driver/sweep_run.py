"""Runs what a plan lacks, on Ray or in this process, and records it: refuse, execute, log to MLflow, write tables."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samref.stage import Stopped
from samref_sweep.driver.sweep_plan import SweepPlan, again, set_aside
from samref_sweep.errors import SpecError, StoreError
from samref_sweep.execution.dispatch import Ending
from samref_sweep.execution.signals import ends_in_order
from samref_sweep.execution.unit import perform
from samref_sweep.failures import Failure
from samref_sweep.planning.plan import Outcome, Plan
from samref_sweep.planning.work import Event
from samref_sweep.record.tracking_uri import tracking_uri
from samref_sweep.store.opening import existing, is_uri, local, open_store
from samref_sweep.store.store import Store

if TYPE_CHECKING:
    from samref_sweep.record.tables import Table
    from samref_sweep.record.tracker import Tracker

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What became of a sweep that was run."""

    plan: Plan
    """All its trials, with those that a search suggested."""
    outcomes: Mapping[str, Outcome]
    """Trial id → what became of it, in the plan's order."""
    failures: Mapping[str, Failure]
    """Stage id → why it has no output, from earlier runs too."""
    interrupted: bool
    """Whether it was stopped before its end, by Ctrl-C or a budget; another run goes on from there."""
    where: str
    """Folder or URI of the Parquet tables."""
    mlflow: str | None = None
    """Address of the sweep's run on MLflow's page; None where not all of it could be logged."""

    def table(self, name: str = "trials") -> Table:
        """One of the sweep's tables (docs/results.md): trials, clicks, masks, curves, photographs, training, profile
        or stages.

        Its `.to_pandas()` makes a data frame of it.
        """
        from samref_sweep.record import tables  # imports pyarrow

        return tables.read(self.where, name)

    def curve_sentences(self) -> Mapping[str, str]:
        """Trial id → what its curve over θ says; without those that asked for none (`evaluate.curve`)."""
        from samref_sweep.record import tables

        return tables.curve_sentences(self.table("curves"))


def run(
    planned: SweepPlan,
    *,
    results: str | Path | None = None,
    mlflow: str | None = None,
    address: str | None = None,
    jobs: int | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    warn: Callable[[str], None] = _LOG.warning,
    command: str = "",
    draw: Callable[[Path], object] = lambda folder: None,
) -> Result:
    """Run what a plan lacks on Ray, log it to MLflow as it goes, and write the tables of all its trials.

    In the main thread, Ctrl-C and other signals (`samref_sweep.execution.signals.ENDING`) end what runs in order and
    keep what is done; another Ctrl-C ends it at once.

    Args:
        planned: what `plan` made.
        results: folder or URI for the tables; None: results/ and the sweep's name, unless another sweep's are there.
        mlflow: MLflow's tracking URI; None: the environment's MLFLOW_TRACKING_URI, or else a SQLite file in the store.
        address: a running Ray cluster; None: one on this machine, for the time of the call.
        jobs: at most this many units of work at a time; None: as many as resources allow.
        on_event: called in one thread, which is not this one, for everything that happens to a unit of work.
        warn: called with a line where MLflow does not answer, which ends no sweep.
        command: what is kept in the tables as the command that made them.
        draw: called with the folder of the tables; the page that it draws there is a file of the sweep's run in MLflow.

    Raises:
        SpecError: the sweep asks for more than there is, or its results would replace another's; nothing was run.
        DataError, CheckpointError: something that it reads is missing or broken; nothing was run.
        StoreError: the store cannot be used; what was done is kept.
    """
    planned, store = _with_store(planned)
    check_results(planned, results)
    uri = tracking_uri(mlflow, store.node.mlflow)
    planned = _ready(planned, store)
    remembered = planned.remembered or {}
    where = str(results or default_results(planned))
    from samref_sweep.record import tables  # imports pyarrow
    from samref_sweep.record.tracker import (
        CLOSE_SECONDS,
        GIVE_UP_SECONDS,
        Tracker,
    )  # imports mlflow, which takes seconds

    tracker = Tracker(planned.grown(), store, uri, warn, live=not planned.complete)
    interrupted = threading.Event()
    options = {"address": address, "jobs": jobs, "interrupted": interrupted}
    with ends_in_order(interrupted.set), _results_folder(where) as folder, tracker:
        for _ in range(2):
            before = store.done()
            final, ending = _execute(planned, store, tracker, on_event, **options)
            failures = {**remembered, **ending.failures}
            done = (before | store.done()) & final.stages.keys() - failures.keys()
            outcomes = tables.write(final, store, failures, folder, command, planned.odd, warn)
            if ending.interrupted or done <= store.done():
                break
            planned = again(planned, store)  # what the tables, or the tracker, found damaged is made anew
        note_leaves(final, store)
        draw(folder)
        # A batch system kills seconds after its signal; what is not logged by then is by the next run, or by --sync.
        patience = GIVE_UP_SECONDS if interrupted.is_set() else CLOSE_SECONDS
        stopped = ending.interrupted
        logged = tracker.close(outcomes, interrupted=stopped, results=folder, patience_seconds=patience)
    by_trial = {trial.id: outcome for trial, outcome in zip(final.trials, outcomes, strict=True)}
    where = where if is_uri(where) else str(folder)
    return Result(final, by_trial, failures, ending.interrupted, where, tracker.link if logged else None)


def _with_store(planned: SweepPlan) -> tuple[SweepPlan, Store]:
    """A plan and its store, by which it is planned anew where the store was not there yet."""
    if planned.store is not None:
        return planned, planned.store
    store = open_store(planned.where)
    return again(planned, store), store


def _ready(planned: SweepPlan, store: Store) -> SweepPlan:
    """A plan of which nothing that it needs is missing, with what earlier runs left cleared away."""
    store.clean()
    planned.check()
    planned = set_aside(planned)
    if planned.remembered is None:
        store.failures.forget(planned.plan.stages)
    elif planned.search:
        planned.search.settle(planned.remembered)
    return planned


def note_leaves(plan: Plan, store: Store) -> None:
    """Note in the store which evaluation is each trial's, so that `samref.load` finds it by the trial's id."""
    store.leaves.note({trial.id: leaf.id for trial in plan.trials if (leaf := trial.stage("evaluate"))})


def default_results(planned: SweepPlan) -> Path:
    """Where a sweep's tables go unless a place is named."""
    return Path("results", planned.sweep.name)


def check_results(planned: SweepPlan, results: str | Path | None) -> None:
    """Refuse to replace the results of another sweep that has the same name, unless their very place is named.

    Raises SpecError: finished trials of another sweep would be gone from the tables, or none could be written.
    """
    from samref_sweep.record import tables  # imports pyarrow

    where = str(results or default_results(planned))
    if not is_uri(where) and not os.access(there := existing(local(where)), os.W_OK | os.X_OK):
        raise SpecError(f"{where}: no tables can be written there, as {there} is read-only; say where with --results")
    if results is None and (text := tables.taken(planned.plan, default_results(planned))):
        raise SpecError(text)


def _execute(
    planned: SweepPlan, store: Store, tracker: Tracker, on_event: Callable[[Event], None], **options: Any
) -> tuple[Plan, Ending]:
    """Do a plan's work and log it as it goes; gives the plan at its end, and how it ended."""
    if planned.complete:
        return planned.plan, Ending({}, interrupted=False)
    from samref_sweep.execution.ray.tuner import execute  # imports ray

    def hear(event: Event) -> None:
        tracker.grow(planned.grown())
        on_event(event)
        tracker.on_event(event)

    ending = execute(planned.plan, store, runtime=planned.runtime, on_event=hear, search=planned.search, **options)
    final = replace(planned.grown(), interruption=ending.reason)
    tracker.grow(final)
    return final, ending


@contextmanager
def _results_folder(where: str) -> Iterator[Path]:
    """Where tables are written: a folder of results, or one whose files are uploaded when the block ends."""
    if not is_uri(where):
        folder = local(where).absolute()
        try:
            folder.mkdir(parents=True, exist_ok=True)  # now, for at the end there would be work to lose
        except OSError as error:
            raise StoreError(f"{folder}: {error.strerror}; say with --results where tables can be written") from None
        yield folder
        return
    from samref_sweep.store.bucket import uploaded  # imports pyarrow

    with uploaded(where) as folder:
        yield folder


def sync(planned: SweepPlan, *, mlflow: str | None = None, warn: Callable[[str], None] = _LOG.warning) -> bool:
    """Log to MLflow what the store holds and MLflow does not; run nothing.

    Tells whether all is logged; why not was told to `warn`.
    """
    from samref_sweep.record import tables
    from samref_sweep.record.tracker import Tracker

    store = planned.store or open_store(planned.where)
    tracker = Tracker(planned.plan, store, tracking_uri(mlflow, store.node.mlflow), warn)
    with store.node.temporary("sync") as folder:
        outcomes = tables.write(planned.plan, store, planned.remembered or {}, folder, "--sync", planned.odd, warn)
        stopped = bool(planned.plan.works)
        return tracker.close(outcomes, interrupted=stopped, results=folder, patience_seconds=None)


def run_here(planned: SweepPlan, *, on_event: Callable[[Event], None] = lambda event: None) -> Store:
    """Run what a plan lacks in this process, one unit of work after the other, without Ray or tables.

    Returns:
        The store, which then has all stages of the plan.

    Raises:
        Stopped: Ctrl-C or another signal asked for it; a training has saved a checkpoint.
        Exception: whatever a stage raises.
    """
    planned.runtime.resolve_device()  # before anything is set aside for it
    store = planned.store or open_store(planned.where)
    planned = set_aside(planned)
    interrupted = threading.Event()
    with ends_in_order(interrupted.set):
        for work in planned.plan.works:
            on_event(Event("started", work))

            def report(step: int, metrics: Mapping[str, float]) -> None:
                on_event(Event("progress", work, {"step": step, **metrics}))  # noqa: B023  (called before the next work)
                if interrupted.is_set():
                    raise Stopped

            perform(work, store, runtime=planned.runtime, report=report)
            on_event(Event("done", work))
    note_leaves(planned.plan, store)
    return store
