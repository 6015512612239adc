"""What a sweep may cost, and what it has cost. Knows nothing of Ray."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from samref_sweep.spec.policy import Budget


@dataclass
class Spending:
    """GPU-hours and hours spent so far."""

    budget: Budget
    gpu_seconds: float = 0.0
    """Of stages that ended, also in earlier runs."""
    since: float = field(default_factory=time.monotonic)
    running: dict[str, tuple[float, float]] = field(default_factory=dict)
    """What runs → when it started, and its GPUs."""

    def start(self, name: str, gpus: float) -> None:
        """A unit of work starts."""
        self.running[name] = (time.monotonic(), gpus)

    def end(self, name: str) -> None:
        """A unit of work ended, with an output or without."""
        started, gpus = self.running.pop(name, (0.0, 0.0))
        self.gpu_seconds += gpus * (time.monotonic() - started)

    def exceeded_by_trial(self, name: str, before: float, devices: int) -> str | None:
        """The same of the trials that need a unit of work that runs.

        Args:
            name: the unit of work's, as told to `start`.
            before: device-seconds of the stages that it needs.
            devices: how many it uses, or CPU processes.
        """
        if self.budget.trial_hours is None:
            return None
        used = before + devices * (time.monotonic() - self.running[name][0])
        if used / 3600 < self.budget.trial_hours:
            return None
        return (
            f"budget.trial_hours, {self.budget.trial_hours:g}, are used up; --retry-failed with a larger "
            "--set budget.trial_hours=… goes on from here"
        )

    def exceeded(self) -> str | None:
        """Which bound is reached, and what to do about it; None while none is."""
        now = time.monotonic()
        hours = (now - self.since) / 3600
        if self.budget.hours is not None and hours >= self.budget.hours:
            return f"budget.hours, {self.budget.hours:g}, is used up; the same command goes on from here"
        used = self.gpu_seconds + sum(gpus * (now - started) for started, gpus in self.running.values())
        if self.budget.gpu_hours is not None and used / 3600 >= self.budget.gpu_hours:
            return (
                f"budget.gpu_hours, {self.budget.gpu_hours:g}, are used up; "
                "the same command with a larger --set budget.gpu_hours=… goes on from here"
            )
        return None
