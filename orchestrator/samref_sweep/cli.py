"""The commands `samref-sweep` and `samref-trial`.

Exit codes: 0 done, 1 some trials failed, 2 bad input, 130 stopped by Ctrl-C. A user's mistake is one line.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from samref.backbones.checkpoints import CheckpointError
from samref.config import ModelConfig, Runtime
from samref.data import DataError
from samref_sweep import show
from samref_sweep.fingerprints import Contents
from samref_sweep.names import SpecError
from samref_sweep.plan import Failure, Plan, plan
from samref_sweep.spec import Sweep, read
from samref_sweep.stages import Event, perform
from samref_sweep.store import Store, StoreError

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


def _common(program: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program, description=description, allow_abbrev=False)
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="override a setting, e.g. evaluate.theta=1.2; VALUE is YAML. It replaces the axis of that name; "
        "a list for a setting with one value is an axis. May be repeated.",
    )
    parser.add_argument("--data-root", metavar="DIR", type=Path, default=Path("data"), help="datasets' folder (data)")
    return parser


def sweep_parser() -> argparse.ArgumentParser:
    """The options of `samref-sweep`; the documentation is tested against it."""
    parser = _common("samref-sweep", "Run a sweep: plan it, do what is missing, write its tables.")
    parser.add_argument("sweep", metavar="SWEEP.yaml", type=Path, help="the sweep file")
    parser.add_argument("--plan", action="store_true", help="print what would run, and stop")
    parser.add_argument("--store", metavar="DIR", type=Path, default=Path("runs"), help="finished stages (runs)")
    parser.add_argument("--results", metavar="DIR", type=Path, help="the tables' folder (results/SWEEP)")
    parser.add_argument("--mlflow", metavar="URI", help="MLflow's tracking URI (a SQLite file in the store)")
    parser.add_argument("--address", metavar="ADDR", help="a running Ray cluster; without it this machine")
    parser.add_argument("--jobs", metavar="N", type=_positive, help="at most N stages at a time")
    parser.add_argument("--json", action="store_true", help="print events as JSON lines")
    return parser


def trial_parser() -> argparse.ArgumentParser:
    """The options of `samref-trial`."""
    parser = _common("samref-trial", "Run one trial here and now, without Ray, by the sweep's own code.")
    parser.add_argument("sweep", metavar="SWEEP.yaml|TRIAL.json", type=Path, help="a sweep file, or a trial's settings")
    parser.add_argument("--trial", metavar="ID", help="which trial of the sweep; the start of its id is enough")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("runs"), help="the store (runs)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, or auto")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _sweep(options: argparse.Namespace) -> int:
    sweep = read(options.sweep, options.overrides)
    # Workers have their own working folders: every path is settled here.
    runtime = Runtime(data_root=options.data_root.absolute())
    if options.plan:
        return _print_plan(sweep, runtime, options)
    store = Store(options.store)
    store.clean()
    contents = Contents(runtime, store.fingerprints)
    planned = plan(sweep, contents, store.done())
    _say_plan(planned, (), options.json, every_trial=False)
    contents.check(_models(planned))

    command = shlex.join(["samref-sweep", *sys.argv[1:]])
    folder = (options.results or Path("results") / sweep.name).absolute()
    failures, interrupted = _run(planned, store, runtime, options)
    from samref_sweep import results

    results.write(planned, store, failures, folder, command)
    outcomes = planned.outcomes(store.done(), failures)
    failed = sum(outcome.status == "failed" for outcome in outcomes)
    if options.json:
        statuses = {trial.id: outcome.status for trial, outcome in zip(planned.trials, outcomes, strict=True)}
        show.print_json({"event": "end", "results": str(folder), "interrupted": interrupted, "trials": statuses})
    else:
        _say_end(planned, store, failures, folder, options, interrupted)
    return INTERRUPTED if interrupted else FAILED if failed else DONE


def _print_plan(sweep: Sweep, runtime: Runtime, options: argparse.Namespace) -> int:
    # A plan writes nothing: where there is no store yet, nothing is done.
    store = Store(options.store) if Store.exists(options.store) else None
    contents = Contents(runtime, store.fingerprints if store else None)
    planned = plan(sweep, contents, store.done() if store else ())
    _say_plan(planned, tuple(contents.missing.values()), options.json, every_trial=True)
    return DONE


def _say_plan(planned: Plan, notes: Sequence[str], as_json: bool, *, every_trial: bool) -> None:
    if as_json:
        counts = {kind: dataclasses.asdict(count) for kind, count in planned.counts().items()}
        trials = {trial.id: dict(point) for trial, point in zip(planned.trials, planned.points, strict=True)}
        show.print_json({"event": "plan", "sweep": planned.sweep.name, "stages": counts, "trials": trials})
    else:
        print(show.plan_text(planned, notes, every_trial=every_trial), flush=True)


def _models(planned: Plan) -> list[ModelConfig]:
    return list(dict.fromkeys(ModelConfig(**stage.config["model"]) for work in planned.works for stage in work.stages))


def _run(
    planned: Plan, store: Store, runtime: Runtime, options: argparse.Namespace
) -> tuple[Mapping[str, Failure], bool]:
    """Do the plan's work and log it; gives why stages failed, and whether it was stopped."""
    from samref_sweep.track import (  # imports mlflow, which takes seconds
        Tracker,
        default_uri,
    )

    def warn(text: str) -> None:
        print(f"warning: {text}", file=sys.stderr, flush=True)

    failures: Mapping[str, Failure] = {}
    interrupted = False
    tracker = Tracker(planned, store, options.mlflow or default_uri(store), warn)
    if planned.works:
        from samref_sweep.execute import execute  # imports ray

        with show.display(planned, store, as_json=options.json) as display:

            def on_event(event: Event) -> None:
                display(event)
                tracker.on_event(event)

            result = execute(
                planned, store, runtime=runtime, on_event=on_event, address=options.address, jobs=options.jobs
            )
        failures, interrupted = result.failures, result.interrupted
    tracker.close(planned.outcomes(store.done(), failures), interrupted=interrupted)
    return failures, interrupted


def _say_end(
    planned: Plan,
    store: Store,
    failures: Mapping[str, Failure],
    folder: Path,
    options: argparse.Namespace,
    interrupted: bool,
) -> None:
    from samref_sweep.track import default_uri

    show.result_table(planned, planned.outcomes(store.done(), failures), store, HEADLINES)
    for failure in dict.fromkeys(failures.values()):  # evaluations that ran in one go fail for one reason
        print(f"failed: {failure}")
    if interrupted:
        print("stopped; the same command goes on from here")
    print(f"tables:    {_short(folder)}")
    print(f"dashboard: samref-dashboard {shlex.quote(_short(folder))}")
    print(f"mlflow:    mlflow ui --backend-store-uri {shlex.quote(options.mlflow or default_uri(store))}")


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _trial(options: argparse.Namespace) -> int:
    sweep = read(options.sweep, options.overrides)
    runtime = Runtime(data_root=options.data_root.absolute(), device=options.device)
    contents = Contents(runtime, None)
    every = plan(sweep, contents, ())
    start = "trial-" + (options.trial or "").removeprefix("trial-")
    chosen = [number for number, trial in enumerate(every.trials) if trial.id.startswith(start)]
    if len(chosen) != 1:
        trials = [
            f"  {every.trials[number].id}  {dict(every.points[number])}"
            for number in chosen or range(len(every.trials))
        ]
        what = f"no trial's id starts with {options.trial}" if not chosen else f"{len(chosen)} trials fit"
        print(f"error: {options.sweep}: {what}; choose one with --trial ID:", *trials, sep="\n", file=sys.stderr)
        return BAD_INPUT
    return _run_trial(every, chosen[0], runtime, Store(options.out))


def _run_trial(every: Plan, number: int, runtime: Runtime, store: Store) -> int:
    trial = every.trials[number]
    alone = dataclasses.replace(every.sweep, configs=(trial.config,), points=(every.points[number],))
    contents = Contents(runtime, store.fingerprints)
    planned = plan(alone, contents, store.done())
    contents.check(_models(planned))
    with show.display(planned, store, as_json=False) as display:
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
            print(f"{stage.kind + ' is in':<22} {_short(store.folder(stage.id))}")
    return DONE
