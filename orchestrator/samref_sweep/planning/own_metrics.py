"""The metrics that a sweep makes of an evaluation's clicks, beside those that its summary has (`samref.derived`)."""

from collections.abc import Callable
from functools import partial

from samref import derived
from samref.config import EvaluateConfig
from samref.stage import Stage
from samref_sweep.spec.sweep import Sweep
from samref_sweep.store.store import Store


def own_metrics(sweep: Sweep, store: Store) -> Callable[[Stage], dict[str, float]]:
    """Give the function of a finished stage that makes the sweep's own metrics of its clicks; of other stages none."""
    names = [each.name for each in sweep.derived]

    def of(stage: Stage) -> dict[str, float]:
        if not names or stage.kind != "evaluate":
            return {}
        return derived.values(names, partial(store.file, stage.id), EvaluateConfig(**stage.config["evaluate"]))

    return of
