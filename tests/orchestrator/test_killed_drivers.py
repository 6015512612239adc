"""Drivers killed at five moments of one sweep on Ray, and two at once: nothing is lost, doubled or done again.

All moments between two steps of the store or of MLflow's log are in test_crash_points.py.
"""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from samref_sweep.record.schemas import SCHEMAS
from samref_sweep.store.folder import FolderStore

NewDatabase = Callable[[Path], None]

KILLS = 5
DRIVER = Path(__file__).parent / "programs" / "sweep_driver.py"
ENVIRONMENT = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64}


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """One Ray for all drivers; each still has worker processes of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"]
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
    env = os.environ | ENVIRONMENT
    command = [sys.executable, str(DRIVER), str(root), address]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=env)


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def finish(process: subprocess.Popen[str]) -> None:
    said, _ = process.communicate("\n", timeout=300)
    assert said.splitlines()[-1] == "complete {}", said


@pytest.fixture(scope="module")
def undisturbed(cluster: str, tmp_path_factory: pytest.TempPathFactory, new_database: NewDatabase) -> Path:
    """A store whose sweep two drivers did at once, neither of them killed."""
    root = tmp_path_factory.mktemp("drivers") / "undisturbed"
    new_database(root / "mlflow.db")
    drivers = [drive(root, cluster) for _ in range(2)]
    for driver in drivers:
        finish(driver)
    return root


@pytest.mark.slow
def test_two_drivers_on_one_store_do_every_stage_once(undisturbed: Path) -> None:
    attempts = {path.name: path.stat().st_size for path in (undisturbed / "attempts").iterdir()}
    assert attempts == dict.fromkeys(FolderStore(undisturbed).done(), 1)


@pytest.mark.slow
def test_a_driver_killed_at_five_moments_ends_like_one_that_was_not(
    cluster: str, undisturbed: Path, tmp_path: Path, new_database: NewDatabase
) -> None:
    root = tmp_path / "killed"
    new_database(root / "mlflow.db")  # a kill while MLflow makes it is in test_track_server.py
    following = drive(root, cluster)
    moments = random.Random(5)
    seen: dict[str, int] = {}
    fresh = []
    for _ in range(KILLS):
        process, following = following, drive(root, cluster)
        assert process.stdout is not None
        go(process)
        if moments.random() < 0.8:  # else in its first seconds
            for line in process.stdout:
                if line.startswith(("done", "complete")):
                    break
        time.sleep(moments.uniform(0, 1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = {path.name: path.stat().st_ino for path in (root / "stages").glob("*")}
        assert seen.items() <= done.items()
        fresh.append(len(done) - len(seen))
        seen = done
    print(f"stages done between kills: {fresh}")  # what the kills hit, with pytest -rA
    assert sum(count > 0 for count in fresh) >= KILLS // 2, "the sweep was over before most kills"
    finish(following)

    store = FolderStore(root)
    assert not (root / "repeated").exists()
    assert seen.items() <= {path.name: path.stat().st_ino for path in store.stages.iterdir()}.items()
    tables = sorted((undisturbed / "results").glob("*.parquet"))
    assert {table.stem for table in tables} == SCHEMAS.keys()
    for table in tables:
        assert pq.read_table(root / "results" / table.name).equals(pq.read_table(table)), table.name

    client = MlflowClient(tracking_uri=store.node.mlflow)
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()], max_results=1000)
    logged = sorted(run.data.tags.get("samref.trial") or run.data.tags.get("samref.stage", "") for run in runs)
    trainings = [name for name in store.done() if name.startswith("train-")]
    trials = pq.read_table(root / "results" / "trials.parquet")["trial"].to_pylist()
    assert logged == sorted(["", *trainings, *trials])
    assert {run.info.status for run in runs} == {"FINISHED"}
