"""What the orchestrator costs and saves, beside the plain Ray Tune script that a user would write.

    python benchmarks/orchestrator.py empty      # 256 empty stages, and what MLflow adds: about six minutes
    python benchmarks/orchestrator.py sharing    # θ × seed with real stages of `tiny`: about four minutes
    python benchmarks/orchestrator.py scale      # 10 000 empty stages, and the plan of them when all is done

Each way runs in a process of its own, Ray's start included; two trials at a time. `empty` and `scale` write what an
evaluation of no sample writes; they measure Ray Tune, the queue, the store (its fsyncs included) and MLflow, and no
work. `sharing` trains and evaluates: the plain script in each trial, the sweep each training once. Minutes are for two
idle CPU cores; no GPU is used.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from samref.config import EvaluateConfig, ModelConfig, Runtime, TrainConfig, TrialConfig
from samref.stage import Job, Report
from samref.trial import NamesAsFingerprints
from samref_sweep.planning.plan import Plan, plan
from samref_sweep.planning.work import Event, Work
from samref_sweep.spec.policy import Resources
from samref_sweep.spec.sweep import Sweep
from samref_sweep.store.folder import FolderStore
from samref_sweep.store.store import Store

AT_ONCE = 2
TURNS = 3
ONE_CPU = {kind: Resources(cpu=1, gpu=0) for kind in ("embed", "train", "evaluate", "profile")}
THETAS, SEEDS = (1.05, 1.1, 1.15, 1.2, 1.3), (0, 1)


def sweep(name: str, configs: Sequence[TrialConfig]) -> Sweep:
    points = tuple({"trial": number} for number in range(len(configs)))
    return Sweep(name, "", Path(name), {}, points, tuple(configs), ONE_CPU)  # type: ignore[arg-type]


def empty_plan(count: int, done: frozenset[str]) -> Plan:
    """Evaluations that differ in θ, each a unit of work of its own."""
    model = ModelConfig(backbone="tiny", checkpoint="none")
    evaluations = (EvaluateConfig(data="shapes", theta=1 + number / count) for number in range(count))
    configs = [TrialConfig(model=model, train=None, evaluate=each, profile=None) for each in evaluations]
    planned = plan(sweep("empty", configs), NamesAsFingerprints(), done)
    return replace(planned, works=tuple(Work((stage,)) for work in planned.works for stage in work.stages))


def write_nothing(job: Job, report: Report) -> None:
    """What an evaluation of no sample writes."""
    names = ("sample", "click", "x", "y", "positive", "iou", "pasted_on", "error_ratio")
    for stage, out in zip(job.stages, job.outs, strict=True):
        np.savez(out / "clicks.npz", **{name: np.zeros(0, np.int32) for name in names})
        columns = ("sample", "height", "width", "counts")
        np.savez(out / "masks.npz", offsets=np.zeros(1, np.int32), **dict.fromkeys(columns, np.zeros(0, np.int32)))
        (out / "samples.json").write_text("[]")
        summary = {"id": stage.id, "stage": stage.to_json(), "metrics": {"noc_at_90": 1.0}, "device_seconds": 0.0}
        origin = {"device": "cpu", "hardware": "", "versions": {}, "started": "2026-01-01T00:00:00+00:00"}
        (out / "summary.json").write_text(json.dumps(summary | origin))


def ours(
    planned: Plan, store: Store, runner: Callable[..., None] | None, watch: Callable[[Event], None], data_root: Path
) -> None:
    from samref_sweep.execution.ray.tuner import execute

    options = {"runner": runner} if runner else {}
    result = execute(planned, store, runtime=Runtime(data_root=data_root), on_event=watch, jobs=AT_ONCE, **options)
    assert not result.failures, result.failures


def tune_script(trainable: Callable[[dict[str, Any]], Any], space: dict[str, Any], callbacks: Sequence[Any]) -> None:
    """What a user would write: a grid, actors used again; with our settings of Ray, which log less."""
    from samref_sweep.execution.ray import ENVIRONMENT

    os.environ.update(ENVIRONMENT)
    import ray
    from ray import tune

    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR", num_cpus=AT_ONCE)
    with tempfile.TemporaryDirectory() as folder:
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            param_space=space,
            tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=AT_ONCE),
            run_config=tune.RunConfig(storage_path=folder, verbose=0, callbacks=list(callbacks)),
        ).fit()


def report_nothing(config: dict[str, Any]) -> None:
    from ray import tune

    tune.report({"noc_at_90": 1.0})


def way_empty_plain(folder: Path, count: int) -> dict[str, float]:
    from ray import tune

    tune_script(report_nothing, {"theta": tune.grid_search(list(range(count)))}, ())
    return {}


def way_empty_callback(folder: Path, count: int) -> dict[str, float]:
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    callback = MLflowLoggerCallback(tracking_uri=f"sqlite:///{folder}/mlflow.db", experiment_name="empty")
    tune_script(report_nothing, {"theta": tune.grid_search(list(range(count)))}, [callback])
    return {}


def way_empty_ours(folder: Path, count: int) -> dict[str, float]:
    store = FolderStore(folder / "store")
    ours(empty_plan(count, store.done()), store, write_nothing, lambda event: None, folder)
    return {}


def way_empty_tracked(folder: Path, count: int) -> dict[str, float]:
    from samref_sweep.record.tracker import Tracker

    store = FolderStore(folder / "store")
    planned = empty_plan(count, store.done())
    tracker = Tracker(planned, store, store.node.mlflow, print)
    held: list[float] = []

    def watch(event: Event) -> None:
        began = time.perf_counter()
        tracker.on_event(event)
        held.append(time.perf_counter() - began)

    ours(planned, store, write_nothing, watch, folder)
    assert tracker.close(planned.outcomes(store.done(), {}), interrupted=False)
    return {"held_ms_mean": 1e3 * sum(held) / len(held), "held_ms_max": 1e3 * max(held)}


def real_config(theta: float, seed: int, *, steps: int = 40, samples: int = 16) -> TrialConfig:
    model = ModelConfig(backbone="tiny", checkpoint="none", refiner_width=16, refiner_blocks=1)
    train = TrainConfig(data="shapes", samples=samples, steps=steps, warmup_steps=1, batch_size=4, seed=seed)
    evaluate = EvaluateConfig(data="shapes", samples=samples, theta=theta)
    return TrialConfig(model=model, train=train, evaluate=evaluate, profile=None)


def run_alone(config: dict[str, Any]) -> dict[str, float]:
    """One trial from start to end in a folder of its own; its seconds, by kind of stage."""
    import torch

    import samref.trial
    from samref.run_stage import run_job

    torch.set_num_threads(1)
    trial = samref.trial.build(real_config(config["theta"], config["seed"]), NamesAsFingerprints())
    seconds: dict[str, float] = {"embed": 0.0, "train": 0.0, "evaluate": 0.0}
    with tempfile.TemporaryDirectory() as name:
        for stage in trial.stages:
            out, scratch = Path(name) / stage.id, Path(name) / f"{stage.id}.scratch"
            out.mkdir()
            inputs = {role: Path(name) / need for role, need in stage.needs.items()}
            began = time.perf_counter()
            runtime = Runtime(data_root=Path(name), device="cpu", threads=1)
            run_job(Job((stage,), inputs, (out,), scratch, runtime), lambda step, metrics: None)
            seconds[stage.kind] += time.perf_counter() - began
    return seconds


def way_sharing_plain(folder: Path, count: int) -> dict[str, float]:
    from ray import tune

    space = {"theta": tune.grid_search(list(THETAS)), "seed": tune.grid_search(list(SEEDS))}
    tune_script(lambda config: tune.report(run_alone(config)), space, ())
    return {}


def way_sharing_ours(folder: Path, count: int) -> dict[str, float]:
    store = FolderStore(folder / "store")
    configs = [real_config(theta, seed) for seed in SEEDS for theta in THETAS]
    ours(plan(sweep("sharing", configs), NamesAsFingerprints(), store.done()), store, None, lambda event: None, folder)
    return {}


def way_sharing_alone(folder: Path, count: int) -> dict[str, float]:
    run_alone({"theta": 1.1, "seed": 0})  # imports, and what libraries set up once
    return run_alone({"theta": 1.1, "seed": 0})


def way_scale_run(folder: Path, count: int) -> dict[str, float]:
    """Prints seconds and the driver's memory after every tenth of the stages."""
    store = FolderStore(folder / "store")
    began = last = time.perf_counter()
    ended = 0

    def watch(event: Event) -> None:
        nonlocal ended, last
        if event.kind == "done":
            ended += 1
            if ended % (count // 10) == 0:
                now = time.perf_counter()
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                memory = pages * os.sysconf("SC_PAGESIZE") / 1e6
                each = 1e3 * (now - last) / (count // 10)
                print(f"  {ended:>6} stages: {now - began:6.1f} s, {each:5.1f} ms each, driver {memory:4.0f} MB")
                last = now

    ours(empty_plan(count, store.done()), store, write_nothing, watch, folder)
    return {}


def way_scale_resume(folder: Path, count: int) -> dict[str, float]:
    began = time.perf_counter()
    done = FolderStore(folder / "store").done()
    scanned = time.perf_counter()
    planned = empty_plan(count, done)
    outcomes = planned.outcomes(done, {})
    assert not planned.works
    assert all(outcome.status == "done" for outcome in outcomes)
    return {"scan": scanned - began, "plan": time.perf_counter() - scanned}


WAYS: dict[str, Callable[[Path, int], dict[str, float]]] = {
    name.removeprefix("way_"): way for name, way in list(globals().items()) if name.startswith("way_")
}


def measure(way: str, folder: Path, count: int) -> dict[str, float]:
    """Run one way in a process of its own; `seconds` of all of it, and what it says of itself."""
    began = time.perf_counter()
    command = [sys.executable, "-u", __file__, "--way", way, str(folder), "--count", str(count)]
    # Before Ray is imported: under `uv run` its workers would each make an environment first, which takes 40 s.
    env = os.environ | {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env)
    assert process.stdout is not None
    said: dict[str, float] = {}
    for line in process.stdout:
        if line.startswith("{"):
            said = json.loads(line)
        elif line.startswith("  "):
            print(line, end="", flush=True)
    if process.wait():
        raise SystemExit(f"{way} failed: {shlex.join(command)}")
    return {"seconds": time.perf_counter() - began, **said}


def empty(folder: Path, count: int) -> None:
    few, names = count // 16, ("plain", "ours", "tracked", "callback")
    # Ray's start and end take a second more or less, so: in turns, and medians.
    took: dict[tuple[str, int], list[dict[str, float]]] = {
        (name, number): [] for name in names for number in (few, count)
    }
    for turn in range(TURNS):
        for name, number in took:
            place = folder / f"{name}{number}.{turn}"
            place.mkdir()
            took[name, number].append(measure(f"empty_{name}", place, number))
    seconds = {key: median(said["seconds"] for said in turns) for key, turns in took.items()}
    each = {name: 1e3 * (seconds[name, count] - seconds[name, few]) / (count - few) for name in names}
    for name in names:
        short, long = seconds[name, few], seconds[name, count]
        print(f"{name:<9} {few} trials {short:5.1f} s, {count} {long:5.1f} s: {each[name]:.0f} ms more each")
    both = zip(took["ours", count], took["plain", count], strict=True)
    ratios = [ours["seconds"] / plain["seconds"] for ours, plain in both]
    print(f"1. ours / plain Tune, {count} trials: {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    mean = median(said["held_ms_mean"] for said in took["tracked", count])
    most = max(said["held_ms_max"] for said in took["tracked", count])
    print(f"2. MLflow adds {each['tracked'] - each['ours']:.0f} ms a trial here, and holds the driver's loop", end=" ")
    print(f"{mean:.2f} ms an event, {most:.1f} at most;", end=" ")
    print(f"MLflowLoggerCallback adds {each['callback'] - each['plain']:.0f} ms a trial")


def sharing(folder: Path, count: int) -> None:
    alone = measure("sharing_alone", folder, count)
    training, evaluation = alone["train"] + alone["embed"] / 2, alone["evaluate"] + alone["embed"] / 2
    print(f"alone: training {training:.1f} s, evaluation {evaluation:.1f} s, half of the embedding in each")
    plain, mine = (measure(f"sharing_{name}", folder, count)["seconds"] for name in ("plain", "ours"))
    n = len(THETAS)
    ideal = n * (training + evaluation) / (training + n * evaluation)
    print(f"plain Tune {plain:.1f} s, ours {mine:.1f} s, for {n} θ × {len(SEEDS)} seeds")
    print(f"3. {plain / mine:.2f} times as fast; n(T+E)/(T+nE) is {ideal:.2f}; {plain / mine / ideal:.2f} of it")


def scale(folder: Path, count: int) -> None:
    measure("scale_run", folder, count)
    resume = measure("scale_resume", folder, count)
    print(f"4. {count} done stages: scan {resume['scan']:.2f} s, plan {resume['plan']:.2f} s")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["empty", "sharing", "scale"])
    parser.add_argument("--count", type=int, help="trials (empty: 256, scale: 10 000)")
    parser.add_argument("--way", nargs=2, metavar=("WAY", "DIR"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(WAYS[options.way[0]](Path(options.way[1]), options.count)))
        return
    if not options.what:
        parser.error("say what to measure")
    count = options.count or {"empty": 256, "sharing": 0, "scale": 10_000}[options.what]
    with tempfile.TemporaryDirectory() as name:
        {"empty": empty, "sharing": sharing, "scale": scale}[options.what](Path(name), count)


if __name__ == "__main__":
    main()
