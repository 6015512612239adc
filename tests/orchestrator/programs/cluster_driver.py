"""A toy sweep on a running cluster, whose trainings wait at their first attempt: ROOT ADDRESS NODE_LOST.

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
from samref_sweep.store.folder import Store

ROOT, ADDRESS, NODE_LOST = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
ATTEMPTS = ROOT / "attempts"


def wait_at_first(job: Job, report: Report) -> None:
    """Note each attempt of a training with its node and the package's file; the first never ends by itself."""
    stage = job.stages[0]
    if stage.kind == "train":
        import samref_sweep

        with (ATTEMPTS / stage.id).open("a") as file:
            file.write(f"{ray.get_runtime_context().get_node_id()} {samref_sweep.__file__}\n")
        if not (job.scratch / "step-1").exists():
            (job.scratch / "step-1").mkdir()
            time.sleep(300)
    toys.write_toy_stage(job, report)


def main() -> None:
    ray.cloudpickle.register_pickle_by_value(toys)  # the nodes do not have it
    ATTEMPTS.mkdir(parents=True, exist_ok=True)
    store = Store(ROOT / "store")
    planned = toys.toy_plan(store, thetas=(1.1,))
    planned = replace(planned, sweep=replace(planned.sweep, retry=Retry(node_lost=NODE_LOST)))
    try:
        result, _ = toys.run_toys(planned, store, wait_at_first, address=ADDRESS, jobs=None)
    except (SpecError, StoreError) as error:
        print("refused:", error)
    else:
        print(json.dumps({stage: asdict(failure) for stage, failure in result.failures.items()}))


if __name__ == "__main__":
    main()
