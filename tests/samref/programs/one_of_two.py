"""One of two processes (RANK) that train together: [jobs, [port, port], target] as JSON; writes `target.RANK`.

The jobs run one after the other: the first makes its process group itself, for the others one is up, as in Ray
Train's workers.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from samref.config import Runtime
from samref.refiner import SamRef
from samref.run_stage import run_in_group
from samref.stage import Job, Stage

RANK = int(os.environ["RANK"])
calls = 0


def run(job: dict[str, Any]) -> dict[str, Any]:
    """One training; what it gave, or its error."""
    steps: list[int] = []
    inputs = {role: Path(folder) for role, folder in job["inputs"].items()}
    out = Path(job["out"] if RANK == 0 else job["out"] + ".of-rank-1")
    out.mkdir(parents=True)
    try:
        runtime = Runtime(device="cpu", checkpoint_seconds=0)
        own = Job((Stage.from_json(job["stage"]),), inputs, (out,), Path(job["scratch"]), runtime)
        (summary,) = run_in_group(own, lambda step, metrics: steps.append(step))
        return {"metrics": summary.metrics, "reported": steps, "written": sorted(p.name for p in out.iterdir())}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def full(module: torch.nn.Module, arguments: Any, output: Any) -> None:
    """A hook: memory runs out at the third step of process 1, whose parts are whole until then."""
    global calls
    calls += isinstance(module, SamRef) and torch.is_grad_enabled()
    if calls == 3 and RANK == 1:
        calls += 1
        raise torch.OutOfMemoryError("CUDA out of memory")


def main() -> None:
    global calls
    torch.set_num_threads(1)
    jobs, ports, target = json.loads(sys.argv[1])
    os.environ["MASTER_PORT"] = str(ports[0])
    results = [run(jobs[0])]
    os.environ["MASTER_PORT"] = str(ports[1])
    torch.distributed.init_process_group("gloo")
    for job in jobs[1:]:
        calls = 0
        handle = torch.nn.modules.module.register_module_forward_hook(full) if job["full"] else None
        results.append(run(job))
        if handle:
            handle.remove()
    torch.distributed.destroy_process_group()
    Path(f"{target}.{RANK}").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
