"""The commands `samref-sweep` and `samref-trial`.

Exit codes: 0 done, 1 some trials failed, 2 bad input, 130 stopped before the end (Ctrl-C, or a
budget of hours). A user's mistake is one line.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from samref.backbones.checkpoints import CheckpointError
from samref.config import Runtime
from samref.data import DataError
from samref_sweep.cli.options import sweep_parser, trial_parser
from samref_sweep.driver import Prepared, prepare, set_aside
from samref_sweep.errors import SpecError, StoreError
from samref_sweep.execution.search import Search
from samref_sweep.execution.unit import perform
from samref_sweep.failures import Failure
from samref_sweep.planning.events import Event
from samref_sweep.planning.plan import Outcome, Plan
from samref_sweep.planning.redo import other_code
from samref_sweep.screen import display as show
from samref_sweep.spec.sweep import Sweep, read
from samref_sweep.store.folder import Store
from samref_sweep.store.opening import existing_store, is_uri, local, open_store

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
USER_ERRORS = (SpecError, StoreError, DataError, CheckpointError)
HEADLINES = (("NoC90", "noc_at_90"), ("NoC95", "noc_at_95"))


def main(arguments: Sequence[str] | None = None) -> int:
    """`samref-sweep`."""
    options = sweep_parser().parse_args(arguments)
    return _one_line_errors(lambda: _sweep(options))


def trial_main(arguments: Sequence[str] | None = None) -> int:
    """`samref-trial`."""
    options = trial_parser().parse_args(arguments)
    return _one_line_errors(lambda: _trial(options))


def _one_line_errors(command: Callable[[], int]) -> int:
    try:
        return command()
    except USER_ERRORS as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `samref-sweep … --plan | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def _sweep(options: argparse.Namespace) -> int:
    sweep = read(options.sweep, options.overrides)
    # Workers have their own working folders: every path is settled here.
    runtime = Runtime(data_root=options.data_root.absolute())
    if options.plan:
        return _print_plan(sweep, runtime, options)
    store = open_store(options.store)
    store.clean()
    prepared = prepare(sweep, runtime, store, () if options.sync else options.redo)
    prepared = set_aside(prepared, runtime)
    planned, search = prepared.plan, prepared.search
    if options.sync:
        return _sync(planned, store, options)
    remembered = _remembered(planned, store, again=options.retry_failed)
    prepared.plan = planned = planned.without(remembered)
    if search:
        search.settle(remembered)
    _say_plan(prepared, (), options.json)
    prepared.check_disk()
    prepared.check()

    command = shlex.join(["samref-sweep", *sys.argv[1:]])
    where = options.results or f"results/{sweep.name}"
    with _results_folder(where) as folder:
        planned, failures, interrupted = _run(planned, store, runtime, options, remembered, search)
        from samref_sweep.record import tables as results

        outcomes = results.write(planned, store, failures, folder, command)
    where = where if is_uri(where) else str(folder)
    failed = sum(outcome.status == "failed" for outcome in outcomes)
    if options.json:
        statuses = {trial.id: outcome.status for trial, outcome in zip(planned.trials, outcomes, strict=True)}
        show.print_json({"event": "end", "results": where, "interrupted": interrupted, "trials": statuses})
    else:
        _say_end(planned, store, outcomes, failures, where, options, interrupted)
        if remembered:
            ended = sorted({"stopped" if each.kind == "stopped" else "failed" for each in remembered.values()})
            print(f"{' or '.join(ended)} in an earlier run, and not tried again: --retry-failed does")
    return INTERRUPTED if interrupted else FAILED if failed else DONE


@contextlib.contextmanager
def _results_folder(where: str) -> Iterator[Path]:
    """Where tables are written: a folder of results, or one whose files are uploaded when the block ends."""
    if not is_uri(where):
        yield local(where).absolute()
        return
    from samref_sweep.store.bucket import uploaded  # imports pyarrow

    with uploaded(where) as folder:
        yield folder


def _remembered(planned: Plan, store: Store, *, again: bool) -> dict[str, Failure]:
    """Why stages of the plan failed by themselves in earlier runs, unless they are to be tried again."""
    if again:
        store.forget_failures(planned.stages)
    stages = planned.stages
    told = {name: Failure(**each) for name, each in store.failures().items() if name in stages}
    # Without what stopped them a sweep lets stages go on.
    stops = planned.sweep.scheduler or planned.sweep.budget.trial_hours
    return {name: each for name, each in told.items() if each.kind != "stopped" or stops}


def _sync(planned: Plan, store: Store, options: argparse.Namespace) -> int:
    """Log to MLflow what the store holds and MLflow does not."""
    from samref_sweep.record.tracker import Tracker, default_uri

    uri = options.mlflow or default_uri(store)
    outcomes = planned.outcomes(store.done(), _remembered(planned, store, again=False))
    tracker = Tracker(planned, store, uri, _warn)
    if not tracker.close(outcomes, interrupted=bool(planned.works), patience_seconds=None):
        return FAILED
    print(
        f"mlflow: {sum(outcome.status == 'done' for outcome in outcomes)} of {len(outcomes)} trials are done; all of "
        f"them are logged to {uri}"
    )
    return DONE


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)


def _print_plan(sweep: Sweep, runtime: Runtime, options: argparse.Namespace) -> int:
    # A plan writes nothing: where there is no store yet, nothing is done.
    store = existing_store(options.store)
    prepared = prepare(sweep, runtime, store, options.redo)
    contents = prepared.contents
    if store:
        remembered = _remembered(prepared.plan, store, again=False)
        prepared.plan = prepared.plan.without(() if options.retry_failed else remembered)
    _say_plan(prepared, (*contents.missing.values(), *contents.downloads(prepared.models())), options.json)
    if options.address is None:
        prepared.check_requests()
    return DONE


def _say_plan(prepared: Prepared, notes: Sequence[str], as_json: bool) -> None:
    planned, cost = prepared.plan, prepared.cost()
    notes = [*filter(None, [prepared.other_code.text]), *notes]
    if as_json:
        counts = {kind: dataclasses.asdict(count) for kind, count in planned.counts().items()}
        trials = {trial.id: dict(point) for trial, point in zip(planned.trials, planned.points, strict=True)}
        value = {"stages": counts, "cost": dataclasses.asdict(cost), "trials": trials, "notes": list(notes)}
        show.print_json({"event": "plan", "sweep": planned.sweep.name, **value})
    else:
        left = prepared.search.num_left if prepared.search else prepared.sweep.search and prepared.sweep.search.trials
        print(show.plan_text(planned, cost, notes, suggestions_left=left or 0), flush=True)


def _run(
    planned: Plan,
    store: Store,
    runtime: Runtime,
    options: argparse.Namespace,
    remembered: Mapping[str, Failure],
    search: Search | None,
) -> tuple[Plan, Mapping[str, Failure], bool]:
    """Do the plan's work and log it; gives the plan at the end, why stages failed, and whether it was stopped."""
    from samref_sweep.record.tracker import Tracker, default_uri  # imports mlflow, which takes seconds

    failures = dict(remembered)
    interrupted = False
    tracker = Tracker(planned, store, options.mlflow or default_uri(store), _warn)
    if planned.works or (search and search.num_left):
        from samref_sweep.execution.ray.tuner import execute  # imports ray

        with show.display(lambda: search.plan if search else planned, store, as_json=options.json) as display:

            def on_event(event: Event) -> None:
                if search:
                    tracker.grow(search.plan)
                display(event)
                tracker.on_event(event)

            result = execute(
                planned,
                store,
                runtime=runtime,
                on_event=on_event,
                address=options.address,
                jobs=options.jobs,
                search=search,
            )
        failures |= result.failures
        interrupted = result.interrupted
        planned = dataclasses.replace(search.plan if search else planned, stopped=result.reason)
        if search:
            tracker.grow(planned)
    tracker.close(planned.outcomes(store.done(), failures), interrupted=interrupted)
    return planned, failures, interrupted


def _say_end(
    planned: Plan,
    store: Store,
    outcomes: Sequence[Outcome],
    failures: Mapping[str, Failure],
    where: str,
    options: argparse.Namespace,
    interrupted: bool,
) -> None:
    from samref_sweep.record.tracker import default_uri

    shown = {name for _, name in HEADLINES}
    searched = [(metric.name, metric.name) for metric in planned.sweep.metrics if metric.name not in shown]
    show.result_table(planned, outcomes, store, [*HEADLINES, *searched])
    for failure, stage_id in {failure: stage_id for stage_id, failure in failures.items()}.items():
        # Evaluations that ran in one go fail for one reason.
        print(f"{stage_id}: {failure}" if failure.kind == "stopped" else f"failed: {failure}")
    if interrupted:
        print(f"stopped: {planned.stopped or 'the same command goes on from here'}")
    if reused := other_code(planned.stages.values(), store.done(), store.codes.all()).text:
        print(reused)
    where = where if is_uri(where) else _short(Path(where))
    print(f"tables:    {where}")
    print(f"dashboard: samref-dashboard {shlex.quote(where)}")
    print(f"mlflow:    mlflow ui --backend-store-uri {shlex.quote(options.mlflow or default_uri(store))}")


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _trial(options: argparse.Namespace) -> int:
    sweep = read(options.sweep, options.overrides)
    runtime = Runtime(data_root=options.data_root.absolute(), device=options.device)
    # What a search suggested is in the store.
    every = prepare(sweep, runtime, existing_store(options.out) if sweep.search else None).plan
    start = "trial-" + (options.trial or "").removeprefix("trial-")
    chosen = [number for number, trial in enumerate(every.trials) if trial.id.startswith(start)]
    if len(chosen) != 1:
        trials = [
            f"  {every.trials[number].id}  {dict(every.points[number])}"
            for number in chosen or range(len(every.trials))
        ]
        what = f"no trial's id starts with {options.trial}" if not chosen else f"{len(chosen)} trials fit"
        if not every.trials:
            what = "no trial was suggested yet, which samref-sweep does"
        print(f"error: {options.sweep}: {what}; choose one with --trial ID:", *trials, sep="\n", file=sys.stderr)
        return BAD_INPUT
    return _run_trial(every, chosen[0], runtime, open_store(options.out), options.redo)


def _run_trial(every: Plan, number: int, runtime: Runtime, store: Store, redo: Sequence[str]) -> int:
    trial = every.trials[number]
    alone = dataclasses.replace(every.sweep, configs=(trial.config,), points=(every.points[number],), search=None)
    prepared = set_aside(prepare(alone, runtime, store, redo), runtime)
    prepared.check()
    planned = prepared.plan
    if prepared.other_code.text:
        print(prepared.other_code.text)
    with show.display(lambda: planned, store, as_json=False) as display:
        for work in planned.works:
            display(Event("started", work))
            perform(
                work,
                store,
                runtime=runtime,
                report=lambda step, metrics, work=work: display(  # type: ignore[misc]
                    Event("progress", work, {"step": step, **metrics})
                ),
            )
            display(Event("done", work))
    for stage in trial.stages:
        if stage.kind in ("evaluate", "profile"):
            for name, value in store.summary(stage.id)["metrics"].items():
                print(f"{name:<22} {value}")
            print(f"{stage.kind + ' is in':<22} {_short(store.open(stage.id))}")
    return DONE
