"""Asynchronous successive halving (ASHA, https://arxiv.org/abs/1810.05934): trainings that fall behind are stopped.

A training is judged when it reaches a rung (a number of steps): it goes on if its metric is among the best of those
that came there so far. Unlike Tune's own scheduler this one knows what earlier runs of the sweep saw, compares only
trainings of one kind, and lets the stopped training end in order, with a checkpoint. Knows nothing of Ray.
"""

from collections.abc import Iterable, Mapping

from samref.stage import Stage, canonical
from samref_sweep.spec.policy import Scheduler
from samref_sweep.store.journal import Journal

LATE = 0.02
"""Share of its steps by which a training may report after a rung and still be compared there."""


class Halving:
    """What trainings had at their rungs, kept in a journal, and the verdict on each that reaches one."""

    def __init__(self, scheduler: Scheduler, stages: Iterable[Stage], journal: Journal) -> None:
        self._scheduler = scheduler
        self._journal = journal
        # What `_comparable` gives, and the rung → training → its metric there.
        self._values: dict[tuple[str, int], dict[str, float]] = {}
        known = {stage.id: stage for stage in stages if stage.kind == "train"}
        for entry in journal.read():
            if entry["metric"] == scheduler.metric and entry["stage"] in known:
                self._add(known[entry["stage"]], entry["rung"], entry["value"])

    def rungs(self, stage: Stage) -> list[int]:
        """The steps at which a stage is judged; none for one that does not train."""
        if stage.kind != "train":
            return []
        steps, rungs = stage.train.steps, []
        rung = self._scheduler.grace_steps or max(1, steps // self._scheduler.reduction**2)
        while 2 * rung <= steps:  # later than half-way, stopping saves little and loses a whole result
            rungs.append(rung)
            rung *= self._scheduler.reduction
        return rungs

    def judge(self, stage: Stage, metrics: Mapping[str, float]) -> str | None:
        """Why a training is to stop, given what it just reported; None: it goes on."""
        step, value = metrics.get("step"), metrics.get(self._scheduler.metric)
        if step is None or value is None:
            return None
        rung = max((rung for rung in self.rungs(stage) if rung <= step), default=None)
        if rung is None or stage.id in self._values.get((_comparable(stage), rung), {}):
            return None
        if step > rung + max(1, LATE * stage.train.steps):
            return None  # it went on from a checkpoint behind the rung
        entry = {"stage": stage.id, "metric": self._scheduler.metric, "rung": rung, "value": value}
        self._journal.append(entry)
        others = self._add(stage, rung, value)
        rank = sum(other <= value for other in others.values())
        if rank <= -(-len(others) // self._scheduler.reduction):
            return None
        return (
            f"stopped by asha at step {step:g}: its {self._scheduler.metric}, {value:.4g}, was number {rank} of the "
            f"{len(others)} trainings that came to step {rung}; one in {self._scheduler.reduction} goes on"
        )

    def _add(self, stage: Stage, rung: int, value: float) -> Mapping[str, float]:
        values = self._values.setdefault((_comparable(stage), rung), {})
        values[stage.id] = value
        return values


def _comparable(stage: Stage) -> str:
    """What trainings must have in common to be compared: data, modules, steps, and whether one went before."""
    return canonical([stage.key["data"], list(stage.key["modules"]), stage.train.steps, "init" in stage.needs])
