"""Runs a plan on Ray Tune: one `Tuner.fit` whose searcher is the dispatcher, one Tune trial per unit of work.

Tune knows no dependencies between its trials, but asks its searcher for the next one: `suggest` answers with a unit
of work whose needs are done, with None ("nothing can start now") or with FINISHED. Tune's own state is thrown away:
what is done is what is in the store. Written for Ray 2.60.
"""

import contextlib
import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import tune

from samref.config import Runtime
from samref_sweep.errors import StoreError
from samref_sweep.execution.dispatch import Dispatcher, Ending
from samref_sweep.execution.ray.cluster import check_store, connected
from samref_sweep.execution.ray.messages import StopSign
from samref_sweep.execution.ray.presence import Gone
from samref_sweep.execution.ray.searcher import DrainStopper, NoIdleWorkers, OrderSearcher, StartCallback
from samref_sweep.execution.ray.worker import reserved, trainable
from samref_sweep.execution.requests import resolve_all
from samref_sweep.execution.search import Search
from samref_sweep.execution.seed_by_seed import SeedBySeed
from samref_sweep.execution.unit import Runner, run_watched
from samref_sweep.failures import causes, classify
from samref_sweep.planning.plan import Plan
from samref_sweep.planning.work import Event
from samref_sweep.store.locks import held, lock
from samref_sweep.store.store import Store

POLL_SECONDS = 0.2
PREFIX = "samref-tune-"
LEFT_SECONDS = 60.0
"""How old a folder is at least that a killed driver left: a younger one may be about to be held."""
END_SECONDS = 9.0
"""What Tune has for its end: workers have `watchdog.STOP_SECONDS`, and then are exited and found lost. Slurm and
container runtimes kill ten seconds (or thirty) after their SIGTERM, and the tables come after."""
FULL = "a disk is full or broken; make room, and the same command goes on from here"
LEFT = "the Ray cluster does not answer; the same command goes on from here"


def execute(
    plan: Plan,
    store: Store,
    *,
    runtime: Runtime,
    on_event: Callable[[Event], None],
    runner: Runner = run_watched,
    address: str | None = None,
    jobs: int | None = None,
    search: Search | SeedBySeed | None = None,
    interrupted: threading.Event | None = None,
) -> Ending:
    """Do a plan's work on Ray, as `samref_sweep.driver.run` says; `runner` runs stages in the workers.

    Of the runtime the folders count: device and threads follow from the requests. A search adds work to the plan, which
    is its, as results come in. What sets `interrupted` ends what runs in order, within `END_SECONDS`.

    Raises:
        ResourceError: no node can serve a request, or processes cannot share a batch; nothing was run.
        StoreError: a node cannot write to the store; or it does not answer any more.
    """
    with connected(address) as nodes, _files_of_tune(store, address is None and len(nodes) == 1) as scratch:
        with store.probe() as probe:
            probe()
            if address is not None:
                check_store(store.where, probe)
        requests = resolve_all(plan, nodes, store.where, growing=search is not None)
        sign = StopSign(scratch.name)
        dispatcher = Dispatcher(plan, store, requests, on_event=on_event, stop=sign.show, jobs=jobs, search=search)
        tuner = _tuner(dispatcher, trainable(store.where, runtime, runner, sign), scratch)
        # Tune would tell how to restore it, which is not how to go on here.
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        return _fit(tuner, dispatcher, interrupted or threading.Event())


def _fit(tuner: tune.Tuner, dispatcher: Dispatcher, interrupted: threading.Event) -> Ending:
    """Let Tune run in a thread, which this one leaves when the sweep is to end, or its cluster is gone, and Tune waits.

    Ray's own calls wait a minute for a cluster that is gone, and then end the process.
    """
    failed: list[BaseException] = []
    over = threading.Event()

    def fit() -> None:
        try:
            tuner.fit()
        except BaseException as error:  # raised again below, in the thread that can handle it
            failed.append(error)
        finally:
            over.set()

    threading.Thread(target=fit, name="tune", daemon=True).start()
    gone = Gone()
    while not (over.wait(POLL_SECONDS) or interrupted.is_set() or gone.for_good()):
        pass
    if not over.is_set():
        # In a thread as well: it tells workers through a server that may be gone.
        threading.Thread(target=dispatcher.interrupt, name="interrupt", daemon=True).start()
        if (lost := gone.for_good()) or not over.wait(END_SECONDS):
            ending = dispatcher.ending
            return replace(ending, interrupted=True, reason=LEFT if lost or gone.for_good() else ending.reason)
    for error in failed:  # what the dispatcher raised, in Tune's words
        if classify(error) == "storage" and not any(isinstance(cause, StoreError) for cause in causes(error)):
            return replace(dispatcher.ending, interrupted=True, reason=f"{FULL} ({next(causes(error))})")
        raise next((cause for cause in causes(error) if isinstance(cause, StoreError)), error) from None
    return dispatcher.ending


@contextmanager
def _files_of_tune(store: Store, alone: bool) -> Iterator[Path]:
    """A folder for what Tune writes: several nodes must see it; one alone keeps it off the store's disk."""
    if not alone:
        with store.node.temporary("tune") as folder:
            yield folder
        return
    _clear_left()
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as name, held([Path(name)]):
        yield Path(name)


def _clear_left() -> None:
    """Remove Tune's folders of drivers on this machine that were killed: nobody holds those."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, or gone meanwhile
            if folder.stat().st_mtime < time.time() - LEFT_SECONDS:
                with lock(folder) as free:
                    if free:
                        shutil.rmtree(folder, ignore_errors=True)


def _tuner(dispatcher: Dispatcher, carry_out: Callable[[dict[str, Any]], None], scratch: Path) -> tune.Tuner:
    """The Tuner that carries out a dispatcher's orders; Tune's own files go into a folder of that name."""
    searcher = OrderSearcher(dispatcher)
    return tune.Tuner(
        tune.with_resources(carry_out, reserved),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=NoIdleWorkers(),  # type: ignore[no-untyped-call]
            num_samples=-1,  # until the searcher says FINISHED
            reuse_actors=True,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(
            name=scratch.name,
            storage_path=str(scratch.parent),
            verbose=0,
            stop=DrainStopper(dispatcher),
            # Exceptions of a stage are caught in the worker, so what Tune sees fail is a lost worker; the
            # dispatcher knows how often each kind of failure may be tried again.
            failure_config=tune.FailureConfig(max_failures=0),
            callbacks=[StartCallback(searcher)],
        ),
    )


def _name(trial: Any) -> str:
    return f"work-{trial.config['number']}"
