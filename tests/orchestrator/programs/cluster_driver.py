"""A toy sweep on a running cluster, whose trainings wait at their first two attempts: ROOT ADDRESS.

Prints the failures as JSON, or why the cluster or the store was refused.
"""

import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import ray
import ray.cloudpickle
import toys

from samref.stage import Job, Report
from samref_sweep.errors import SpecError, StoreError
from samref_sweep.spec.policy import Retry
from samref_sweep.store.folder import FolderStore

ROOT, ADDRESS = Path(sys.argv[1]), sys.argv[2]
ATTEMPTS = ROOT / "attempts"


def wait_twice(job: Job, report: Report) -> None:
    """Note each attempt of a training with its node and the package's file; the first two never end by themselves."""
    stage = job.stages[0]
    if stage.kind == "train":
        import samref_sweep

        with (ATTEMPTS / stage.id).open("a") as file:
            file.write(f"{ray.get_runtime_context().get_node_id()} {samref_sweep.__file__}\n")
        steps = len(list(job.scratch.glob("step-*")))
        if steps < 2:
            (job.scratch / f"step-{steps + 1}").mkdir()
            time.sleep(300)
    toys.write_toy_stage(job, report)


def main() -> None:
    ray.cloudpickle.register_pickle_by_value(toys)  # the nodes do not have it
    ATTEMPTS.mkdir(parents=True, exist_ok=True)
    store = FolderStore(ROOT / "store")
    planned = toys.toy_plan(store, thetas=(1.1,))
    planned = replace(planned, sweep=replace(planned.sweep, retry=Retry(node_lost=1)))
    try:
        result, _ = toys.run_toys(planned, store, wait_twice, address=ADDRESS, jobs=None)
    except (SpecError, StoreError) as error:
        print("refused:", error)
    else:
        print(json.dumps({stage: asdict(failure) for stage, failure in result.failures.items()}))


if __name__ == "__main__":
    main()
