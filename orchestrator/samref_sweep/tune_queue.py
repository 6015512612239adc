"""The ready queue in the words of Ray Tune: its searcher, and the callback that tells it what Tune does not.

Written for Ray 2.60, whose `Searcher` is a developer's interface.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.search import Searcher

from samref.trial import Kind
from samref_sweep.plan import Failure
from samref_sweep.search import Queue
from samref_sweep.stages import Event
from samref_sweep.store import Store

PROGRESS = "progress/"


@dataclass(frozen=True)
class Request:
    """CPUs and GPUs of one unit of work, in numbers."""

    cpu: float
    gpu: float


class TuneQueue(Searcher):
    """The queue in the words of Tune: a Tune trial is a unit of work, told apart by Tune's trial id."""

    def __init__(
        self,
        queue: Queue,
        store: Store,
        requests: Mapping[Kind, Request],
        jobs: int | None,
        on_event: Callable[[Event], None],
    ) -> None:
        super().__init__()
        self.queue = queue
        self.failures: dict[str, Failure] = {}
        self._store = store
        self._requests = requests
        self._jobs = jobs
        self._on_event = on_event
        self._numbers: dict[str, int] = {}
        self._trials: dict[str, Any] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if self.queue.exhausted:
            return Searcher.FINISHED  # type: ignore[return-value]  # Ray's annotation forgets it
        if self._jobs and self.queue.num_running >= self._jobs:
            return None
        taken = self.queue.take()
        if taken is None:
            return None
        number, work = taken
        self._numbers[trial_id] = number
        request = self._requests[work.kind]
        # As text: Tune copies and flattens a trial's configuration again and again.
        return {"number": number, "work": json.dumps(work.to_json()), "cpu": request.cpu, "gpu": request.gpu}

    def on_trial_start(self, trial: Any) -> None:
        self._trials[trial.trial_id] = trial
        self._on_event(Event("started", self.queue.work(self._numbers[trial.trial_id])))

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        # Tune flattens what was reported: {"progress": {"step": 1}} comes as {"progress/step": 1}.
        metrics = {key.removeprefix(PROGRESS): value for key, value in result.items() if key.startswith(PROGRESS)}
        if metrics:
            self._on_event(Event("progress", self.queue.work(self._numbers[trial_id]), metrics=metrics))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        number = self._numbers[trial_id]
        work = self.queue.work(number)
        done = [stage.id for stage in work.stages if self._store.has(stage.id)]
        failure = None
        if len(done) < len(work.stages):
            reason = (result or {}).get("reason") or _why_lost(self._trials.get(trial_id))
            failure = Failure(reason, (result or {}).get("log") or str(self._store.logs / f"{work.id}.log"))
            self.failures.update({stage.id: failure for stage in work.stages if stage.id not in done})
        self.queue.finish(number, done)
        self._trials.pop(trial_id, None)
        self._on_event(Event("failed" if failure else "done", work, failure=failure))

    # Tune snapshots and pickles its searcher and callbacks; ours are made anew from the store.
    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None: ...

    def save(self, checkpoint_path: str) -> None: ...

    def restore(self, checkpoint_path: str) -> None: ...


def _why_lost(trial: Any) -> str:
    """The end of what Ray wrote about the worker of a Tune trial that gave no answer."""
    try:
        lines = Path(trial.error_file).read_text().split("\n")
        last = next(line for line in reversed(lines) if line.strip()).strip()
    except (OSError, TypeError, AttributeError, StopIteration):
        last = "killed, out of memory, or its node went away"
    return f"its worker process was lost: {last}"


class Started(TrialProgressCallback):
    """Tells the searcher when a trial gets its resources; Tune tells searchers only of results and ends.

    A TrialProgressCallback, because Tune adds one that prints each trial unless it is given its own.
    """

    def __init__(self, searcher: TuneQueue) -> None:
        super().__init__()
        self._searcher = searcher

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._searcher.on_trial_start(trial)

    def on_trial_result(self, *args: Any, **info: Any) -> None: ...

    def on_trial_error(self, *args: Any, **info: Any) -> None: ...

    def on_trial_complete(self, *args: Any, **info: Any) -> None: ...
