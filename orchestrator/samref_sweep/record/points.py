"""The curves of a training: what it reports while it runs, and what its files say afterwards, as the same points."""

import contextlib
import json
from collections.abc import Iterator, Mapping

from samref.schedule import learning_rate
from samref.stage import TELEMETRY_FILE, Stage
from samref_sweep.store.store import Store

CURVE_POINTS = 200

Point = tuple[str, float, int, int]
"""A metric's name and value, its time in milliseconds since 1970, and its step."""


def progress_points(stage: Stage, metrics: Mapping[str, float], stamp: int) -> Iterator[Point]:
    """What a running training reports of its curves, by the step at which it was recorded."""
    step = int(metrics.get("recorded", metrics.get("step", 0)))
    own = (k for k in metrics if k not in ("step", "total", "recorded") and not k.startswith("system/"))
    values = {name: metrics[name] for name in own}
    yield from _curve(stage, values, stamp, step)


def reading_points(reading: Mapping[str, float]) -> Iterator[Point]:
    """One reading of what a training does to its machine."""
    for name, value in reading.items():
        if name not in ("time", "step"):
            group = "train" if name == "steps_per_second" else "system"
            yield f"{group}/{name}", value, int(1000 * reading["time"]), int(reading.get("step", 0))


def finished_points(stage: Stage, store: Store, start: int, end: int, told: set[int]) -> Iterator[Point]:
    """All of a finished training, thinned evenly to curves that a page can draw.

    Its file has no times: points are spread evenly between its start and end. Steps in `told` were logged while it ran.
    """
    curve: dict[int, dict[str, float]] = {}
    for line in store.file(stage.id, "training.jsonl").read_text().splitlines():
        point = json.loads(line)
        curve.setdefault(point["step"], {})[point["metric"]] = point["value"]
    for step, values in list(curve.items())[:: -(-len(curve) // CURVE_POINTS) or 1]:
        if step not in told:
            yield from _curve(stage, values, start + (end - start) * step // max(stage.train.steps, step), step)
    with contextlib.suppress(FileNotFoundError):  # older trainings were sampled on GPUs only
        readings = store.file(stage.id, TELEMETRY_FILE).read_text().splitlines()
        for line in readings[:: -(-len(readings) // CURVE_POINTS) or 1]:
            yield from reading_points(json.loads(line))


def _curve(stage: Stage, values: Mapping[str, float], stamp: int, step: int) -> Iterator[Point]:
    if values:
        for name, value in {**values, "learning_rate": learning_rate(stage.train, step - 1)}.items():
            yield f"train/{name}", value, stamp, step
