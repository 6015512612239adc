"""One training that prints its steps and pauses after each: [stage, inputs, out, scratch, seconds] as JSON."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from samref.config import Runtime
from samref.run_stage import run_job
from samref.stage import Job, Stage

STAGE, INPUTS, OUT, SCRATCH, PAUSE = json.loads(sys.argv[1])


def report(step: int, metrics: Mapping[str, float]) -> None:
    print(step, flush=True)
    time.sleep(PAUSE)


Path(OUT).mkdir()
inputs = {role: Path(folder) for role, folder in INPUTS.items()}
runtime = Runtime(device="cpu", threads=1, checkpoint_seconds=0)
run_job(Job((Stage.from_json(STAGE),), inputs, (Path(OUT),), Path(SCRATCH), runtime), report)
