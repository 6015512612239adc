"""One unit of work, here: inputs from the store, the run, outputs into the store, its log.

The one code path of `samref-trial` (this process) and of a sweep (a Ray worker). Knows nothing of Ray.
"""

import contextlib
import faulthandler
import gc
import logging
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

from samref.config import Runtime
from samref.errors import UserError
from samref.shards import Lead, alone
from samref.source import code_of
from samref.stage import TELEMETRY_FILE, Job, Report, Stage, Stopped
from samref_sweep.errors import DamagedError
from samref_sweep.execution import telemetry
from samref_sweep.execution.watchdog import watched
from samref_sweep.failures import Failure, classify
from samref_sweep.planning.work import Work
from samref_sweep.store.opening import own_disk
from samref_sweep.store.store import Claim, Store

Runner = Callable[[Job, Report], Any]
"""Runs a job and writes each stage's folder: `run_watched`, or a stand-in for it."""


@runtime_checkable
class Sharing(Protocol):
    """A `Runner` whose embeddings and evaluations other processes can work on, too."""

    def __call__(self, job: Job, report: Report, lead: Lead = alone) -> object:
        """Run a job, of which `lead` has the shards worked."""

    def help(self, job: Job, report: Report, numbers: Iterable[int], finished: Callable[[Path], None]) -> None:
        """Work shards of a job that another process runs; see `samref.run_stage.work_shards`."""


class RunWatched:
    """Runs a job by `samref.run_stage`, with a training's machine watched, and the GPU's memory given back."""

    def __call__(self, job: Job, report: Report, lead: Lead = alone) -> None:
        """Run a job."""
        from samref import run_stage  # imports torch, which a sweep's driver needs not

        device = job.runtime.resolve_device()
        with contextlib.ExitStack() as stack:
            stack.enter_context(device_memory_given_back())
            if job.stages[0].kind == "train":
                report = stack.enter_context(telemetry.sampled(job.outs[0] / TELEMETRY_FILE, device, report))
            run_stage.run_job(job, report, lead)

    def help(self, job: Job, report: Report, numbers: Iterable[int], finished: Callable[[Path], None]) -> None:
        """Work shards of a job that another process runs."""
        from samref import run_stage

        with device_memory_given_back():
            run_stage.work_shards(job, report, numbers, finished)

    def __reduce__(self) -> str:
        return "run_watched"  # the one below, in every process


run_watched = RunWatched()


@contextlib.contextmanager
def device_memory_given_back() -> Iterator[None]:
    """Give the device's memory back after the block: torch would keep it from the next stage of this process."""
    import torch

    try:
        yield
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def perform(work: Work, store: Store, *, runtime: Runtime, report: Report, runner: Runner = run_watched) -> None:
    """Run a unit of work, so that its stages are done; waits for those that another driver works on."""
    with store.claim(stage.id for stage in work.stages) as claim:
        stages = tuple(stage for stage in work.stages if not store.has(stage.id))
        if stages:
            for stage in stages:
                store.codes.note(stage.id, code_of(stage))
            with contextlib.ExitStack() as stack:
                run = partial(_run, runtime=replace(runtime, far=store.far), runner=runner)
                here = {each.id: stack.enter_context(_made_here(each, work, store, run, report)) for each in work.here}
                inputs = {role: here.get(need) or store.open(need) for role, need in work.needs.items()}
                run(stages, claim, inputs, report=report)


def _run(
    stages: tuple[Stage, ...],
    claim: Claim,
    inputs: dict[str, Path],
    *,
    runtime: Runtime,
    report: Report,
    runner: Runner,
) -> None:
    with contextlib.ExitStack() as stack:
        outs = tuple(stack.enter_context(claim.workspace(stage.id)) for stage in stages)
        scratch = stack.enter_context(claim.scratch(stages[0].id))
        runner(Job(stages, inputs, outs, scratch, runtime), report)


@contextlib.contextmanager
def _made_here(stage: Stage, work: Work, store: Store, run: Callable[..., None], report: Report) -> Iterator[Path]:
    """Give the output of a stage that the store does not keep, for the block; made on this node unless it has it."""
    if store.has(stage.id):
        yield store.open(stage.id)
        return
    with own_disk(passing=work.passing) as own:
        with own.claim([stage.id]) as claim:
            with contextlib.suppress(DamagedError):  # then it is set aside, and made again
                if own.has(stage.id):
                    own.open(stage.id)
            if not own.has(stage.id):
                inputs = {role: store.open(need) for role, need in stage.needs.items()}
                run((stage,), claim, inputs, report=lambda step, metrics: report(0, {}))
        yield own.folder(stage.id)


def attempt(
    work: Work,
    store: Store,
    *,
    runtime: Runtime,
    report: Report,
    runner: Runner = run_watched,
    time_limit: float | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Failure | None:
    """`perform` within its time limit, with its output in a log file; says why it failed instead of raising.

    A stage that stops because the sweep does has not failed; it is not done either.
    """
    path = store.node.logs / f"{work.id}.log"
    try:
        with logged(path) as log, watched(report, log, time_limit=time_limit, stopping=stopping) as watched_report:
            try:
                perform(work, store, runtime=runtime, report=watched_report, runner=runner)
            except Stopped:
                print("stopped with the sweep")
            except Exception as error:  # whatever a stage raises is its failure, not the sweep's
                traceback.print_exc()
                return Failure(reason(error), store.failures.keep_log(path), classify(error))
    except OSError as error:  # the log's own, on a full disk
        return Failure(reason(error), str(path), classify(error))
    return None


def reason(error: BaseException) -> str:
    """An exception in one line."""
    text = " ".join(str(error).encode(errors="backslashreplace").decode().split())  # as tables can hold it
    package = sys.modules.get((error.name or "").partition(".")[0]) if isinstance(error, ImportError) else None
    if folder := next(iter(getattr(package, "__path__", ())), None):
        text += f"; the package is the one in {folder}: rename that folder if another is meant"
    return text if isinstance(error, UserError) and text else f"{type(error).__name__}: {text}".rstrip(": ")


@contextlib.contextmanager
def logged(path: Path) -> Iterator[IO[str]]:
    """Write what is printed, logged and (on a crash) dumped to a file; a second attempt appends."""
    with path.open("a", buffering=1, encoding="utf-8") as file:
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(handler)
        faulthandler.enable(file)
        try:
            with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
                yield file
        finally:
            faulthandler.enable(sys.__stderr__ or 2)
            logging.getLogger().removeHandler(handler)
