"""Runs a plan on Ray Tune: one `Tuner.fit` whose searcher is the ready queue, one Tune trial per unit of work.

Tune knows no dependencies between its trials, but asks its searcher for the next one: `suggest` answers with a unit
of work whose needs are done, with None ("nothing can start now") or with FINISHED. Tune's own state is thrown away:
what is done is what is in the store. Written for Ray 2.60, which only this module and `tune_queue.py` import.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from samref.config import Runtime
from samref.trial import Kind
from samref_sweep.names import SpecError
from samref_sweep.plan import Failure, Plan, Work
from samref_sweep.search import Queue
from samref_sweep.spec import Resources
from samref_sweep.stages import Event, Runner, attempt, run
from samref_sweep.store import Store

ENVIRONMENT = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else each worker starts through `uv run` again
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # workers stay in this folder, so relative paths in logs mean what they say
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # snapshots that we never read
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # Tune asks a custom searcher for one trial at a time unless told otherwise.
    "TUNE_MAX_PENDING_TRIALS_PG": "16",
    # For the workers' torch, on whose CPU a decoder of many clicks takes half the time when freed memory is kept.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
}
os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})  # before ray's import

import ray  # noqa: E402
from ray import tune  # noqa: E402

from samref_sweep.tune_queue import Request, Started, TuneQueue  # noqa: E402

REPORT_SECONDS = 1.0
LOST_WORKERS = 3
"""Times that a unit of work is started again because its worker process or node was lost."""


class ResourceError(SpecError):
    """A stage asks for more than any node has; one line."""


@dataclass(frozen=True)
class Result:
    """How an execution ended."""

    failures: Mapping[str, Failure]
    """Stage id → why it has no output."""
    interrupted: bool
    """Whether it was stopped (Ctrl-C) before the queue was empty."""


def execute(
    plan: Plan,
    store: Store,
    *,
    runtime: Runtime,
    on_event: Callable[[Event], None],
    runner: Runner = run,
    address: str | None = None,
    jobs: int | None = None,
) -> Result:
    """Do a plan's work.

    Args:
        plan: what to do.
        store: where outputs go; every node must see it.
        runtime: folders; device and threads are set for each unit of work from its request.
        on_event: called on the driver, in this thread, for everything that happens.
        runner: what runs stages in the workers.
        address: a running Ray cluster; None starts one on this machine for the time of the call.
        jobs: at most this many units of work at a time; None: as many as resources allow.

    Raises:
        ResourceError: no node can serve a request; nothing was run.
    """
    with _cluster(address) as nodes, store.temporary("tune") as scratch:
        requests = {kind: resolve(kind, plan.sweep.resources[kind], nodes) for kind in {w.kind for w in plan.works}}
        queue = Queue(plan.works, plan.done)
        searcher = TuneQueue(queue, store, requests, jobs, on_event)
        tuner = tune.Tuner(
            tune.with_resources(
                _trainable(store.root, runtime, runner),
                lambda config: tune.PlacementGroupFactory([{"CPU": config["cpu"], "GPU": config["gpu"]}]),
            ),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,  # until the searcher says FINISHED
                reuse_actors=True,
                trial_name_creator=lambda trial: f"work-{trial.config['number']}",
                trial_dirname_creator=lambda trial: f"work-{trial.config['number']}",
            ),
            run_config=tune.RunConfig(
                name=scratch.name,
                storage_path=str(scratch.parent),
                verbose=0,
                # Exceptions of a stage are caught in the worker, so what Tune sees fail is a lost worker.
                failure_config=tune.FailureConfig(max_failures=LOST_WORKERS),
                callbacks=[Started(searcher)],
            ),
        )
        # On Ctrl-C Tune would tell how to restore it, which is not how to go on here.
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        tuner.fit()
    return Result(failures=searcher.failures, interrupted=not queue.exhausted)


def resolve(kind: Kind, asked: Resources, nodes: list[Mapping[str, float]]) -> Request:
    """The numbers behind `auto` and `all` on these nodes, if one of them can serve them."""
    gpu = asked.gpu if asked.gpu != "auto" else float(any(node.get("GPU", 0) >= 1 for node in nodes))
    able = [node for node in nodes if node.get("GPU", 0) >= gpu]
    cpus = max((node.get("CPU", 0) for node in able), default=0)
    if asked.cpu == "all":
        cpu = cpus
    elif asked.cpu == "auto":
        cpu = max((max(1.0, node.get("CPU", 0) * gpu // node["GPU"]) for node in able if gpu), default=1.0)
    else:
        cpu = asked.cpu
    if not able or cpu > cpus or cpus < 1:
        has = "; ".join(f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU" for node in nodes) or "no nodes"
        raise ResourceError(
            f"resources.{kind} asks for {cpu:g} CPU and {gpu:g} GPU, which no node has (nodes: {has}); "
            f"set resources.{kind} in the sweep file lower"
        )
    return Request(cpu=cpu, gpu=gpu)


@contextmanager
def _cluster(address: str | None) -> Iterator[list[Mapping[str, float]]]:
    """Connect to a cluster, or run one on this machine meanwhile; gives each node's resources."""
    if address is None:
        # "local": a plain init would join whatever cluster a stale file in Ray's temporary folder names.
        options: dict[str, Any] = {"address": "local", "include_dashboard": False}
    else:
        import samref
        import samref_sweep

        packages = [str(Path(module.__file__ or "").parent) for module in (samref, samref_sweep)]
        options = {"address": address, "runtime_env": {"py_modules": packages, "env_vars": ENVIRONMENT}}
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, OSError, ValueError) as error:
        raise ResourceError(f"--address {address}: no Ray cluster answers there: {error}") from None
    try:
        yield [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    finally:
        ray.shutdown()


def _trainable(root: Path, runtime: Runtime, runner: Runner) -> Callable[[dict[str, Any]], None]:
    """What a Tune trial runs, in a worker process that is used again for later ones."""

    def unit_of_work(config: dict[str, Any]) -> None:
        last = 0.0

        def report(step: int, metrics: Mapping[str, float]) -> None:
            nonlocal last
            # The driver handles every report in its loop: one a second and worker is enough to look at.
            if time.monotonic() - last >= REPORT_SECONDS:
                last = time.monotonic()
                tune.report({"progress": {"step": step, **metrics}})

        failure = attempt(
            Work.from_json(json.loads(config["work"])),
            Store(root),
            runtime=replace(runtime, device="cuda" if config["gpu"] else "cpu", threads=max(1, int(config["cpu"]))),
            report=report,
            runner=runner,
        )
        tune.report({"reason": failure.reason if failure else None, "log": failure.log if failure else None})

    return unit_of_work
