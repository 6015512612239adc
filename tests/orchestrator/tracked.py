"""What the tests of MLflow ask of it: a sweep's runs, and their times."""

import time
from collections.abc import Callable
from typing import Any

from mlflow import MlflowClient

from samref_sweep.failures import Failure
from samref_sweep.planning.plan import Plan
from samref_sweep.record.tracker import Tracker
from samref_sweep.store.store import Store


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(300):
        if condition():
            return
        time.sleep(0.05)
    raise TimeoutError


def track(planned: Plan, store: Store, failures: dict[str, Failure] | None = None, uri: str = "") -> list[str]:
    warnings: list[str] = []
    tracker = Tracker(planned, store, uri or store.node.mlflow, warnings.append)
    tracker.close(planned.outcomes(store.done(), failures or {}), interrupted=False)
    return warnings


def runs_of(uri: str) -> dict[str, Any]:
    """By the id of the trial or training, the sweep's own by "", all runs that are not deleted."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("samref-sweep")
    found = {}
    for run in client.search_runs([experiment.experiment_id]) if experiment else ():
        name = run.data.tags.get("samref.trial") or run.data.tags.get("samref.stage") or ""
        assert name not in found
        found[name] = run
    return found


def times(uri: str) -> dict[str, tuple[int, int, str]]:
    return {name: (run.info.start_time, run.info.end_time, run.info.status) for name, run in runs_of(uri).items()}
