"""What runs now and what trainings just reported, from the driver's thread to the one that logs."""

import threading
import time
from collections import deque
from collections.abc import Sequence

from samref_sweep.planning.work import Event
from samref_sweep.record.points import Point, progress_points, reading_points

WAITING = 500
"""Points of a training that wait to be logged; older ones are left out until it has ended, when all are logged."""


class Live:
    """Hears the driver's events; `running` and `take` tell another thread, and neither waits for the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, int] = {}
        self._told: dict[tuple[str, str], float] = {}
        self._points: dict[str, deque[Point]] = {}

    def hear(self, event: Event) -> None:
        """Take note of one event."""
        now = int(time.time() * 1000)
        with self._lock:
            if event.kind == "started":
                self._running.update(dict.fromkeys((stage.id for stage in event.work.stages), now))
            elif event.kind != "progress":
                for stage in event.work.stages:
                    self._running.pop(stage.id, None)
                    self._points.pop(stage.id, None)
            elif event.work.kind == "train":
                self._hear_training(event, now)

    def _hear_training(self, event: Event, now: int) -> None:
        """Keep what a training reports, once: its reports repeat the newest point and reading."""
        stage, metrics = event.work.stages[0], event.metrics
        waiting = self._points.setdefault(stage.id, deque(maxlen=WAITING))
        reading = {k.removeprefix("system/"): v for k, v in metrics.items() if k.startswith("system/")}
        curve = progress_points(stage, metrics, now)
        for what, moment, points in (
            ("curve", metrics.get("recorded", metrics.get("step", 0)), curve),
            ("machine", reading.get("time", 0), reading_points(reading)),
        ):
            if moment and self._told.get((stage.id, what)) != moment:
                self._told[stage.id, what] = moment
                waiting.extend(points)

    def running(self) -> dict[str, int]:
        """Ids of the stages that run, and when they began, in milliseconds since 1970."""
        with self._lock:
            return dict(self._running)

    def take(self) -> tuple[str, Sequence[Point]] | None:
        """The points of the training of which most wait; None where none do."""
        with self._lock:
            most = max(self._points, key=lambda id_: len(self._points[id_]), default=None)
            if most is None or not self._points[most]:
                return None
            points = list(self._points[most])
            self._points[most].clear()
            return most, points
