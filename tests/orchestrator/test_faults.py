"""Everything that goes wrong with a stage, really caused, in one sweep on real Ray: one reason a training."""

import contextlib
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from toys import run_toys, toy_plan, write_toy_stage

from samref.config import Runtime
from samref.stage import Job, Report
from samref_sweep.cli.commands import main
from samref_sweep.execution.unit import attempt
from samref_sweep.failures import classify
from samref_sweep.planning.plan import Outcome, Plan
from samref_sweep.planning.work import Event
from samref_sweep.record import tables as results
from samref_sweep.spec.policy import Resources, Retry
from samref_sweep.store.folder import FolderStore
from samref_sweep.store.store import Store

pytestmark = pytest.mark.slow


def exhaust_memory(allocate: Callable[[int], object]) -> None:
    """Ask for more memory than the process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, hard))
    try:
        allocate(2**32)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def kill_me() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fill_the_disk() -> None:
    with Path("/dev/full").open("w") as file:
        file.write("x" * 10_000)


def go_wrong(gamma: float, attempt_number: int) -> None:
    """What becomes of the training of each γ."""
    first = attempt_number == 1
    if gamma == 0.1:
        raise RuntimeError("a bug")
    if gamma == 0.2 and first:
        exhaust_memory(lambda count: np.ones(count, np.uint8))
    if gamma == 0.3 and first:
        kill_me()
    if gamma == 0.4:
        kill_me()
    if gamma == 0.5:
        time.sleep(60)
    if gamma == 0.6:
        fill_the_disk()


def faulty(job: Job, report: Report) -> None:
    stage = job.stages[0]
    attempts = job.scratch.parents[1] / "attempts" / stage.id
    attempts.parent.mkdir(exist_ok=True)
    with attempts.open("a") as file:
        file.write("x")
    if stage.kind == "train":
        go_wrong(stage.config["train"]["gamma"], attempts.stat().st_size)
    write_toy_stage(job, report)


GAMMAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


@pytest.fixture(scope="module")
def swept(
    tmp_path_factory: pytest.TempPathFactory, ray_head: None
) -> tuple[Plan, Store, dict[float, Outcome], list[Event]]:
    """One sweep in which all of it happens; γ → what became of its trial."""
    store = FolderStore(tmp_path_factory.mktemp("faults") / "store")
    planned = toy_plan(store, gammas=GAMMAS, thetas=(1.1,))
    requests = planned.sweep.resources | {"train": Resources(cpu=1, gpu=0, time_limit=12.0)}
    sweep = replace(planned.sweep, retry=Retry(node_lost=1), resources=requests)
    planned = replace(planned, sweep=sweep)

    def damage(event: Event) -> None:
        """Flip a bit of the training of γ 0.7 after it was done for the first time, before its evaluation starts."""
        stage = event.work.stages[0]
        if event.kind == "done" and stage.kind == "train" and stage.config["train"]["gamma"] == 0.7:
            attempts = store.root / "attempts" / stage.id
            if attempts.stat().st_size == 1:
                file = store.folder(stage.id) / "training.jsonl"
                content = bytearray(file.read_bytes())
                content[100] ^= 1
                file.write_bytes(content)

    result, events = run_toys(planned, store, faulty, damage)
    outcomes = planned.outcomes(store.done(), result.failures)
    results.write(planned, store, result.failures, store.root / "results", "")
    by_gamma = {trial.config.train.gamma: outcome for trial, outcome in zip(planned.trials, outcomes, strict=True)}  # type: ignore[union-attr]
    return planned, store, by_gamma, events


def attempts_of(planned: Plan, store: Store, gamma: float, kind: str = "train") -> int:
    for trial in planned.trials:
        if trial.config.train is not None and trial.config.train.gamma == gamma:
            stage = trial.stage(kind)  # type: ignore[arg-type]
            assert stage is not None
            return (store.root / "attempts" / stage.id).stat().st_size
    raise KeyError(gamma)


@pytest.mark.parametrize(
    ("gamma", "status", "attempts", "reason"),
    [
        (0.1, "failed", 1, "train: RuntimeError: a bug"),
        (0.2, "done", 2, None),
        (0.3, "done", 2, None),
        (0.4, "failed", 2, "train: its worker process was lost"),
        (0.5, "failed", 1, "train: not done within resources.train.time_limit, 12 s"),
        (0.6, "failed", 1, "train: OSError: [Errno 28] No space left on device"),
        (0.7, "done", 2, None),
    ],
    ids=["error", "out of memory once", "killed once", "killed always", "hangs", "disk full", "bit flipped"],
)
def test_a_fault_takes_only_its_own_trial_and_as_many_attempts_as_its_kind_has(
    swept: tuple[Plan, Store, dict[float, Outcome], list[Event]],
    gamma: float,
    status: str,
    attempts: int,
    reason: str | None,
) -> None:
    planned, store, outcomes, _ = swept
    assert outcomes[gamma].status == status, outcomes[gamma]
    assert attempts_of(planned, store, gamma) == attempts
    assert (outcomes[gamma].reason or "").startswith(reason or "")
    rows = pq.read_table(store.root / "results" / "trials.parquet").to_pylist()
    (row,) = [row for row in rows if row["train.gamma"] == gamma]
    assert (row["status"], row["reason"]) == (status, outcomes[gamma].reason)


def test_what_was_flipped_was_never_evaluated(swept: tuple[Plan, Store, dict[float, Outcome], list[Event]]) -> None:
    planned, store, _, events = swept
    assert attempts_of(planned, store, 0.7, "evaluate") == 1
    (again,) = [event for event in events if event.kind == "again" and event.work.kind == "evaluate"]
    assert again.failure is not None
    assert "training.jsonl has other bytes than those that were written" in again.failure.reason
    assert len(list((store.root / "damaged").iterdir())) == 1


def test_the_log_of_a_hang_says_where(swept: tuple[Plan, Store, dict[float, Outcome], list[Event]]) -> None:
    _, _, outcomes, _ = swept
    reason = outcomes[0.5].reason
    assert reason is not None
    log = Path(reason.partition("(log: ")[2].removesuffix(")")).read_text()
    assert "in go_wrong" in log


def test_only_what_failed_by_itself_is_remembered(
    swept: tuple[Plan, Store, dict[float, Outcome], list[Event]],
) -> None:
    _, store, _, _ = swept
    assert sorted(failure.kind for failure in store.failures.all().values()) == ["error", "time_limit"]


@pytest.mark.parametrize(
    ("allocate", "kind"),
    [(lambda count: np.ones(count, np.uint8), "out_of_memory"), (lambda count: torch.ones(count), "out_of_memory")],
    ids=["numpy", "torch"],
)
def test_memory_that_is_not_there_is_told_apart(allocate: Callable[[int], object], kind: str) -> None:
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        exhaust_memory(allocate)
    assert classify(caught.value) == kind


def write_much(job: Job, report: Report) -> None:
    (job.outs[0] / "much.bin").write_bytes(bytes(5 * 2**20))
    write_toy_stage(job, report)


@pytest.mark.parametrize("with_log", [True, False], ids=["with room for the log", "without"])
def test_a_full_disk_fails_the_stage_and_leaves_the_store_whole(small_disk: Path, with_log: bool) -> None:
    store = FolderStore(small_disk / "store")
    first, second, *_ = [work for work in toy_plan(store, thetas=(1.1,)).works if work.kind == "embed"]
    ballast = small_disk / "ballast"

    def do(work: object) -> object:
        return attempt(work, store, runtime=Runtime(), report=lambda step, metrics: None, runner=write_much)  # type: ignore[arg-type]

    assert do(first) is None
    if not with_log:
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
    failure = do(second)
    assert failure is not None
    assert failure.kind == "storage"  # type: ignore[attr-defined]
    assert "No space left on device" in failure.reason  # type: ignore[attr-defined]
    assert store.done() == {first.stages[0].id}

    ballast.unlink(missing_ok=True)
    subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
    assert do(second) is None
    assert store.done() == {first.stages[0].id, second.stages[0].id}


def test_a_store_that_becomes_read_only_fails_the_stage(small_disk: Path) -> None:
    store = FolderStore(small_disk / "store")
    work = toy_plan(store).works[0]
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    failure = attempt(work, store, runtime=Runtime(), report=lambda step, metrics: None, runner=write_toy_stage)
    assert failure is not None
    assert (failure.kind, failure.reason.partition("] ")[2].partition(":")[0]) == ("storage", "Read-only file system")
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    again = attempt(work, store, runtime=Runtime(), report=lambda step, metrics: None, runner=write_toy_stage)
    assert again is None
    assert store.done() == {work.stages[0].id}


DIVERGES = """
trial:
  model: {backbone: tiny, checkpoint: none, refiner_width: 16, refiner_blocks: 1}
  train: {data: shapes, samples: 4, steps: 3, warmup_steps: 1, batch_size: 2, max_clicks: 1, learning_rate: 1.0e+30,
          gradient_clip: null}
  evaluate: {data: shapes, samples: 2, max_clicks: 2}
  profile: null
resources: {train: {cpu: 1, gpu: 0}, embed: {cpu: 1, gpu: 0}, evaluate: {cpu: 1, gpu: 0}}
"""


@pytest.mark.usefixtures("ray_head")
def test_what_failed_by_itself_is_listed_and_tried_again_only_when_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    new_database: Callable[[Path], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    new_database(tmp_path / "runs" / "mlflow.db")
    Path("diverges.yaml").write_text(DIVERGES)
    assert main(["diverges.yaml", "--jobs", "1"]) == 1
    first = capsys.readouterr().out
    assert "failed  train-" in first
    assert "the loss is nan at step" in first

    assert main(["diverges.yaml", "--jobs", "1"]) == 1
    again = capsys.readouterr().out
    assert "started" not in again
    assert "the loss is nan at step" in again
    assert "--retry-failed does" in again
    (row,) = pq.read_table("results/diverges/trials.parquet").to_pylist()
    assert row["status"] == "failed"
    assert row["reason"].startswith("train: the loss is nan")

    assert main(["diverges.yaml", "--sync"]) == 0
    assert "0 of 1 trials are done" in capsys.readouterr().out

    assert main(["diverges.yaml", "--retry-failed", "--jobs", "1"]) == 1
    assert "failed  train-" in capsys.readouterr().out
