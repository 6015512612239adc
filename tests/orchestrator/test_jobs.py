"""Ray Jobs: a sweep that a laptop submits, and that goes on when the laptop is shut."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.slow

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
ENVIRONMENT = os.environ | {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "a" * 64,
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "NUMBA_DISABLE_JIT": "1",  # compiling takes longer than two clicks, and what comes with a job is not compiled yet
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
}
SWEEP = """
name: job
trial:
  model: {backbone: tiny, refiner: none}
  train: null
  evaluate: {data: shapes, samples: 1, max_clicks: 2}
  profile: null
parameters:
  model.seed: [0, 1]
"""


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A head with its dashboard, which takes jobs; the dashboard's address."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        port, dashboard, agent = (each.getsockname()[1] for each in sockets)
    options = [f"--port={port}", "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--num-cpus=2"]
    # The agent that starts jobs has one port on every machine, which the clusters of other tests hold.
    options.append(f"--dashboard-agent-listen-port={agent}")
    process = subprocess.Popen(
        [*RAY, "start", "--head", "--block", *options, f"--dashboard-port={dashboard}"],
        env=ENVIRONMENT,
        cwd=tmp_path_factory.mktemp("head"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        for _ in range(300):
            request = urllib.request.Request(
                f"{address}/api/version", headers={"Authorization": f"Bearer {ENVIRONMENT['RAY_AUTH_TOKEN']}"}
            )
            with contextlib.suppress(OSError), urllib.request.urlopen(request):
                break
            time.sleep(0.3)
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def submit(head: str, folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    line = [*RAY, "job", "submit", "--address", head, "--working-dir", folder, "--", *command]
    for _ in range(20):
        job = subprocess.run(line, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
        if "No available agent" not in job.stderr:  # the dashboard answers before the node's agent does
            break
        time.sleep(1)
    return job


def test_a_sweep_is_submitted_as_a_job_and_its_failure_is_the_job_s(
    head: str, tmp_path: Path, new_database: Callable[[Path], None]
) -> None:
    new_database(tmp_path / "store" / "mlflow.db")
    laptop = tmp_path / "laptop"
    laptop.mkdir()
    (laptop / "job.yaml").write_text(SWEEP)
    places = ["--store", tmp_path / "store", "--results", tmp_path / "results"]
    job = submit(head, laptop, "samref-sweep", "job.yaml", "--address", "auto", "--jobs", "1", *places)
    assert job.returncode == 0, job.stdout + job.stderr
    assert "succeeded" in job.stdout
    rows = pq.read_table(tmp_path / "results" / "trials.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["done", "done"]

    refused = submit(head, laptop, "samref-sweep", "job.yaml", "--address", "auto", *places, "--set", "train.gama=1")
    assert refused.returncode != 0
    assert "gama" in refused.stdout
