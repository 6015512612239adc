"""Real Ray, toy stages: order, failures, resuming, lost workers, interruption."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest
from toys import run_toys, toy_plan, write_toy_stage

from samref.stage import Job, Report
from samref_sweep.errors import ResourceError
from samref_sweep.execution.requests import resolve
from samref_sweep.spec.policy import Resources
from samref_sweep.store.store import Store


def break_gamma(job: Job, report: Report) -> None:
    """The training of γ 0.6 raises; the first worker that profiles is killed."""
    report(1, {"total": 2, "loss": 0.5})
    stage = job.stages[0]
    if stage.kind == "train" and stage.config["train"]["gamma"] == 0.6:
        print("about to fail")
        raise RuntimeError("γ is broken\non two lines")
    marker = job.scratch.parent / "was-killed"
    if stage.kind == "profile" and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    write_toy_stage(job, report)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_head")
def test_a_failure_takes_only_what_needs_it_and_a_rerun_does_only_what_is_missing(store: Store) -> None:
    planned = toy_plan(store)
    result, events = run_toys(planned, store, break_gamma)

    done_at = {s.id: n for n, event in enumerate(events) if event.kind == "done" for s in event.work.stages}
    started = [(n, event.work) for n, event in enumerate(events) if event.kind == "started"]
    assert all(done_at[need] < n for n, work in started for need in work.needs.values())
    assert not result.interrupted
    assert any(event.kind == "progress" and event.metrics["loss"] == 0.5 for event in events)

    outcomes = planned.outcomes(store.done(), result.failures)
    assert [outcome.status for outcome in outcomes] == ["failed", "failed", "done", "done"]
    assert outcomes[0].reason is not None
    assert outcomes[0].reason.startswith("train: RuntimeError: γ is broken on two lines (log: ")
    (failure,) = result.failures.values()
    log = Path(failure.log).read_text()
    assert "about to fail" in log
    assert "Traceback" in log
    assert not list((store.root / ".partial").glob("tune*"))

    again = toy_plan(store)
    assert sorted((work.kind, len(work.stages)) for work in again.works) == [("evaluate", 2), ("train", 1)]
    result, events = run_toys(again, store, write_toy_stage, jobs=1)
    assert [event.work.kind for event in events if event.kind == "done"] == ["train", "evaluate"]
    assert result.failures == {}
    assert toy_plan(store).works == ()


DRIVER = """
import importlib.util, os, sys, threading, time
from pathlib import Path
from toys import toy_plan, write_toy_stage
from samref.config import Runtime
from samref.stage import Stopped
from samref_sweep.execution.ray.tuner import execute
from samref_sweep.execution.signals import ends_in_order
from samref_sweep.store.folder import FolderStore

def slow(job, report):
    assert importlib.util.find_spec("lies_beside") is None  # as the driver, which finds nothing in its working folder
    assert "PL_DISABLE_FORK" not in os.environ  # which Tune sets at the price of a second start of Python
    # Of the two evaluations that run at once, the first hangs and the other reports.
    if job.stages[0].kind == "evaluate":
        try:
            (job.scratch.parent / "hangs").open("x")
        except FileExistsError:
            for step in range(1, 1000):
                try:
                    report(step, {})
                except Stopped:
                    (job.scratch / "progress").write_text(str(step))
                    raise
                time.sleep(0.1)
        time.sleep(100)
    write_toy_stage(job, report)

store = FolderStore(Path(sys.argv[1]))
show = lambda event: print(event.kind, event.work.kind, flush=True)
interrupted = threading.Event()
with ends_in_order(interrupted.set):
    result = execute(toy_plan(store), store, runtime=Runtime(), on_event=show, runner=slow, interrupted=interrupted)
print("interrupted" if result.interrupted else "complete", result.failures, flush=True)
"""


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_all_processes_get_ends_what_runs_in_order_and_leaves_none(
    store: Store, tmp_path: Path, number: signal.Signals
) -> None:
    """As a batch system's SIGTERM; and SIGKILL to all but the driver: a cluster that is gone."""
    (tmp_path / "lies_beside.py").touch()
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", DRIVER, str(store.root)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    said = (line for line in process.stdout if line in ("started evaluate\n", "progress evaluate\n"))
    seen = {"started": 0, "progress": 0}
    while seen["started"] < 2 or not seen["progress"]:
        seen[next(said).split()[0]] += 1
    others = psutil.Process(process.pid).children(recursive=True)
    for each in others:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.send_signal(number)
    if number != signal.SIGKILL:
        process.send_signal(number)
    began = time.monotonic()
    rest, errors = process.communicate(timeout=60)
    print(f"ended {time.monotonic() - began:.1f} s after {number.name}")
    _, alive = psutil.wait_procs(others, timeout=5)
    assert not alive
    assert rest.splitlines()[-1:] == ["interrupted {}"], (process.returncode, rest, errors)
    assert [work.kind for work in toy_plan(store).works if work.kind != "profile"] == ["evaluate", "evaluate"]
    if number == signal.SIGKILL:
        assert process.returncode == 130
        return
    assert process.returncode == 0
    assert "stopping: what runs keeps its progress and ends within seconds" in errors
    assert not store.failures.all()
    (kept,) = [path.read_text() for path in (store.root / "scratch").rglob("progress")]
    assert kept.isdigit()


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.usefixtures("ray_head")
def test_a_disk_that_fills_up_under_tunes_own_files_loses_no_stage(
    store: Store, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))

    def fill(job: Job, report: Report) -> None:
        with contextlib.suppress(OSError), (small_disk / "ballast").open("ab") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        for step in range(3):
            report(step, {"total": 3})
        write_toy_stage(job, report)

    result, _ = run_toys(toy_plan(store), store, fill, jobs=1)
    assert not result.failures
    assert not store.failures.all()
    if result.interrupted:  # as Tune's version has it; what ran is kept
        assert "a disk is full or broken; make room" in result.reason
        (small_disk / "ballast").unlink()
        result, _ = run_toys(toy_plan(store), store, write_toy_stage, jobs=1)
    assert not result.interrupted
    assert not toy_plan(store).works


NODES = [{"CPU": 8.0}, {"CPU": 32.0, "GPU": 4.0}]


def test_what_killed_drivers_left_of_tune_is_removed_at_a_start(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from samref_sweep.execution.ray import tuner
    from samref_sweep.store.locks import held

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead, alive, fresh = (tmp_path / f"{tuner.PREFIX}{name}" for name in ("dead", "alive", "fresh"))
    for folder in (dead, alive, fresh):
        (folder / "work-1").mkdir(parents=True)
    for folder in (dead, alive):
        os.utime(folder, (0, 0))
    with held([alive]), tuner._files_of_tune(store, alone=True) as own:
        assert sorted(path for path in tmp_path.glob(f"{tuner.PREFIX}*")) == sorted([alive, fresh, own])
    assert not own.exists()


@pytest.mark.parametrize(
    ("asked", "nodes", "expected"),
    [
        (Resources(), NODES[:1], (1, 0)),
        (Resources(), NODES, (8, 1)),
        (Resources(cpu="all"), NODES[:1], (8, 0)),
        (Resources(cpu="all"), NODES, (32, 1)),
        (Resources(cpu=3, gpu=0.5), NODES, (3, 0.5)),
    ],
)
def test_auto_and_all_are_what_the_nodes_have(
    asked: Resources, nodes: list[Mapping[str, float]], expected: tuple[float, float]
) -> None:
    request = resolve("train", asked, nodes)
    assert (request.cpu, request.gpu) == expected


@pytest.mark.parametrize("asked", [Resources(cpu=33), Resources(cpu=33, gpu=1)])
def test_a_request_that_no_node_can_serve_is_refused_by_name(asked: Resources) -> None:
    with pytest.raises(ResourceError, match=r"resources.train asks for .* which no node has \(nodes: 8 CPU, 0 GPU; 32"):
        resolve("train", asked, NODES)


def test_a_gpu_where_none_is_is_refused_by_name() -> None:
    with pytest.raises(ResourceError, match=r"resources.train asks for \S+ CPU and 1 GPU, which no node has"):
        resolve("train", Resources(gpu=1), NODES[:1])
