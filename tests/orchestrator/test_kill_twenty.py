"""Drivers killed at twenty random moments of one sweep, and two at once: nothing is lost, doubled or done again."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from toys import toy_plan

from samref_sweep.record import tables as results
from samref_sweep.record import tracker as track
from samref_sweep.record.mlflow_runs import EXPERIMENT
from samref_sweep.store.folder import Store

KILLS = 20
ENVIRONMENT = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64}
DRIVER = """
import sys, time
from pathlib import Path
import toys
from samref_sweep.execution.ray import tuner as execute
from samref_sweep.record import tables as results
from samref_sweep.store.folder import Store
from samref_sweep.record.tracker import Tracker, default_uri

sys.stdin.readline()  # imports take seconds, so the next driver makes them while the one before it runs

def slow(stages, inputs, outs, *, scratch, **rest):
    time.sleep(0.6)
    for stage in stages:
        with open(attempts / stage.id, "a") as file:
            file.write("x")
    if any((scratch.parents[1] / "stages" / stage.id).exists() for stage in stages):
        (scratch.parents[1] / "repeated").touch()
    toys.write_toy_stage(stages, inputs, outs, scratch=scratch, **rest)

store = Store(Path(sys.argv[1]))
attempts = store.root / "attempts"
attempts.mkdir(exist_ok=True)
planned = toys.toy_plan(store, gammas=[n / 100 for n in range(20)], thetas=(1.1, 1.2))
tracker = Tracker(planned, store, default_uri(store), print)

def watch(event):
    print(event.kind, flush=True)
    tracker.on_event(event)

failures = {}
if planned.works:
    failures = toys.run_toys(planned, store, slow, watch, address=sys.argv[2], jobs=None)[0].failures
tracker.close(planned.outcomes(store.done(), failures), interrupted=False)
results.write(planned, store, failures, Path(sys.argv[1]) / "results", "")
print("complete", failures, flush=True)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """One Ray for all drivers; each still has worker processes of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=4"]
    options = [f"--port={address.partition(':')[2]}", "--include-dashboard=false", "--node-ip-address=127.0.0.1"]
    process = subprocess.Popen(
        [*command, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | ENVIRONMENT,
        start_new_session=True,
    )
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(options[0][7:]))):
                break
            time.sleep(0.2)
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def drive(root: Path, address: str) -> subprocess.Popen[str]:
    env = os.environ | ENVIRONMENT | {"PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", DRIVER, str(root), address]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=env)


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def finish(process: subprocess.Popen[str]) -> None:
    said, _ = process.communicate("\n", timeout=300)
    assert said.splitlines()[-1] == "complete {}", said


@pytest.mark.slow
@pytest.mark.timeout(1200)  # twenty starts of a driver, each ten seconds and more on a busy machine
def test_a_driver_killed_at_twenty_moments_ends_like_one_that_was_not(cluster: str, tmp_path: Path) -> None:
    root = tmp_path / "killed"
    following = drive(root, cluster)
    finish(drive(tmp_path / "undisturbed", cluster))
    moments = random.Random(20)
    seen: dict[str, int] = {}
    fresh = []
    for _ in range(KILLS):
        process, following = following, drive(root, cluster)
        assert process.stdout is not None
        go(process)
        if moments.random() < 0.8:  # else in its first seconds
            for line in process.stdout:
                if line.startswith(("started", "complete")):
                    break
        time.sleep(moments.uniform(0, 1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = {path.name: path.stat().st_ino for path in (root / "stages").glob("*")}
        assert seen.items() <= done.items()
        fresh.append(len(done) - len(seen))
        seen = done
    print(f"stages done between kills: {fresh}")  # what the kills hit, with pytest -rA
    assert sum(count > 0 for count in fresh) >= KILLS // 4, "the sweep was over before most kills"
    finish(following)

    store = Store(root)
    assert not (root / "repeated").exists()
    assert seen.items() <= {path.name: path.stat().st_ino for path in store.stages.iterdir()}.items()
    for name in results.SCHEMAS:
        file = f"results/{name}.parquet"
        assert pq.read_table(root / file).equals(pq.read_table(tmp_path / "undisturbed" / file)), name

    client = MlflowClient(tracking_uri=track.default_uri(store))
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    runs = client.search_runs([experiment], max_results=1000)
    logged = sorted(run.data.tags.get("samref.trial", "") for run in runs)
    planned = toy_plan(store, gammas=[n / 100 for n in range(20)], thetas=(1.1, 1.2))
    assert logged == sorted(["", *(trial.id for trial in planned.trials)])
    assert {run.info.status for run in runs} == {"FINISHED"}


@pytest.mark.slow
def test_two_drivers_on_one_store_do_every_stage_once(cluster: str, tmp_path: Path) -> None:
    drivers = [drive(tmp_path, cluster) for _ in range(2)]
    for driver in drivers:
        finish(driver)
    attempts = {path.name: path.stat().st_size for path in (tmp_path / "attempts").iterdir()}
    assert attempts == dict.fromkeys(Store(tmp_path).done(), 1)
