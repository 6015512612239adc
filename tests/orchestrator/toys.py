"""Toy sweeps: real plans and stores, stages that write a few bytes instead of using a network."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from samref.config import EvaluateConfig, ModelConfig, ProfileConfig, Runtime, TrainConfig, TrialConfig
from samref.stage import Job, Report, Stage
from samref.summary import Summary
from samref.trial import NamesAsFingerprints as NamedContents
from samref_sweep.execution.unit import Runner
from samref_sweep.planning.plan import Plan, plan
from samref_sweep.planning.work import Event
from samref_sweep.spec.policy import Resources
from samref_sweep.spec.sweep import Sweep
from samref_sweep.store.store import Store

if TYPE_CHECKING:
    from samref_sweep.execution.dispatch import Ending


def toy_sweep(
    gammas: Iterable[float] = (0.6, 0.9),
    thetas: Iterable[float] = (1.05, 1.1),
    curve: tuple[float, float] | None = None,
    **model: Any,
) -> Sweep:
    """γ × θ on the tiny backbone, perhaps each with a curve over θ."""
    axes = {"train.gamma": tuple(gammas), "evaluate.theta": tuple(thetas)}
    points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    configs = [
        TrialConfig(
            model=ModelConfig(backbone="tiny", checkpoint="none", **model),
            train=TrainConfig(data="shapes", gamma=point["train.gamma"]),
            evaluate=EvaluateConfig(data="shapes", theta=point["evaluate.theta"], curve=curve),
            profile=ProfileConfig(repeats=1),
        )
        for point in points
    ]
    resources = {kind: Resources(cpu=1, gpu=0) for kind in ("embed", "train", "evaluate", "profile")}
    return Sweep("toy", "a toy", Path("toy.yaml"), axes, tuple(points), tuple(configs), resources)


def toy_plan(store: Store, **sweep: Any) -> Plan:
    return plan(toy_sweep(**sweep), NamedContents(), store.done())


def write_toy_stage(job: Job, report: Report) -> None:
    """A runner that writes what real stages write, with made-up numbers."""
    assert all((folder / "summary.json").exists() for folder in job.inputs.values())
    for stage, out in zip(job.stages, job.outs, strict=True):
        metrics: dict[str, float] = {}
        if stage.kind == "train":
            metrics = {"loss": 1 / 500, "steps_per_second": 4.0, "accumulation": 2}
            lines = [{"step": step, "metric": "loss", "value": 1 / step} for step in range(1, 501)]
            (out / "training.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        elif stage.kind == "evaluate":
            noc = min(stage.config["evaluate"].get("theta", 1.1), 20.0)
            metrics = {"num_samples": 2, "noc_at_90": noc, "miou_at_1": 0.5, "seconds_per_click_made": 0.25}
            write_toy_clicks(out, stage.config["evaluate"]["curve"])
        elif stage.kind == "profile":
            metrics = {"parameters": 7, "parameters_leaf": 6, "fps": 2.0, "memory_gb": 0.5, "encode_seconds": 0.25}
        (out / "summary.json").write_text(summary_text(stage.id, stage, **metrics))


def write_toy_clicks(out: Path, curve: tuple[float, float] | None) -> None:
    """The arrays of an evaluation of two samples, one of them with the pieces of a curve of θ."""
    (out / "samples.json").write_text(json.dumps(["a", "b"]))
    np.savez(
        out / "clicks.npz",
        sample=np.array([0, 0, 1], np.int32),
        click=np.array([1, 2, 1], np.int16),
        x=np.array([3, 4, 5], np.int32),
        y=np.array([6, 7, 8], np.int32),
        positive=np.array([True, False, True]),
        iou=np.array([0.5, 0.75, 1.0], np.float32),
        pasted_on=np.array([1, 2, 0], np.int8),
        error_ratio=np.array([np.nan, 1.25, np.nan], np.float32),
    )
    if curve:
        low, high = curve
        pieces = {"sample": [0, 0, 1], "above": [low, 1.2, low], "upto": [1.2, high, high], "length": [1, 1, 1]}
        clicks = {"x": [1, 2, 1], "y": [1, 2, 1], "positive": [1, 1, 1], "iou": [0.5, 0.75, 1.0]}
        clicks |= {"pasted_on": [1, 1, 1], "error_ratio": [1.2, 1.2, 2]}
        metrics_of = {"noc_at_90": [4.0, 3.0, 2.0], "nof_at_90": [1.0, 0.0, 0.0], "miou_at_1": [0.5, 0.75, 1.0]}
        np.savez(out / "paths.npz", **{name: np.array(own) for name, own in (pieces | clicks | metrics_of).items()})
    np.savez(
        out / "masks.npz",
        sample=np.array([1, 0], np.int32),
        height=np.array([2, 3], np.int32),
        width=np.array([4, 3], np.int32),
        counts=np.array([5, 1, 2, 0, 9], np.int32),
        offsets=np.array([0, 3, 5], np.int32),
    )
    np.savez(
        out / "photographs.npz",
        sample=np.array([1, 0], np.int32),
        height=np.array([2, 3], np.int32),
        width=np.array([4, 3], np.int32),
        counts=np.array([6, 1, 1, 0, 9], np.int32),
        offsets=np.array([0, 3, 5], np.int32),
        jpeg=np.frombuffer(b"JPEG bJPEG a...", np.uint8),
        jpeg_offsets=np.array([0, 6, 15], np.int64),
    )


TOY_STAGE = Stage("train", key={}, names={})


def summary_text(stage_id: str, stage: Stage = TOY_STAGE, **metrics: float) -> str:
    """The content of a summary.json that says that these metrics were measured."""
    hour = 4 if stage.kind == "evaluate" else 3  # evaluations come last
    origin = ("cpu", "toy", {"toy": "1"}, f"2026-01-02T0{hour}:04:05.000006+00:00")
    return json.dumps(Summary(stage_id, stage, metrics, 1.5, *origin, peak_memory_gb=0.75).to_json())


def run_toys(
    planned: Plan, store: Store, runner: Runner, watch: Callable[[Event], None] = lambda event: None, **options: Any
) -> tuple[Ending, list[Event]]:
    """Execute a toy plan on Ray, two at a time; what came of it, and all events."""
    from samref_sweep.execution.ray.tuner import execute

    events: list[Event] = []
    lock = threading.Lock()  # Tune pickles what it is given; a display's lock cannot be

    def on_event(event: Event) -> None:
        with lock:
            events.append(event)
            watch(event)

    options = {"jobs": 2, **options}
    return execute(planned, store, runtime=Runtime(), on_event=on_event, runner=runner, **options), events
