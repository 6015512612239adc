"""The metrics that a sweep makes of an evaluation's clicks, beside those that its summary has (`samref.derived`)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from samref import derived, plugins
from samref.config import EvaluateConfig
from samref.stage import Stage
from samref_sweep.spec.sweep import Sweep
from samref_sweep.store.store import Store


class OwnMetrics:
    """Makes the sweep's own metrics of a finished stage; of other stages than evaluations none."""

    def __init__(self, sweep: Sweep, store: Store) -> None:
        self._names = [each.name for each in sweep.derived]
        self._store = store
        self.failed: dict[str, str] = {}
        """Function of a person's own → how it failed first; what it fails on is left out."""

    def __call__(self, stage: Stage) -> dict[str, float]:
        """The metrics of a stage, by name."""
        if not self._names or stage.kind != "evaluate":
            return {}
        config, file = stage.evaluate, partial(self._store.file, stage.id)
        found = derived.values([name for name in self._names if not plugins.is_plugin(name)], file, config)
        for name in filter(plugins.is_plugin, self._names):
            try:
                found |= derived.values([name], file, config)
            except plugins.PluginError as error:
                self.failed.setdefault(name, str(error))
        return found


def unmeasured(
    sweep: Sweep, evaluations: Iterable[EvaluateConfig], samples_of: Callable[[EvaluateConfig], Sequence[str] | None]
) -> Iterator[str]:
    """Say which of a sweep's own metrics none of its evaluations can have, in a line each.

    samples_of: the keys of an evaluation's samples; None where its dataset is not here, which may have anything.
    """
    distinct = {(each.data, each.samples, each.max_clicks, each.stop_at): each for each in evaluations}
    samples = {config: samples_of(config) for config in distinct.values()}
    for name in (each.name for each in sweep.derived if not plugins.is_plugin(each.name)):
        if not samples or any(keys is None or derived.is_told(name, keys, config) for config, keys in samples.items()):
            continue
        pattern, _, group = name.partition("@")
        if any(derived.is_told(pattern, keys or (), config) for config, keys in samples.items()):
            groups = dict.fromkeys(
                key.partition("/")[0] for keys in samples.values() for key in keys or () if "/" in key
            )
            why = f"no sample's key begins with {group}/; there are: {', '.join(groups) or 'no groups'}"
        else:
            why = "no evaluation has the clicks that it needs (evaluate.max_clicks, evaluate.stop_at)"
        yield f"metrics: {name} will be empty: {why}"
