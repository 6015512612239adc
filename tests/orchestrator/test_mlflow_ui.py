"""MLflow's own page on a finished sweep, in a browser: what a user looks for is where a user looks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import chromium
import pytest
from mlflow import MlflowClient

from samref_sweep.planning.plan import Plan
from samref_sweep.record.tracker import Tracker
from samref_sweep.store.store import Store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.usefixtures("mlflow_database"),
    pytest.mark.skipif(chromium.PROGRAM is None and not os.environ.get("CI"), reason="chromium is not installed"),
]


@contextmanager
def served(uri: str, log: Path) -> Iterator[str]:
    """`mlflow server` on this machine alone; its address."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with log.open("w") as out:
        server = subprocess.Popen(
            [*command, "--port", str(port), "--workers", "1"],
            stdout=out,
            stderr=out,
            env=environment,
            start_new_session=True,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            end = time.monotonic() + 120
            while True:
                try:
                    with urllib.request.urlopen(f"{address}/health", timeout=5):
                        break
                except (urllib.error.URLError, OSError):
                    assert server.poll() is None, "mlflow server ended"
                    assert time.monotonic() < end, "mlflow server does not answer"
                    time.sleep(0.3)
            yield address
        finally:
            os.killpg(server.pid, signal.SIGTERM)  # its own group: uvicorn's worker too
            server.wait(30)


def test_a_user_finds_the_sweep_its_trials_and_their_numbers(
    finished: tuple[Plan, Store], tmp_path_factory: pytest.TempPathFactory
) -> None:
    planned, store = finished
    tracker = Tracker(planned, store, store.node.mlflow, pytest.fail)
    tracker.close(planned.outcomes(store.done(), {}), interrupted=False)
    client = MlflowClient(tracking_uri=store.node.mlflow)
    experiment = client.get_experiment_by_name("samref-sweep")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    child = next(run for run in runs if "theta=1.05" in run.info.run_name)
    log = tmp_path_factory.mktemp("mlflow") / "server.log"
    with served(store.node.mlflow, log) as address, chromium.tab() as tab:
        tab.size(1600, 1200)
        text = "document.body.innerText"
        # The table of runs: the sweep, and below it, once it is opened, the trials by what sets them apart.
        tab.open(
            f"{address}/#/experiments/{experiment.experiment_id}/runs", "!!document.querySelector('.ag-row button')"
        )
        assert planned.sweep.name in tab.run(text)
        assert "theta=" not in tab.run(text)
        tab.run("document.querySelector('.ag-row button').click()")
        tab.wait(f"{text}.includes('gamma=0.6 theta=1.05') && {text}.includes('gamma=0.9 theta=1.1')")
        if picture := os.environ.get("SAMREF_SCREENSHOTS"):
            tab.screenshot(Path(picture, "mlflow-runs.png"))
        # One trial: its parameters and metrics, its parent, its artefacts.
        run = f"{address}/#/experiments/{experiment.experiment_id}/runs/{child.info.run_id}"
        tab.open(run, f"{text}.includes('evaluate.theta')")
        shown = tab.wait(f"{text}.includes('noc_at_90') && {text}")
        assert "1.05" in shown
        assert planned.sweep.name in shown
        if picture:
            tab.screenshot(Path(picture, "mlflow-trial.png"))
        tab.open(f"{run}/artifacts", f"{text}.includes('trial.json')")
        tab.wait(f"{text}.includes('evaluate.json')")
        tab.open(f"{run}/model-metrics", f"{text}.includes('miou_at_click')")
        outside = [one for one in tab.requests if not one.startswith((address, "data:", "blob:", "about:"))]
        assert outside == []
