"""What Ray's memory monitor kills: on a Ray of its own, whose threshold is low; the last of the files that use Ray."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from toys import run_toys, toy_plan

from samref.stage import Job, Report
from samref_sweep.store.folder import FolderStore


def wait_to_be_killed(job: Job, report: Report) -> None:
    with (job.scratch.parents[1] / "attempts").open("a") as file:
        file.write("x")
    time.sleep(60)


@pytest.mark.slow
@pytest.mark.usefixtures("private_ray")
def test_what_rays_memory_monitor_kills_is_out_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")  # of the machine's memory, which is in use already
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    store = FolderStore(tmp_path / "store")
    planned = toy_plan(store)
    planned = replace(planned, works=planned.works[:1])
    result, _ = run_toys(planned, store, wait_to_be_killed, jobs=1)
    (failure,) = result.failures.values()
    assert (failure.kind, "memory was full" in failure.reason) == ("out_of_memory", True), failure
