"""What processes of their own do with a store, to be killed: `python use_store.py claim|train|sweep WHERE …`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from stores import train
from toys import run_toys, toy_plan, write_toy_stage

from samref.stage import Job, Report
from samref_sweep.store.opening import open_store


def claim(where: str, *stage_ids: str) -> None:
    """Have some stages until the input ends."""
    with open_store(where).claim(stage_ids):
        print("mine", flush=True)
        sys.stdin.read()


def slowly(job: Job, report: Report) -> None:
    """A training of a minute, with a checkpoint every twentieth of a second."""
    for step in range(1, 1000) if job.stages[0].kind == "train" else ():
        aside, final = job.scratch / "writing", job.scratch / f"step-{step:09d}"
        aside.mkdir()
        (aside / "weights").write_text(str(step) * 1000)
        aside.rename(final)
        for other in job.scratch.glob("step-*"):
            if other != final:
                (other / "weights").unlink()
                other.rmdir()
        time.sleep(0.05)
    write_toy_stage(job, report)


def sweep(where: str, attempts: str) -> None:
    """A toy sweep on Ray, whose trainings weigh 30 MB; each attempt at a stage is noted in a folder."""
    from samref_sweep.record import tables
    from samref_sweep.store.bucket import uploaded

    def counted(job: Job, report: Report) -> None:
        write_toy_stage(job, report)
        for stage, out in zip(job.stages, job.outs, strict=True):
            if stage.kind == "train":
                (out / "weights").write_bytes(os.urandom(30_000_000))
            with Path(attempts, stage.id).open("a") as file:
                file.write("x")

    store = open_store(where)
    planned = toy_plan(store)
    result, _ = run_toys(planned, store, counted)
    with uploaded(f"{where}/results") as folder:
        tables.write(planned, store, result.failures, folder, "")
    print("complete", result.failures, flush=True)


if __name__ == "__main__":
    name, where, *rest = sys.argv[1:]
    if name == "train":
        train(open_store(where), slowly)
    else:
        {"claim": claim, "sweep": sweep}[name](where, *rest)
