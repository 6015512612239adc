"""A driver of a toy sweep on a running Ray, to be killed: `python sweep_driver.py STORE ADDRESS`, and a line of input.

Imports take seconds, so the next driver makes them while the one before it runs, and waits for the line.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import toys

from samref.stage import Job, Report
from samref_sweep.execution.ray import tuner  # noqa: F401  # imported before the line comes
from samref_sweep.planning.work import Event
from samref_sweep.record import tables
from samref_sweep.record.tracker import Tracker
from samref_sweep.store.folder import FolderStore


def main(root: Path, address: str) -> None:
    store = FolderStore(root)
    attempts = root / "attempts"
    attempts.mkdir(exist_ok=True)

    def slow(job: Job, report: Report) -> None:
        time.sleep(0.6)
        for stage in job.stages:
            with (attempts / stage.id).open("a") as file:
                file.write("x")
        if any((root / "stages" / stage.id).exists() for stage in job.stages):
            (root / "repeated").touch()
        toys.write_toy_stage(job, report)

    planned = toys.toy_plan(store, gammas=[number / 100 for number in range(8)], thetas=(1.1, 1.2))
    tracker = Tracker(planned, store, store.node.mlflow, print, live=True)

    def watch(event: Event) -> None:
        print(event.kind, flush=True)
        tracker.on_event(event)

    failures = {}
    if planned.works:
        failures = dict(toys.run_toys(planned, store, slow, watch, address=address, jobs=None)[0].failures)
    tracker.close(planned.outcomes(store.done(), failures), interrupted=False)
    tables.write(planned, store, failures, root / "results", "")
    print("complete", failures, flush=True)


if __name__ == "__main__":
    sys.stdin.readline()
    main(Path(sys.argv[1]), sys.argv[2])
