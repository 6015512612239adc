"""The commands `samref-sweep` and `samref-trial`: they parse, call the driver, and print.

Exit codes: 0 done, 1 some trials failed, 2 bad input, 74 done but standard output was lost, 130 stopped before the end
(a signal, or a budget of hours). A user's mistake is one line.
"""

import argparse
import contextlib
import dataclasses
import io
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from samref.command_line import BAD_INPUT, INTERRUPTED, command
from samref.errors import UserError, masked
from samref.stage import Stopped
from samref_sweep import driver
from samref_sweep.cli.bundle import bundle, prune
from samref_sweep.cli.options import sweep_parser, trial_parser
from samref_sweep.driver import Result, SweepPlan
from samref_sweep.execution import allotment
from samref_sweep.planning.configurations import words
from samref_sweep.planning.decisions import decided
from samref_sweep.planning.redo import other_code
from samref_sweep.screen import display as show
from samref_sweep.screen.ranking import Ranking, ranking, result_table
from samref_sweep.spec.settings import short_names
from samref_sweep.store.opening import is_uri, open_store
from samref_sweep.store.store import Store

PAGE = "dashboard.html"
"""What samref-dashboard calls the page of a results folder."""
DONE, FAILED = 0, 1
COMMANDS = {"bundle": bundle, "prune": prune}
"""What `samref-sweep` does beside running a sweep file."""


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out `samref-sweep`, and give its exit code."""
    first, *others = (sys.argv[1:] if arguments is None else arguments) or [""]
    if first in COMMANDS:
        return _one_line_errors(lambda: COMMANDS[first](others))
    options = sweep_parser().parse_args(arguments)
    return _one_line_errors(lambda: _sweep(options))


@command
def trial_main(arguments: Sequence[str] | None = None) -> int:
    """Carry out `samref-trial`, and give its exit code."""
    options = trial_parser().parse_args(arguments)
    return _one_line_errors(lambda: _trial(options))


def _one_line_errors(carry_out: Callable[[], int]) -> int:
    try:
        return carry_out()
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except (KeyboardInterrupt, Stopped):
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED


def _sweep(options: argparse.Namespace) -> int:
    sweep = driver.read(options.sweep, options.overrides)
    # A plan writes nothing: where there is no store yet, nothing is done.
    store = options.store if options.plan else open_store(options.store)
    retry_failed = options.retry_failed and not options.sync
    redo = () if options.sync else options.redo
    planned = driver.plan(sweep, store=store, data_root=options.data_root, retry_failed=retry_failed, redo=redo)
    if options.plan:
        return _show_plan(planned, options)
    uri = driver.tracking_uri(options.mlflow, store.node.mlflow)
    if options.sync:
        return _sync(planned, uri)
    _say_plan(planned, (*planned.warnings, *_here(options)), options.json)
    driver.check_results(planned, options.results)
    planned.check()
    planned = driver.set_aside(planned)
    nothing = contextlib.nullcontext(lambda event: None)
    starts = f"Ray at {options.address} answers soon" if options.address else "Ray starts (about 15 s)"
    shown = show.display(planned.grown, store, as_json=options.json, starts=starts)
    with nothing if planned.complete else shown as display:
        result = driver.run(
            planned,
            results=options.results,
            mlflow=uri,
            address=options.address,
            jobs=options.jobs,
            on_event=display,
            warn=_warn,
            command=shlex.join(["samref-sweep", *sys.argv[1:]]),
            draw=_draw,
        )
    ranked = ranking(result.plan, tuple(result.outcomes.values()), store)
    if options.json:
        statuses = {trial: outcome.status for trial, outcome in result.outcomes.items()}
        end = {"event": "end", "results": result.where, "interrupted": result.interrupted, "trials": statuses}
        page = _page(result.where)
        end |= {"configurations": ranked.values(), "best": ranked.best(), "mlflow": result.mlflow}
        end |= {"page": str(page) if page else None}
        show.print_json(end)
    else:
        _say_end(result, ranked, store, uri)
        if planned.remembered:
            ended = {"stopped" if each.kind == "stopped" else "failed" for each in planned.remembered.values()}
            print(f"{' or '.join(sorted(ended))} in an earlier run, and not tried again: --retry-failed does")
    failed = any(outcome.status == "failed" for outcome in result.outcomes.values())
    return INTERRUPTED if result.interrupted else FAILED if failed else DONE


def _sync(planned: SweepPlan, uri: str) -> int:
    """Log to MLflow what the store holds and MLflow does not."""
    outcomes = planned.outcomes()
    if not driver.sync(planned, mlflow=uri, warn=_warn):
        return FAILED
    print(
        f"mlflow: {sum(outcome.status == 'done' for outcome in outcomes)} of {len(outcomes)} trials are done; all of "
        f"them are logged to {masked(uri)}"
    )
    return DONE


def _warn(text: str) -> None:
    print(f"warning: {masked(text)}", file=sys.stderr, flush=True)


def _show_plan(planned: SweepPlan, options: argparse.Namespace) -> int:
    _say_plan(planned, (*planned.notes, *_here(options)), options.json)
    if options.address is None:
        planned.check_here()
    driver.check_results(planned, options.results)
    return DONE


def _here(options: argparse.Namespace) -> Sequence[str]:
    """What to know of this machine, where the sweep is to run on it."""
    return allotment.notes() if options.address is None else ()


def _say_plan(planned: SweepPlan, notes: Sequence[str], as_json: bool) -> None:
    plan, cost = planned.plan, planned.cost
    if as_json:
        counts = {kind: dataclasses.asdict(count) for kind, count in plan.counts().items()}
        trials = {trial.id: dict(point) for trial, point in zip(plan.trials, plan.points, strict=True)}
        value = {"stages": counts, "cost": dataclasses.asdict(cost), "trials": trials, "notes": list(notes)}
        show.print_json({"event": "plan", "sweep": plan.sweep.name, **value})
    else:
        show.say(show.plan_text(plan, cost, notes, suggestions_left=planned.suggestions_left))


def _draw(folder: Path) -> None:
    """Draw the page of a results folder, unless it is there and newer than its tables."""
    page = folder / PAGE
    if page.exists() and page.stat().st_mtime >= max(path.stat().st_mtime for path in folder.glob("*.parquet")):
        return
    from samref_dashboards import report  # imports duckdb

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            report.main([str(folder), "--no-open"])
    except Exception as error:  # the tables are whole, and a page can be drawn again
        _warn(f"{page} was not drawn ({' '.join(str(error).split())}); samref-dashboard {folder} draws it")


def _say_end(result: Result, ranked: Ranking, store: Store, uri: str) -> None:
    result_table(ranked)
    show.curve_lines(result.plan, result.curve_sentences())
    for decision in decided(result.plan, store.done(), store):
        print(decision.text)
    for failure, stage_id in {failure: stage_id for stage_id, failure in result.failures.items()}.items():
        # Evaluations that ran in one go fail for one reason.
        print(f"{stage_id}: {failure}" if failure.kind == "stopped" else f"failed: {failure}")
    if result.interrupted:
        print(f"stopped: {result.plan.interruption or 'the same command goes on from here'}")
    stages = result.plan.stages.values()
    if reused := other_code(stages, store.done(), store.codes.all()).text:
        print(reused)
    where = masked(result.where) if is_uri(result.where) else _short(Path(result.where))
    page = _page(where)
    print(f"tables: {where}")
    print(f"page:   {page if page else f'samref-dashboard {shlex.quote(where)} --out page.html'}")
    told = [] if uri.startswith("http") else [f"mlflow ui --backend-store-uri {shlex.quote(uri)}"]
    print(f"mlflow: {masked(', then '.join([*told, *filter(None, [result.mlflow])]) or uri)}")


def _page(where: str) -> Path | None:
    """The page of a results folder; None where none was drawn."""
    page = None if is_uri(where) else Path(where, PAGE)
    return page if page and page.exists() else None


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _trial(options: argparse.Namespace) -> int:
    sweep = driver.read(options.sweep, options.overrides)
    every = driver.plan(sweep, store=options.store, data_root=options.data_root, device=options.device)
    trials, points = every.plan.trials, every.plan.points
    start = "trial-" + (options.trial or "").removeprefix("trial-")
    chosen = [number for number, trial in enumerate(trials) if trial.id.startswith(start)]
    if len(chosen) != 1:
        names = short_names(sweep.axes)
        lines = [f"  {trials[number].id}  {words(points[number], names)}" for number in chosen or range(len(trials))]
        what = f"no trial's id starts with {options.trial}" if not chosen else f"{len(chosen)} trials fit"
        if not trials:
            what = "no trial was suggested yet, which samref-sweep does"
        asked = bool(options.trial) or not trials
        out = sys.stderr if asked else sys.stdout
        print(f"{'error: ' * asked}{options.sweep}: {what}; choose one with --trial ID:", *lines, sep="\n", file=out)
        return BAD_INPUT if asked else DONE
    store = open_store(options.store)
    planned = driver.plan_trial(every, chosen[0], store, options.redo)
    planned.check()
    planned = driver.set_aside(planned)
    for text in planned.warnings:
        print(text)
    with show.display(planned.grown, store, as_json=False) as display:
        driver.run_here(planned, on_event=display)
    for stage in planned.plan.trials[0].stages:
        if stage.kind in ("evaluate", "profile"):
            for name, value in store.summary(stage.id).metrics.items():
                print(f"{name:<22} {value}")
            print(f"{stage.kind + ' is in':<22} {_short(store.open(stage.id))}")
    return DONE
