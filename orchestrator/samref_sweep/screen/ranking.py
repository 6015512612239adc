"""The table at the end of a run: a sweep's configurations, with means and deviations over their seeds."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from samref.measures import heading, kind_of, measured_of
from samref.repetitions import SEEDS
from samref.stage import Stage
from samref.summary import Summary
from samref_sweep.planning.configurations import (
    Configuration,
    Measured,
    best,
    configurations,
    goal,
    headlines,
    mean_text,
    show,
    words,
)
from samref_sweep.planning.own_metrics import OwnMetrics
from samref_sweep.planning.plan import Outcome, Plan
from samref_sweep.spec.settings import short_names
from samref_sweep.store.store import Store

ROWS = 100
"""Configurations in the table; the Parquet tables have all."""


@dataclass(frozen=True)
class Ranking:
    """A sweep's configurations with means and deviations over their seeds, for the end of a run."""

    plan: Plan
    outcomes: Sequence[Outcome]
    measured: Measured

    def table(self) -> Table:
        """A row for each configuration: its axes, its means, how many seeds they are made of, and what is not done."""
        names, axes = headlines(self.plan), short_names(self.plan.sweep.axes)
        shown = [axis for axis in self.plan.sweep.axes if axis not in SEEDS]
        table = Table(box=None, pad_edge=False)
        for column in (*(axes[axis] for axis in shown), *map(heading, names), "n", ""):
            table.add_column(column, overflow="fold")
        for each, state in self._rows()[:ROWS]:
            means = [each.summary(name, self.measured) for name in names]
            values = [show(each.values[axis]) if axis in each.values else "" for axis in shown]
            count = next((mean.count for mean in means if mean), "0")
            table.add_row(*values, *(mean_text(mean) if mean else "" for mean in means), count, state)
        return table

    def best(self) -> str:
        """The best configuration, in words; empty where none is measured."""
        metric = goal(self.plan)
        every = configurations(self.plan)
        if (found := best(every, metric, self.measured)) is None:
            return ""
        means = [summary.mean for each in every if (summary := each.summary(metric.name, self.measured))]
        if (alike := means.count(found[1].mean)) > 1:
            return f"best {heading(metric.name)}: {mean_text(found[1])}, alike in {alike} configurations"
        where = words(found[0].values, short_names(self.plan.sweep.axes))
        text = f"best {heading(metric.name)}: {mean_text(found[1])}" + (f" with {where}" if where else "")
        return f"{text}, n = {found[1].count}"

    def values(self) -> list[dict[str, Any]]:
        """Give the ranking as plain values."""
        return [
            {
                "values": dict(each.values),
                "trials": [trial.id for trial in each.trials],
                "metrics": {
                    name: {"mean": mean.mean, "std": mean.std, "n": mean.n}
                    for name in headlines(self.plan)
                    if (mean := each.summary(name, self.measured))
                },
            }
            for each, _ in self._rows()
        ]

    def _rows(self) -> list[tuple[Configuration, str]]:
        by_trial = {trial.id: outcome.status for trial, outcome in zip(self.plan.trials, self.outcomes, strict=True)}
        rows = []
        for each in configurations(self.plan):
            counts = Counter(by_trial[trial.id] for trial in each.trials)
            rows.append((each, ", ".join(f"{count} {status}" for status, count in counts.items() if status != "done")))
        return rows


def ranking(plan: Plan, outcomes: Sequence[Outcome], store: Store) -> Ranking:
    """What a sweep measured of its configurations, from what the store holds."""
    kinds, done = {kind_of(name) for name in headlines(plan)}, store.done()

    def summary(stage: Stage) -> Summary | None:
        # Unchecked: the tables compared the files a moment ago.
        return store.summary(stage.id, checked=False) if stage.kind in kinds and stage.id in done else None

    own = OwnMetrics(plan.sweep, store)
    by_trial = {trial.id: measured_of(trial, summary, own) for trial in plan.trials}
    return Ranking(plan, outcomes, lambda trial: by_trial[trial.id])


def result_table(ranked: Ranking) -> None:
    """Print the configurations, and the best of them."""
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160).print(ranked.table())
    if (more := len(configurations(ranked.plan)) - ROWS) > 0:
        print(f"… and {more} more configurations, in trials.parquet")
    if text := ranked.best():
        print(text)
