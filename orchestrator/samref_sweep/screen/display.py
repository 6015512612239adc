"""What the terminal shows: the plan, the progress while it runs, and the table at the end."""

import json
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from samref.errors import masked
from samref.part import as_json
from samref.progress import readable_size
from samref.stage import Kind
from samref_sweep.planning.configurations import words
from samref_sweep.planning.cost import Cost
from samref_sweep.planning.plan import Plan, leaves
from samref_sweep.planning.work import KINDS, Event
from samref_sweep.repeating import every
from samref_sweep.screen.tally import WORDS, Tally, clock, plural, took
from samref_sweep.spec.settings import short_names
from samref_sweep.store.store import Store

Display = Callable[[Event], None]
LINE_SECONDS = 10
LISTED_TRIALS = 20


def plan_text(plan: Plan, cost: Cost, notes: Sequence[str] = (), *, suggestions_left: int = 0) -> str:
    """The plan as text: stages, what is shared, what it will cost, and the first trials with their state."""
    sweep = plan.sweep
    shape = f" ({sweep.shape})" if sweep.shape else ""
    lines = [f"{sweep.name}: {len(plan.trials)} trial{'s' * (len(plan.trials) != 1)}{shape}"]
    if sweep.search:
        objectives = ", ".join(f"{each.direction} {each.name}" for each in sweep.objectives)
        lines[0] += f", {suggestions_left} more to suggest: {objectives}"
    if sweep.until:
        lines[0] += f"; from three seeds on, until {sweep.until.until.metric} is decided"
    for kind, count in plan.counts().items():
        factor = f" ({count.asked / count.total:.3g} × shared)" if count.asked > count.total else ""
        shared = f" instead of {count.asked}{factor}" if factor else ""
        lines.append(f"  {count.total:>5} {plural(kind, count.total)}{shared}: {count.done} done, {count.to_do} to do")
    needed = {work.kind for work in plan.works}
    lines += [f"  {line}" for line in cost_lines(cost, needed, plan.sweep.budget.embeddings_gb)]
    done = sum(all(leaf.id in plan.done for leaf in leaves(trial)) for trial in plan.trials)
    if done == len(plan.trials) > 0 and not suggestions_left:
        lines.append(f"  all {done} trials are done")
    else:
        lines += _trial_lines(plan)
    lines += [f"  note: {note}" for note in notes]
    return "\n".join(lines)


def _trial_lines(plan: Plan) -> Iterator[str]:
    to_do = {stage.id: stage.kind for work in plan.works for stage in work.stages}
    names = short_names(plan.sweep.axes)
    for trial, point in list(zip(plan.trials, plan.points, strict=True))[:LISTED_TRIALS]:
        kinds = [kind for kind in KINDS if any(to_do.get(stage.id) == kind for stage in trial.stages)]
        done = all(leaf.id in plan.done for leaf in leaves(trial))
        state = "done" if done else f"to do: {', '.join(kinds)}" if kinds else "not to do"
        yield f"  {trial.id}  {words(point, names)}  {state}"
    if len(plan.trials) > LISTED_TRIALS:
        yield f"  … and {len(plan.trials) - LISTED_TRIALS} more (--plan --json lists all)"


def say(text: str) -> None:
    """Print lines; on a terminal, those that are wider go on below, indented."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        text = "\n".join(_folded(line, width) for line in text.splitlines())
    print(text, flush=True)


def _folded(line: str, width: int) -> str:
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    wrapped = textwrap.wrap(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )
    return "\n".join(wrapped) if len(line) > width else line


def cost_lines(cost: Cost, kinds: set[Kind], embeddings_gb: float | None = None) -> Iterator[str]:
    """Say what the stages that are left to do will cost, as far as it is known."""
    sizes = [readable_size(cost.embedding_bytes)] if cost.embedding_bytes else []
    if cost.unsized_images:
        sizes.append(f"what a plug-in's features of {cost.unsized_images} images take (not known)")
    if sizes:
        size, both = " and ".join(sizes), cost.embed_seconds
        once, each = (f" and {clock(seconds)} of a device" for seconds in both) if both else ("", "")
        if cost.keep == "store":
            allowed = "" if embeddings_gb is None else f" (budget.embeddings_gb allows {embeddings_gb:g} GB)"
            yield f"embeddings to come take {size} of disk{allowed}{once}; with resources.embed.keep: never none{each}"
        else:
            yield f"embeddings (keep: {cost.keep}) take no disk of the store{each}; kept there {size}{once}"
    if not kinds:
        return
    unknown = ", ".join(f"{count} {plural(kind, count)}" for kind, count in cost.unknown.items())
    if not cost.known:
        yield "time: unknown, no such stage was done with this store yet"
        return
    parts = ", ".join(f"{plural(kind, 2)} {clock(seconds)}" for kind, seconds in cost.seconds.items())
    told = f"{cost.earlier} earlier stage{'s' * (cost.earlier != 1)} on {cost.hardware}"
    rest = f"; unknown for {unknown}" if unknown else ""
    total = sum(cost.seconds.values())
    yield f"time: about {clock(total)} of one device ({parts}), from {told}{rest}"


def display(
    plan: Callable[[], Plan], store: Store, *, as_json: bool, starts: str = ""
) -> AbstractContextManager[Display]:
    """The display that suits the output: a live table on a terminal, lines elsewhere, or JSON lines.

    `plan` gives the plan as it is now, `starts` says what is waited for until the first unit of work starts.
    """
    if as_json:
        return _json()
    console = Console()
    tally = Tally(plan, store, starts)
    return _live(tally, console) if console.is_terminal else _lines(tally)


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
    print(masked(json.dumps(as_json(value))), flush=True)


@contextmanager
def _lines(tally: Tally) -> Iterator[Display]:
    lock = threading.Lock()

    def show(event: Event) -> None:
        with lock:
            running = tally.running.get(event.work.id)
            tally.add(event)
            if event.kind == "progress":
                return
            about = tally.about(event.work)
            lasted = f"in {took(time.monotonic() - running.since)}" if running and event.kind == "done" else ""
            words = [f"{_word(event):<7}", event.work.id, about, lasted]
            reason = f": {event.failure}" if event.failure else ""
            print(" ".join(filter(None, words)) + reason, flush=True)

    def beat() -> None:
        with lock:
            running = [f"  {' '.join(filter(None, row))}" for row in tally.running_rows()]
            print("\n".join([tally.head(), *running]), flush=True)

    try:
        with every(LINE_SECONDS, beat, "screen"):
            yield show
    finally:
        print(tally.head(), flush=True)


def _word(event: Event) -> str:
    return "stopped" if event.failure and event.failure.kind == "stopped" else event.kind


@contextmanager
def _live(tally: Tally, console: Console) -> Iterator[Display]:
    lock = threading.Lock()

    def render() -> Group:
        with lock:
            kinds = Table(box=None, pad_edge=False, header_style="dim")
            for column in ("", "done", "running", "to do", "failed", "each"):
                kinds.add_column(column, justify="right" if column else "left")
            for kind, *cells in tally.kind_rows():
                kinds.add_row(f"  {WORDS[kind]}", *cells)
            running = Table(box=None, pad_edge=False, show_header=False)
            for id_, *row in tally.running_rows(limit=max(4, console.height - 10)):
                what = id_.partition("-")[0]  # so that all fits 80 columns; a failure's line has the id
                running.add_row("", *(Text(cell, overflow="ellipsis", no_wrap=True) for cell in (what, *row)))
            return Group(Text(tally.head(), style="bold"), kinds, running)

    with Live(get_renderable=render, console=console, refresh_per_second=4) as live:

        def show(event: Event) -> None:
            with lock:
                tally.add(event)
            if event.failure:
                text = f"{_word(event)} {event.work.id} {tally.about(event.work)}: {event.failure}"
                live.console.print(Text(text), soft_wrap=True)

        yield show


def curve_lines(plan: Plan, sentences: Mapping[str, str]) -> None:
    """Print what each trial's curve over θ says."""
    rows = [(trial.id, point) for trial, point in zip(plan.trials, plan.points, strict=True) if trial.id in sentences]
    for trial_id, point in rows[:LISTED_TRIALS]:
        print(f"{words(point, short_names(plan.sweep.axes)) or trial_id}: {sentences[trial_id]}")
    if len(rows) > LISTED_TRIALS:
        print(f"… and {len(rows) - LISTED_TRIALS} more curves, in curves.parquet")
