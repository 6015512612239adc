"""One unit of work, here: inputs from the store, the run, outputs into the store, its log.

The one code path of `samref-trial` (this process) and of a sweep (a Ray worker). Knows nothing of Ray.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import logging
import shutil
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import samref.trial
from samref.config import Runtime
from samref.trial import Report, Stage
from samref_sweep.plan import Failure, Work
from samref_sweep.store import Store


@dataclass(frozen=True)
class Event:
    """Something that happened to a unit of work; displays and trackers are called with these."""

    kind: Literal["started", "progress", "done", "failed"]
    work: Work
    metrics: Mapping[str, float] = field(default_factory=dict)
    """While in progress: `step`, `total` where known, and what the stage reports of itself, e.g. its loss."""
    failure: Failure | None = None


class Runner(Protocol):
    """`samref.trial.run`, or a stand-in for it: writes each stage's folder."""

    def __call__(
        self,
        stages: Sequence[Stage],
        inputs: Mapping[str, Path],
        outs: Sequence[Path],
        *,
        scratch: Path,
        runtime: Runtime,
        report: Report,
    ) -> Any: ...


def run(
    stages: Sequence[Stage],
    inputs: Mapping[str, Path],
    outs: Sequence[Path],
    *,
    scratch: Path,
    runtime: Runtime,
    report: Report,
) -> None:
    """`samref.trial.run` within its share of the machine, which is given back afterwards."""
    import cv2
    import torch

    if runtime.threads:
        torch.set_num_threads(runtime.threads)
        cv2.setNumThreads(runtime.threads)
    try:
        samref.trial.run(stages, inputs, outs, scratch=scratch, runtime=runtime, report=report)
    finally:
        # A Ray worker is used again for the next stage; torch would keep the memory from it.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def perform(work: Work, store: Store, *, runtime: Runtime, report: Report, runner: Runner = run) -> None:
    """Run a unit of work; afterwards its stages are done. Stages that another driver finished meanwhile are left."""
    stages = [stage for stage in work.stages if not store.has(stage.id)]
    if not stages:
        return
    inputs = {role: store.open(need) for role, need in work.needs.items()}
    with contextlib.ExitStack() as stack:
        outs = [stack.enter_context(store.workspace(stage.id)) for stage in stages]
        scratch = store.scratch(stages[0].id)
        runner(stages, inputs, outs, scratch=scratch, runtime=runtime, report=report)
    shutil.rmtree(scratch, ignore_errors=True)


def attempt(work: Work, store: Store, *, runtime: Runtime, report: Report, runner: Runner = run) -> Failure | None:
    """`perform`, with its output in a log file; says why it failed instead of raising."""
    path = store.logs / f"{work.id}.log"
    with logged(path):
        try:
            perform(work, store, runtime=runtime, report=report, runner=runner)
        except Exception as error:  # whatever a stage raises is its failure, not the sweep's
            traceback.print_exc()
            return Failure(reason(error), str(path))
    return None


def reason(error: BaseException) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    # Our own errors (DataError, StoreError, …) are whole sentences already.
    ours = type(error).__module__.startswith("samref") and text
    return text if ours else f"{type(error).__name__}: {text}".rstrip(": ")


@contextlib.contextmanager
def logged(path: Path) -> Iterator[None]:
    """Write what is printed, logged and (on a crash) dumped to a file; a second attempt appends."""
    with path.open("a", buffering=1, encoding="utf-8") as file:
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(handler)
        faulthandler.enable(file)
        try:
            with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
                yield
        finally:
            faulthandler.enable(sys.__stderr__ or 2)
            logging.getLogger().removeHandler(handler)
