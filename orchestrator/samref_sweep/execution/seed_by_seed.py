"""A plan that grows seed by seed until its differences are decided. Knows nothing of Ray."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from samref.trial import Fingerprints
from samref_sweep.failures import Failure
from samref_sweep.planning.decisions import decisions, values_of
from samref_sweep.planning.plan import Plan, grow, leaves, plan
from samref_sweep.planning.work import Work
from samref_sweep.spec.axes import SEED
from samref_sweep.spec.policy import FIRST_LOOK
from samref_sweep.spec.sweep import Sweep
from samref_sweep.store.store import Store

ALL = 1 << 30
"""More suggestions than there is room for: the next seed waits until this one is judged."""


def begin(sweep: Sweep, fingerprints: Fingerprints, done: Iterable[str]) -> Plan:
    """Plan the first seeds of a sweep, those before the first look."""
    later = _seeds(sweep)[FIRST_LOOK:]
    first = [each for each in zip(sweep.configs, sweep.points, strict=True) if each[1].get(SEED) not in later]
    part = replace(sweep, configs=tuple(config for config, _ in first), points=tuple(point for _, point in first))
    return replace(plan(part, fingerprints, done), sweep=sweep)


def _seeds(sweep: Sweep) -> list[Any]:
    return list(dict.fromkeys(point[SEED] for point in sweep.points if SEED in point))


class SeedBySeed:
    """A plan with the first seeds of a sweep, to which others are added while a difference is not decided.

    It remembers nothing: what was found is in the store, so a sweep that was killed goes on from there.
    """

    def __init__(self, sweep: Sweep, fingerprints: Fingerprints, store: Store) -> None:
        assert sweep.until is not None
        self._wanted = sweep.until
        self._fingerprints = fingerprints
        self._store = store
        self._seeds = _seeds(sweep)
        every = list(zip(sweep.configs, sweep.points, strict=True))
        self._of = {seed: [each for each in every if each[1].get(SEED) == seed] for seed in self._seeds}
        self._used = FIRST_LOOK
        self.plan = begin(sweep, fingerprints, store.done())
        self._open, self._over = True, False
        self.settle({})
        while not self._open and self.num_left:
            self.more()
            self.settle({})

    @property
    def num_open(self) -> int:
        """A number beyond all room while the seeds so far are not judged, else 0."""
        return ALL if self._open else 0

    @property
    def num_left(self) -> int:
        """Seeds that may still be needed."""
        return 0 if self._over else len(self._seeds) - self._used

    def more(self) -> tuple[Work, ...]:
        """Add the next seed's trials; the work that they need and that was not planned before."""
        configs, points = zip(*self._of[self._seeds[self._used]], strict=True)
        self._used += 1
        self._open = True
        self.plan, _, works = grow(self.plan, configs, points, self._fingerprints)
        return works

    def settle(self, failures: Mapping[str, Failure]) -> None:
        """Judge the differences, where all evaluations so far are there; one that failed ends the looking."""
        stages = self.plan.stages
        if any(stage in failures and not self._store.has(stage) for stage in stages):
            self._over = True
        elif self._open and all(self._store.has(leaf.id) for trial in self.plan.trials for leaf in leaves(trial)):
            values = values_of(self._store, self._wanted.until.metric)
            found = decisions(self.plan.trials, self.plan.points, self._wanted, values)
            self._open, self._over = False, all(each.decided for each in found)
