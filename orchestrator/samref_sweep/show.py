"""What the terminal shows: the plan, the progress while it runs, and the table at the end."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from samref.trial import Kind
from samref_sweep.plan import KINDS, Outcome, Plan, Work
from samref_sweep.stages import Event
from samref_sweep.store import Store, StoreError

Display = Callable[[Event], None]
LINE_SECONDS = 10
LISTED_TRIALS = 20
WORDS: Mapping[Kind, str] = {
    "embed": "embedding",
    "train": "training",
    "evaluate": "evaluation",
    "profile": "profile",
}


def plan_text(plan: Plan, notes: Sequence[str] = (), *, every_trial: bool) -> str:
    """The plan as text: stages, what is shared, and the trials with their state."""
    axes = " × ".join(f"{len(values)} {key}" for key, values in plan.sweep.axes.items())
    lines = [
        f"{plan.sweep.name}: {len(plan.trials)} trial{'s' * (len(plan.trials) != 1)}" + (f" ({axes})" if axes else "")
    ]
    for kind, count in plan.counts().items():
        shared = f" instead of {count.asked}" if count.asked > count.total else ""
        lines.append(f"  {count.total:>5} {_plural(kind, count.total)}{shared}: {count.done} done, {count.to_do} to do")
    to_do = {stage.id: stage.kind for work in plan.works for stage in work.stages}
    shown = plan.trials if every_trial else plan.trials[:LISTED_TRIALS]
    for trial, point in zip(shown, plan.points, strict=False):
        kinds = [kind for kind in KINDS if any(to_do.get(stage.id) == kind for stage in trial.stages)]
        state = f"to do: {', '.join(kinds)}" if kinds else "done"
        lines.append(f"  {trial.id}  {_point(point)}  {state}".rstrip())
    if len(shown) < len(plan.trials):
        lines.append(f"  … and {len(plan.trials) - len(shown)} more; --plan lists all")
    lines += [f"  note: {note}" for note in notes]
    return "\n".join(lines)


def _plural(kind: Kind, count: int) -> str:
    return WORDS[kind] + "s" * (count != 1)


def _point(point: Mapping[str, Any]) -> str:
    return "  ".join(f"{key}={value}" for key, value in point.items())


@dataclass
class _Running:
    work: Work
    since: float = field(default_factory=time.monotonic)
    metrics: Mapping[str, float] = field(default_factory=dict)

    def text(self) -> str:
        seconds = time.monotonic() - self.since
        parts = [self.work.id]
        step, total = self.metrics.get("step"), self.metrics.get("total")
        if step and total:
            parts.append(f"{step:g}/{total:g}, {step / seconds:.3g}/s, {_clock(seconds / step * (total - step))} left")
        told = [f"{name} {value:.4g}" for name, value in self.metrics.items() if name not in ("step", "total")]
        parts += told[:1]  # the first one is a training's loss; the rest is in training.parquet
        return ", ".join([*parts, _clock(seconds)])


class Progress:
    """Counts what happens, for all displays."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self._plan = plan
        self._store = store
        self._began = time.monotonic()
        self._finished: Counter[str] = Counter()
        self._ended = 0
        self.running: dict[str, _Running] = {}
        self.best: float | None = None

    def add(self, event: Event) -> None:
        work = event.work
        if event.kind == "started":
            self.running[work.id] = _Running(work)
        elif event.kind == "progress":
            self.running.setdefault(work.id, _Running(work)).metrics = event.metrics
        else:
            self.running.pop(work.id, None)
            self._ended += 1
            if event.kind == "done":
                self._finished[work.kind] += len(work.stages)
                self._note_best(work)

    def _note_best(self, work: Work) -> None:
        for stage in work.stages if work.kind == "evaluate" else ():
            try:
                value = self._store.summary(stage.id)["metrics"].get("noc_at_90")
            except (StoreError, KeyError):
                continue
            if value is not None and (self.best is None or value < self.best):
                self.best = value

    def head(self) -> str:
        """One line: stages done of all, time, and the best NoC90."""
        kinds = [
            f"{_plural(kind, 2)} {count.done + self._finished[kind]}/{count.total}"
            for kind, count in self._plan.counts().items()
        ]
        seconds = time.monotonic() - self._began
        kinds.append(_clock(seconds))
        if 0 < self._ended < len(self._plan.works):
            kinds.append(f"about {_clock(seconds / self._ended * (len(self._plan.works) - self._ended))} left")
        if self.best is not None:
            kinds.append(f"best NoC90 {self.best:.2f}")
        return " · ".join(kinds)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def display(plan: Plan, store: Store, *, as_json: bool) -> AbstractContextManager[Display]:
    """The display that suits the output: a live table on a terminal, lines elsewhere, or JSON lines."""
    if as_json:
        return _json()
    console = Console()
    return _live(Progress(plan, store), console) if console.is_terminal else _lines(Progress(plan, store))


@contextmanager
def _json() -> Iterator[Display]:
    def show(event: Event) -> None:
        value: dict[str, Any] = {"event": event.kind, "work": event.work.id, "kind": event.work.kind}
        value["stages"] = [stage.id for stage in event.work.stages]
        value |= {"metrics": dict(event.metrics)} if event.metrics else {}
        value |= {"reason": event.failure.reason, "log": event.failure.log} if event.failure else {}
        print_json({**value, "time": round(time.time(), 3)})

    yield show


def print_json(value: Mapping[str, Any]) -> None:
    """One event as a line."""
    print(json.dumps(value), flush=True)


@contextmanager
def _lines(progress: Progress) -> Iterator[Display]:
    lock = threading.Lock()
    over = threading.Event()

    def show(event: Event) -> None:
        with lock:
            running = progress.running.get(event.work.id)
            progress.add(event)
            if event.kind != "progress":
                took = f" in {_clock(time.monotonic() - running.since)}" if running else ""
                tail = f": {event.failure}" if event.failure else took if event.kind == "done" else ""
                print(f"{event.kind:<7} {event.work.id}{tail}", flush=True)

    def beat() -> None:
        while not over.wait(LINE_SECONDS):
            with lock:
                print(
                    "\n".join([progress.head(), *(f"  {r.text()}" for r in progress.running.values())]),
                    flush=True,
                )

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield show
    finally:
        over.set()
        thread.join()
        print(progress.head(), flush=True)


@contextmanager
def _live(progress: Progress, console: Console) -> Iterator[Display]:
    lock = threading.Lock()

    def render() -> Group:
        with lock:
            return Group(Text(progress.head()), *(Text(f"  {r.text()}") for r in progress.running.values()))

    with Live(get_renderable=render, console=console, refresh_per_second=4) as live:

        def show(event: Event) -> None:
            with lock:
                progress.add(event)
            if event.failure:
                live.console.print(Text(f"failed {event.work.id}: {event.failure}"), soft_wrap=True)

        yield show


def result_table(plan: Plan, outcomes: Sequence[Outcome], store: Store, columns: Sequence[tuple[str, str]]) -> None:
    """Print each trial with its axes and some metrics: (heading, metric) pairs."""
    table = Table(box=None, pad_edge=False)
    for heading in ("trial", *plan.sweep.axes, *(heading for heading, _ in columns), "state"):
        table.add_column(heading, overflow="fold")
    for trial, point, outcome in list(zip(plan.trials, plan.points, outcomes, strict=True))[: 5 * LISTED_TRIALS]:
        evaluate = trial.stage("evaluate")
        metrics: Mapping[str, Any] = {}
        if evaluate and store.has(evaluate.id):
            metrics = store.summary(evaluate.id)["metrics"]
        values = [f"{metrics[name]:.2f}" if name in metrics else "" for _, name in columns]
        axes = [str(point.get(axis, "")) for axis in plan.sweep.axes]
        table.add_row(trial.id, *axes, *values, outcome.status)
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160).print(table)
