"""The dispatcher in the words of Ray Tune: its searcher, its callback and its stopper (written for Ray 2.60).

A Tune trial is one order. Tune asks its searcher for the next one, tells it of reports and ends, and has its own
words for each; nothing is decided here. Ray's `Searcher` is a developer's interface.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.exceptions import RayActorError
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from samref_sweep.execution import allotment
from samref_sweep.execution.dispatch import Dispatcher, Loss
from samref_sweep.execution.ray.messages import failure_in, order_in, order_to_config, progress_in
from samref_sweep.execution.requests import SHARED

OUT_OF_MEMORY = "running low on memory"
"""In the words of Ray's memory monitor."""
KILLED = "the kernel killed it because the memory of this job's control group was full"


class OrderSearcher(Searcher):
    """Gives Tune the dispatcher's orders as suggestions, and the dispatcher what Tune knows of them."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        super().__init__()
        self.dispatcher = dispatcher
        self._killed = allotment.killed()
        self.trials: Sequence[Any] = ()
        """Tune's own list of its trials, the newest last."""
        self._numbers: dict[str, int] = {}  # Tune's trial id → the order's number

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next order; None while nothing can start, and FINISHED when nothing will."""
        order = self.dispatcher.next()
        if order is None:
            return Searcher.FINISHED if self.dispatcher.over else None  # type: ignore[return-value]  # Ray forgets it
        self._numbers[trial_id] = order.number
        return order_to_config(order)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tell the dispatcher of a report."""
        if metrics := progress_in(result):
            self.dispatcher.progressed(self._numbers[trial_id], metrics)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the dispatcher of an end; Tune calls it an error when the worker was lost."""
        loss = None
        if error:
            lost = next((trial for trial in reversed(self.trials) if trial.trial_id == trial_id), None)
            before, self._killed = self._killed, allotment.killed()
            loss = _loss(lost) if self._killed == before else Loss(KILLED, "out_of_memory")
        self.dispatcher.ended(self._numbers[trial_id], failure_in(result), loss)

    # Tune snapshots and pickles its searcher and callbacks; ours are made anew from the store.
    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None: ...

    def save(self, checkpoint_path: str) -> None: ...

    def restore(self, checkpoint_path: str) -> None: ...


def _loss(trial: Any) -> Loss:
    """What Ray knows of the lost worker of a Tune trial."""
    try:
        error = trial.get_pickled_error()  # kept of errors of the actor only
        lines = Path(trial.error_file).read_text().split("\n")
        last = next(line for line in reversed(lines) if line.strip()).strip()
    except (OSError, TypeError, AttributeError, StopIteration):
        return Loss()
    if OUT_OF_MEMORY in "".join(lines):
        return Loss("Ray killed it because its node's memory was full", "out_of_memory")
    last = last.partition(" Some common causes")[0]  # which Ray lists, of any death, in as many lines again
    return Loss(last, counts=not (isinstance(error, RayActorError) and error.preempted))


class StartCallback(TrialProgressCallback):
    """Tells the dispatcher when an order gets its resources; Tune tells searchers only of results and ends.

    A TrialProgressCallback, because Tune adds one that prints each trial unless it is given its own.
    """

    def __init__(self, searcher: OrderSearcher) -> None:
        super().__init__()
        self._searcher = searcher

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._searcher.trials = trials

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._searcher.dispatcher.started(trial.config["number"])

    def on_trial_result(self, *args: Any, **info: Any) -> None: ...

    def on_trial_error(self, *args: Any, **info: Any) -> None: ...

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        # Tune keeps every trial to the end: half of that are statistics of what it reported, which nobody reads.
        trial.metric_analysis.clear()
        trial.metric_n_steps.clear()


class NoIdleWorkers(FIFOScheduler):
    """Tune's own order of trials, which keeps no idle worker while a stage has room for more of them.

    Tune keeps one when nothing is ready, for the next trial, and with it its resources, for which the workers of the
    stage would wait.
    """

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Let idle workers go whenever a stage of several reports, which it does each second."""
        order = order_in(trial.config)
        # No door of Tune's leads to it (Ray 2.60); without it the workers wait until the stage is done.
        let_go = getattr(tune_controller, "_cleanup_cached_actors", None)
        if let_go and order.request.workers > 1 and order.work.kind in SHARED:
            let_go(force_all=True)
        verdict: str = super().on_trial_result(tune_controller, trial, result)
        return verdict


class DrainStopper(Stopper):
    """Ends Tune's loop when the sweep was interrupted and nothing runs any more."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        """Look at the budgets, which Tune's loop does often, and tell whether the loop is to end."""
        self._dispatcher.check_budgets()
        return self._dispatcher.drained
