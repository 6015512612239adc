"""Runs a plan on Ray Tune: one `Tuner.fit` whose searcher is the ready queue, one Tune trial per unit of work.

Tune knows no dependencies between its trials, but asks its searcher for the next one: `suggest` answers with a unit
of work whose needs are done, with None ("nothing can start now") or with FINISHED. Tune's own state is thrown away:
what is done is what is in the store. Written for Ray 2.60, which only this module and `tune_queue.py` import.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from samref.config import Runtime
from samref.stage import Kind, Stopped
from samref_sweep.errors import ResourceError, StoreError
from samref_sweep.execution.classify import causes
from samref_sweep.execution.halving import Halving
from samref_sweep.execution.queue import Queue
from samref_sweep.execution.requests import Request, resolve
from samref_sweep.execution.search import Search
from samref_sweep.execution.spending import Spending
from samref_sweep.execution.steering import Steering
from samref_sweep.execution.unit import Runner, attempt, run
from samref_sweep.failures import Failure
from samref_sweep.planning.events import Event
from samref_sweep.planning.plan import Plan
from samref_sweep.planning.work import KINDS, Work
from samref_sweep.store.folder import Store
from samref_sweep.store.object_store import ObjectStore
from samref_sweep.store.opening import open_store

ENVIRONMENT = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else each worker starts through `uv run` again
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # workers stay in this folder, so relative paths in logs mean what they say
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it would kill what runs
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
from ray.experimental import internal_kv  # noqa: E402
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402

from samref_sweep.execution.ray.searcher import Halt, Started, TuneQueue  # noqa: E402

REPORT_SECONDS = 1.0
NODE_SECONDS = 300
"""What a node has for its first answer, the transfer of the packages included."""


@dataclass(frozen=True)
class Result:
    """How an execution ended."""

    failures: Mapping[str, Failure]
    """Stage id → why it has no output."""
    interrupted: bool
    """Whether it was stopped (Ctrl-C, a budget) before the queue was empty."""
    reason: str | None = None
    """The budget's reason to stop it."""


def execute(
    plan: Plan,
    store: Store,
    *,
    runtime: Runtime,
    on_event: Callable[[Event], None],
    runner: Runner = run,
    address: str | None = None,
    jobs: int | None = None,
    search: Search | None = None,
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
        search: adds work to the plan, which is its, as results come in.

    Raises:
        ResourceError: no node can serve a request, or processes cannot share a batch; nothing was run.
        StoreError: a node cannot write to the store; or it does not answer any more.
    """
    with _cluster(address) as nodes, store.temporary("tune") as scratch:
        with store.probe() as probe:
            probe()
            if address is not None:
                _check_store(store.where, probe)
        kinds = KINDS if search else {work.kind for work in plan.works}
        requests = {kind: resolve(kind, plan.sweep.resources[kind], nodes) for kind in kinds}
        _check_batches(plan, requests)
        if isinstance(store, ObjectStore) and len(nodes) > 1 and "train" in kinds and requests["train"].workers > 1:
            raise ResourceError(
                f"resources.train asks for {requests['train'].workers} processes, which must see one folder; "
                f"{store.where} gives each node its own: choose a folder that all nodes share with --store"
            )
        queue = Queue(plan.works, plan.done)
        searcher = TuneQueue(
            queue,
            store,
            requests,
            jobs,
            on_event,
            stages=plan.stages,
            retry=plan.sweep.retry,
            steering=_steering(plan, store, search),
            stop=lambda what: internal_kv._internal_kv_put(f"{scratch.name}{what}", b""),
        )
        tuner = tune.Tuner(
            tune.with_resources(
                _trainable(store.where, runtime, runner, scratch.name),
                _reserved,
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
                stop=Halt(searcher),
                # Exceptions of a stage are caught in the worker, so what Tune sees fail is a lost worker; the
                # searcher knows how often each kind of failure may be tried again.
                failure_config=tune.FailureConfig(max_failures=0),
                callbacks=[Started(searcher)],
            ),
        )
        # Tune would tell how to restore it, which is not how to go on here.
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        with _stopped_by_signals(searcher, scratch.name):
            try:
                tuner.fit()
            except tune.TuneError as error:  # what the queue raised, in Tune's words
                raise next((cause for cause in causes(error) if isinstance(cause, StoreError)), error) from None
    return Result(
        failures=searcher.failures, interrupted=searcher.stopping or not queue.exhausted, reason=searcher.reason
    )


def _steering(plan: Plan, store: Store, search: Search | None) -> Steering:
    scheduler, spending = plan.sweep.scheduler, Spending(plan.sweep.budget)
    if plan.sweep.budget.gpu_hours is not None:
        done = [store.summary(stage_id) for stage_id in store.done().intersection(plan.stages)]
        spending.gpu_seconds = sum(each.device_seconds for each in done if each.device.startswith("cuda"))
    halving = Halving(scheduler, plan.stages.values(), store.journal("rungs.jsonl")) if scheduler else None
    return Steering(spending, search, halving)


@contextmanager
def _stopped_by_signals(searcher: TuneQueue, name: str) -> Iterator[None]:
    """Meanwhile Ctrl-C, and the SIGTERM of a batch system, end the sweep in order; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # where signals cannot be handled
        return

    def stop(number: int, frame: object) -> None:
        for signal_number, handler in before.items():
            signal.signal(signal_number, handler)
        os.write(2, b"\nstopping: what runs keeps its progress and ends within seconds; once more ends it at once\n")
        searcher.stopping = True
        internal_kv._internal_kv_put(name, b"")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signal_number, handler in before.items():
            signal.signal(signal_number, handler)


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


def _check_store(where: str, probe: Callable[[], None]) -> None:
    """Refuse a store that not every node sees, before any stage waits for it."""

    @ray.remote(num_cpus=0, max_retries=0)
    def look() -> str | None:
        try:
            probe()
        except (OSError, StoreError) as error:
            return getattr(error, "strerror", None) or str(error)
        return None

    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    looks = [
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
        for node in nodes
    ]
    for node, found in zip(nodes, looks, strict=True):
        try:
            reason = ray.get(found, timeout=NODE_SECONDS)
        except ray.exceptions.RayError as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
        if reason is not None:
            raise StoreError(
                f"node {node['NodeManagerAddress']} cannot write to the store {where}: {reason}; "
                "choose one that all nodes share with --store"
            )


def _check_batches(plan: Plan, requests: Mapping[Kind, Request]) -> None:
    """Refuse trainings whose batches the processes cannot share evenly, before a GPU waits for them."""
    for work in plan.works:
        if work.kind == "train" and (workers := requests["train"].workers) > 1:
            config = work.stages[0].train
            if config.batch_size % (workers * config.accumulation):
                raise ResourceError(
                    f"train.batch_size is {config.batch_size}, which {workers} processes (resources.train) with "
                    f"train.accumulation {config.accumulation} cannot share evenly"
                )


def _reserved(config: Mapping[str, Any]) -> tune.PlacementGroupFactory:
    """What Tune holds for a unit of work. The processes of a training reserve theirs themselves, as one group."""
    if config["workers"] > 1:
        return _group(memory=1)  # bytes; a group may not ask for nothing at all
    return _group(CPU=config["cpu"], GPU=config["gpu"])


@cache
def _group(**bundle: float) -> tune.PlacementGroupFactory:
    """One for all trials of a kind: Tune keeps what each was given."""
    return tune.PlacementGroupFactory([bundle])


def _trainable(where: str, runtime: Runtime, runner: Runner, name: str) -> Callable[[dict[str, Any]], None]:
    """What a Tune trial runs, in a worker process that is used again for later ones.

    Ray's key-value store holds `name` once the sweep stops, and `name/NUMBER` once that unit of work is to stop: seen
    by all nodes at once, which files are not.
    """

    def unit_of_work(config: dict[str, Any]) -> None:
        last, step_before = 0.0, 0

        def report(step: int, metrics: Mapping[str, float]) -> None:
            nonlocal last, step_before
            at_rung = any(step_before < rung <= step for rung in config["rungs"])
            step_before = step
            # The driver handles every report in its loop: one a second and worker is enough to look at.
            if at_rung or time.monotonic() - last >= REPORT_SECONDS:
                last = time.monotonic()
                tune.report({"progress": {"step": step, **metrics}})
            if at_rung and stopping():  # Tune came back from the report with the driver's verdict
                raise Stopped

        def stopping() -> bool:
            names = (name, f"{name}/{config['number']}") if config["alone"] else (name,)
            return any(internal_kv._internal_kv_exists(each) for each in names)

        work, store = Work.from_json(json.loads(config["work"])), open_store(where, patient=True)
        own = runner
        if config["workers"] > 1:
            from samref.run_stage import run_in_group
            from samref_sweep.execution.ray.train_group import TrainGroup  # imports Ray Train, which few sweeps need

            in_group = run_in_group if runner is run else runner
            log = store.logs / f"{work.id}.log"
            own = TrainGroup(config["workers"], config["cpu"], config["gpu"], log, in_group)
        failure = attempt(
            work,
            store,
            runtime=replace(runtime, device="cuda" if config["gpu"] else "cpu", threads=max(1, int(config["cpu"]))),
            report=report,
            runner=own,
            time_limit=config["time_limit"],
            stopping=stopping,
        )
        tune.report(asdict(failure) if failure else {"reason": None})

    return unit_of_work
