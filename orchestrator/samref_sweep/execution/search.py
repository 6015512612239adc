"""Adaptive search: a plan that grows by what Optuna suggests (written for Optuna 5). Knows nothing of Ray."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import mean
from typing import Any

from samref.measures import kind_of, measured_of
from samref.stage import Stage, digest
from samref.summary import Summary
from samref.trial import Fingerprints, Trial
from samref_sweep.errors import StoreError
from samref_sweep.failures import Failure
from samref_sweep.planning.own_metrics import OwnMetrics
from samref_sweep.planning.plan import grow, leaves, plan
from samref_sweep.planning.work import Work
from samref_sweep.spec.axes import Dimension
from samref_sweep.spec.space import MISSES
from samref_sweep.spec.sweep import Sweep
from samref_sweep.store.store import Store

PATIENCE = 10
"""Suggestions in succession that are nothing new, after which points are drawn at random."""


class Search:
    """A plan that grows by Optuna's suggestions, each of which becomes the stages that it still needs.

    What was suggested is kept in a file of the store, one line each; what came of it is in the store anyway. So a
    search that was killed, or is given more `trials`, goes on by asking Optuna the same again.
    """

    def __init__(self, sweep: Sweep, fingerprints: Fingerprints, store: Store) -> None:
        assert sweep.search is not None
        self.wanted = sweep.search
        self.plan = plan(sweep, fingerprints, store.done())
        self._store = store
        self._fingerprints = fingerprints
        self._objectives = sweep.objectives
        self._own = OwnMetrics(sweep, store)
        self._search = self._name()
        self._journal = store.journal(f"searches/{self._search}.jsonl")
        self._searches = store.journal(f"searched/{digest('sweep', {'name': sweep.name})}.jsonl")
        self._open: list[tuple[Any, tuple[Trial, ...]]] = []
        """Optuna's name of each point whose outcome it was not told yet, and its trials, one for each seed."""
        self._failures: dict[str, Failure] = {}
        self._asked = 0
        suggested = self._journal.read()
        self._written = len(suggested)
        self.anew = "" if suggested else self._anew(sweep.name)
        """Says that the sweep's search is another than before; empty where it is not."""
        self._study = self._new_study(len(suggested))
        for params in suggested[: self.wanted.trials]:
            self._study.enqueue_trial(params)
            self.more()
            self.settle({})

    @property
    def num_open(self) -> int:
        """Suggestions whose outcome is not known yet."""
        return len(self._open)

    @property
    def num_left(self) -> int:
        """Suggestions that can still be made."""
        return self.wanted.trials - self._asked

    def more(self) -> tuple[Work, ...]:
        """Make a suggestion that was not made before; the work that it needs and that was not planned before.

        Optuna suggests the same again, NSGA-II as the child of equal parents, TPE where it was good. As an excluded
        point, that counts for nothing; after some of them, a random point serves.
        """
        for miss in range(MISSES):
            self._study.sampler = self._sampler if miss < PATIENCE else self._random
            asked = self._study.ask()
            params: dict[str, Any] = {}
            points = self.wanted.space.repeats(self.wanted.space.sample(partial(_suggest, asked, params)))
            planned, trials, works = grow(self.plan, self.wanted.space.expand(points), points, self._fingerprints)
            if len(planned.trials) > len(self.plan.trials):
                break
            self._study.tell(asked, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._asked = self.wanted.trials
            return ()
        self.plan = planned
        self._asked += 1
        if self._asked > self._written:
            if not self._written:
                self._searches.append({"search": self._search})
            self._journal.append(params)
            self._written += 1
        self._open.append((asked, trials))
        return works

    def settle(self, failures: Mapping[str, Failure]) -> None:
        """Tell Optuna the outcome of every suggestion that has one: its metrics' means over the seeds.

        `failures` are those of stages (by id) since the last call, or all of them.
        """
        self._failures.update(failures)
        for asked, trials in list(self._open):
            stages, values = [stage for trial in trials for stage in trial.stages], None
            if all(self._store.has(stage.id) for trial in trials for stage in leaves(trial)):
                values = self._values(trials)
            elif not any(stage.id in self._failures and not self._store.has(stage.id) for stage in stages):
                continue
            self._open.remove((asked, trials))
            self._study.tell(asked, values, state=None if values else self._optuna.trial.TrialState.FAIL)

    def _anew(self, sweep: str) -> str:
        """What to say where the sweep of that name was searched before, and this search goes on from none."""
        before = self._searches.read()
        if not before or before[-1]["search"] == self._search:
            return ""
        known = len(self._store.journal(f"searches/{before[-1]['search']}.jsonl").read())
        return (
            f"the search of {sweep} begins anew: what it suggested before ({known} of its points) was for other axes, "
            "settings, seeds or another metric; stages that are done are used again"
        )

    def _values(self, trials: Sequence[Trial]) -> list[float] | None:
        """Each metric's mean over trials; None where one was not measured."""
        columns: list[list[float]] = [[] for _ in self._objectives]
        for trial in trials:
            try:
                measured = measured_of(trial, self._summary, self._own)
            except StoreError:
                return None
            for objective, column in zip(self._objectives, columns, strict=True):
                if objective.name not in measured:
                    return None
                column.append(measured[objective.name])
        return [mean(column) for column in columns]

    def _summary(self, stage: Stage) -> Summary | None:
        """The summary of a stage that measures what is looked for; None of any other, or one that is not done."""
        wanted = any(kind_of(each.name) == stage.kind for each in self._objectives)
        return self._store.summary(stage.id) if wanted and self._store.has(stage.id) else None

    def _new_study(self, suggested: int) -> Any:
        import optuna

        self._optuna = optuna
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # Another seed each time, else a search that goes on would begin with its first random draws again.
        seed = self.wanted.seed + suggested
        if len(self._objectives) == 1:
            # Of few trials no more than a third is drawn at random before Optuna looks at what was good.
            startup = min(10, -(-self.wanted.trials // 3))
            self._sampler: Any = optuna.samplers.TPESampler(seed=seed, constant_liar=True, n_startup_trials=startup)
        else:
            # At least three generations, where Optuna's own would take fifty trials for the first.
            population = max(2, min(50, self.wanted.trials // 3))
            self._sampler = optuna.samplers.NSGAIISampler(seed=seed, population_size=population)
        self._random = optuna.samplers.RandomSampler(seed=seed)
        return optuna.create_study(directions=[each.direction for each in self._objectives])

    def _name(self) -> str:
        space = self.wanted.space
        return digest(
            "search",
            {
                "trial": space.base,
                "axes": [dataclasses.asdict(dimension) | {"place": None} for dimension in space.ordered()],
                "seeds": [row["train.seed"] for row in space.seeds.rows] if space.seeds else None,
                "metrics": [(each.name, each.direction) for each in self._objectives],
                "seed": self.wanted.seed,
            },
        )


def _suggest(asked: Any, params: dict[str, Any], dimension: Dimension) -> Mapping[str, Any]:
    """Optuna's choice for one axis; noted in `params` as Optuna wants it back."""
    name = "+".join(dimension.keys)
    if dimension.range is None:
        row: int
        row = params[name] = asked.suggest_categorical(name, list(range(len(dimension.rows))))
        return dimension.rows[row]
    low, high, log = dimension.range.low, dimension.range.high, dimension.range.log
    if dimension.range.integer:
        params[name] = asked.suggest_int(name, int(low), int(high), log=log)
    else:
        params[name] = asked.suggest_float(name, low, high, log=log)
    return {name: params[name]}
