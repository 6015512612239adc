"""What happened so far and what runs now, counted for all displays."""

import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from samref.measures import heading, kind_of, measured
from samref.stage import Kind
from samref.trial import Trial
from samref_sweep.planning.configurations import best, common, configurations, goal, mean_text, words
from samref_sweep.planning.own_metrics import OwnMetrics
from samref_sweep.planning.plan import Count, Plan, leaves
from samref_sweep.planning.work import KINDS, Event, Work
from samref_sweep.spec.settings import short_names
from samref_sweep.store.store import Store

WORDS: Mapping[Kind, str] = {"embed": "embedding", "train": "training", "evaluate": "evaluation", "profile": "profile"}


def plural(kind: Kind, count: int) -> str:
    """`training` or `trainings`."""
    return WORDS[kind] + "s" * (count != 1)


def clock(seconds: float) -> str:
    """`3:05`, `12:03:05`"""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def until(left: float) -> str:
    """The time that is left; `?` where an estimate is exceeded."""
    return clock(left) if left > -1 else "?"


def took(seconds: float) -> str:
    """`0.4 s`, `4:30`"""
    return f"{seconds:.1f} s" if seconds < 10 else clock(seconds)


@dataclass
class Running:
    """A unit of work that runs."""

    work: Work
    since: float = field(default_factory=time.monotonic)
    metrics: Mapping[str, float] = field(default_factory=dict)
    first: tuple[float, float] | None = None
    """When the work first reported, and its step then, which is not 0 where it went on from a checkpoint."""
    last: tuple[float, float] = (0.0, 0.0)
    """When the work last reported, and its step then."""

    def tell(self, metrics: Mapping[str, float]) -> None:
        """Note what a unit of work reported."""
        self.metrics = metrics
        self.last = (time.monotonic(), metrics.get("step", 0))
        self.first = self.first or self.last

    def rate(self) -> float | None:
        """Steps per second; None before the second report."""
        if self.first is None or self.last[1] <= self.first[1]:
            return None
        return (self.last[1] - self.first[1]) / max(1e-9, self.last[0] - self.first[0])

    def left(self) -> float | None:
        """Seconds to its end, if it goes on at this rate; less than none where it should have ended."""
        rate, total = self.rate(), self.metrics.get("total")
        if not rate or not total:
            return None
        return (total - self.last[1]) / rate - (time.monotonic() - self.last[0])

    def cells(self) -> tuple[str, str, str, str]:
        """Step of all, rate and time left, what it reports of itself, and its time."""
        step, total = self.metrics.get("step"), self.metrics.get("total")
        steps = f"{step:g}/{total:g}" if step is not None and total else ""
        rate, left = self.rate(), self.left()
        speed = f"{rate:.3g}/s" + (f", {until(left)} left" if left is not None else "") if rate else ""
        own = {name: value for name, value in self.metrics.items() if not name.startswith("system/")}
        told = [f"{name} {value:.4g}" for name, value in own.items() if name not in ("step", "total")]
        return steps, speed, told[0] if told else "", clock(time.monotonic() - self.since)


class Tally:
    """Counts what happened so far, and keeps what runs now: displays write what it says."""

    def __init__(self, plan: Callable[[], Plan], store: Store, starts: str = "") -> None:
        self._current = plan
        self._starts = starts
        """What is waited for until the first unit of work starts."""
        self._store = store
        self._began = time.monotonic()
        self._seconds: defaultdict[Kind, list[float]] = defaultdict(list)
        self._finished: Counter[Kind] = Counter()
        self._failed: Counter[Kind] = Counter()
        self._most_running = 1
        self._lacking: dict[str, set[str]] = {}  # trial → leaves that are not done
        self._values: dict[str, float] = {}  # stage → what it measured of the metric that the sweep looks for
        self._best: str | None = None
        self.running: dict[str, Running] = {}
        self._follow()
        for stage_id in set(self._leaf_of) & self._plan.done:
            self._note(stage_id)

    def add(self, event: Event) -> None:
        """Count one event."""
        if self._current() is not self._plan:
            self._follow()
        work, self._starts = event.work, ""
        if event.kind == "started":
            self.running[work.id] = Running(work)
            self._most_running = max(self._most_running, len(self.running))
        elif event.kind == "progress":
            self.running.setdefault(work.id, Running(work)).tell(event.metrics)
        else:
            ended = self.running.pop(work.id, None)
            if event.kind == "done":
                self._finished[work.kind] += len(work.stages)
                self._seconds[work.kind] += [time.monotonic() - ended.since] if ended else []
                self._finish(work)
            elif event.kind == "failed":
                self._failed[work.kind] += len(work.stages)

    def about(self, work: Work) -> str:
        """What the trials that need a unit of work have in common, of the axes."""
        points = [point for stage in work.stages for point in self._needed_by.get(stage.id, ())]
        return words(common(points), self._names)

    def head(self) -> str:
        """One line: trials done of all, time, time left, and the best."""
        done, total = sum(not lacking for lacking in self._lacking.values()), len(self._lacking)
        if wanted := self._plan.sweep.search:
            total = max(total, wanted.trials * (len(wanted.space.seeds.rows) if wanted.space.seeds else 1))
        parts = [f"{self._plan.sweep.name}: {done} of {total} trials done"]
        parts.append(clock(time.monotonic() - self._began))
        parts += [self._starts] if self._starts else []
        # What a search will suggest is not in its plan yet.
        if done < total == len(self._lacking) and (left := self._left()) is not None:
            parts.append(f"about {until(left)} left" if left > -1 else "? left")
        if best := self._best_text():
            parts.append(best)
        return " · ".join(parts)

    def kind_rows(self) -> Iterator[tuple[Kind, str, str, str, str, str]]:
        """For each kind of stage: done, running, to do, failed, and the seconds of one unit of work."""
        for kind, count in self._counts.items():
            running = sum(len(each.work.stages) for each in self.running.values() if each.work.kind == kind)
            finished, failed = self._finished[kind], self._failed[kind]
            to_do = max(0, count.to_do - finished - failed - running)
            seconds = self._seconds[kind]
            each = took(mean(seconds)) if seconds else ""
            yield kind, str(count.done + finished), str(running or ""), str(to_do or ""), str(failed or ""), each

    def running_rows(self, limit: int | None = None) -> Iterator[tuple[str, ...]]:
        """For each unit of work that runs: its name, its trials, step, rate, and what it reports."""
        for each in list(self.running.values())[:limit]:
            yield each.work.id, self.about(each.work), *each.cells()
        if limit is not None and len(self.running) > limit:
            yield f"… and {len(self.running) - limit} more", "", "", "", "", ""

    def _follow(self) -> None:
        """Take over the plan; a search's has more trials each time."""
        self._plan = self._current()
        self._counts: Mapping[Kind, Count] = self._plan.counts()
        self._needed_by: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
        self._leaf_of: defaultdict[str, list[str]] = defaultdict(list)
        self._names = short_names(self._plan.sweep.axes)
        self._configurations = configurations(self._plan)
        self._goal, self._best = goal(self._plan), None
        self._own = OwnMetrics(self._plan.sweep, self._store)
        done = self._store.done()
        for trial, point in zip(self._plan.trials, self._plan.points, strict=True):
            for stage in trial.stages:
                self._needed_by[stage.id].append(point)
            own = [stage.id for stage in leaves(trial)]
            self._lacking[trial.id] = set(own) - done
            for stage_id in own:
                self._leaf_of[stage_id].append(trial.id)

    def _finish(self, work: Work) -> None:
        for stage in work.stages:
            for trial_id in self._leaf_of.get(stage.id, ()):
                self._lacking[trial_id].discard(stage.id)
            self._note(stage.id)

    def _note(self, stage_id: str) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            # Unchecked: the tables compare the files' hashes, and ten thousand of them take a while.
            summary = self._store.summary(stage_id, checked=False)
            value = {**measured(summary), **self._own(summary.stage)}.get(self._goal.name)
            if value is not None:
                self._values[stage_id], self._best = value, None

    def _best_text(self) -> str:
        """The best mean of a configuration so far; empty while none is measured."""
        if self._best is None:
            kind, name = kind_of(self._goal.name), self._goal.name

            def value(trial: Trial) -> dict[str, float]:
                stage = trial.stage(kind)
                return {name: self._values[stage.id]} if stage and stage.id in self._values else {}

            found = best(self._configurations, self._goal, value)
            self._best = ""
            if found:
                where = ", ".join(filter(None, [words(found[0].values, self._names), f"n = {found[1].count}"]))
                self._best = f"best {heading(name)} {mean_text(found[1])} ({where})"
        return self._best

    def _left(self) -> float | None:
        """Seconds to the end; None while the time of one kind that is to do is not known yet, and less than none where
        something runs for longer than was expected.
        """
        to_do = Counter(work.kind for work in self._plan.works)
        seconds, longest = 0.0, 0.0
        for kind in KINDS:
            running = [each for each in self.running.values() if each.work.kind == kind]
            ended = len(self._seconds[kind]) + self._failed[kind]
            waiting = to_do[kind] - ended - len(running)
            own = mean(self._seconds[kind]) if self._seconds[kind] else None
            if waiting > 0 and own is None:
                return None
            seconds += max(0, waiting) * (own or 0.0)
            for each in running:
                left = each.left()
                if left is None:
                    if own is None:
                        return None
                    left = own - (time.monotonic() - each.since)
                if left <= -1:
                    return left
                seconds += max(0.0, left)
                longest = max(longest, left)
        return max(seconds / self._most_running, longest)
