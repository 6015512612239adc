"""What a sweep may cost, and what it has cost. Knows nothing of Ray."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from samref.summary import Summary
from samref_sweep.errors import DamagedError
from samref_sweep.planning.plan import Plan
from samref_sweep.spec.policy import Budget
from samref_sweep.store.store import Store

Clock = Callable[[], float]
"""Seconds since any moment, as `time.monotonic` gives them."""


@dataclass(frozen=True)
class Charge:
    """What a unit of work that runs is charged with."""

    since: float
    gpus: float
    """GPUs of each of its processes."""
    devices: int
    """Processes that it has."""
    before: float
    """Device-seconds of the stages that it needs (0 where trials have no budget), and of itself before `since`."""
    began: float


@dataclass
class Spending:
    """GPU-hours and hours that a sweep has spent so far, held against its budget."""

    budget: Budget
    gpu_seconds: float = 0.0
    """GPU-seconds of stages that ended, also in earlier runs."""
    clock: Clock = time.monotonic
    running: dict[int, Charge] = field(default_factory=dict)
    """Number of each unit of work that runs → its charge."""

    def __post_init__(self) -> None:
        self._began = self.clock()

    def start(self, number: int, gpus: float, devices: int, before: float) -> None:
        """Count what a unit of work takes from now on."""
        now = self.clock()
        self.running[number] = Charge(now, gpus, devices, before, now)

    def resize(self, number: int, devices: int) -> None:
        """Charge a unit of work for so many processes from now on."""
        charge = self.running[number]
        if devices != charge.devices:
            now = self.clock()
            seconds = charge.devices * (now - charge.since)
            self.gpu_seconds += charge.gpus * seconds
            self.running[number] = replace(charge, since=now, devices=devices, before=charge.before + seconds)

    def end(self, number: int) -> float:
        """Count a unit of work no longer, whether it has an output or not; gives the seconds that it ran."""
        charge = self.running.pop(number, None)
        if charge is None:
            return 0.0
        now = self.clock()
        self.gpu_seconds += charge.gpus * charge.devices * (now - charge.since)
        return now - charge.began

    def exceeded(self) -> str | None:
        """Which of the sweep's bounds is reached, and what to do about it; None while none is."""
        now = self.clock()
        hours = (now - self._began) / 3600
        if self.budget.hours is not None and hours >= self.budget.hours:
            return f"budget.hours, {self.budget.hours:g}, is used up; the same command goes on from here"
        used = self.gpu_seconds + sum(each.gpus * each.devices * (now - each.since) for each in self.running.values())
        if self.budget.gpu_hours is not None and used / 3600 >= self.budget.gpu_hours:
            return (
                f"budget.gpu_hours, {self.budget.gpu_hours:g}, are used up; "
                "the same command with a larger --set budget.gpu_hours=… goes on from here"
            )
        return None

    def exceeded_by_trial(self, number: int) -> str | None:
        """Whether the trials that need a running unit of work are over their bound, and what to do; None if not."""
        if self.budget.trial_hours is None:
            return None
        charge = self.running[number]
        used = charge.before + charge.devices * (self.clock() - charge.since)
        if used / 3600 < self.budget.trial_hours:
            return None
        return (
            f"budget.trial_hours, {self.budget.trial_hours:g}, are used up; --retry-failed with a larger "
            "--set budget.trial_hours=… goes on from here"
        )


def spent(plan: Plan, store: Store, clock: Clock = time.monotonic) -> Spending:
    """What a sweep has spent in earlier runs, from the stages of its plan that the store holds."""
    spending = Spending(plan.sweep.budget, clock=clock)
    if plan.sweep.budget.gpu_hours is not None:
        done = filter(None, (sound(store, stage_id) for stage_id in store.done().intersection(plan.stages)))
        spending.gpu_seconds = sum(each.device_seconds for each in done if each.device.startswith("cuda"))
    return spending


def sound(store: Store, stage_id: str) -> Summary | None:
    """A finished stage's summary; None where its files are damaged, so that it is made anew and counted then."""
    try:
        return store.summary(stage_id)
    except DamagedError:
        return None
