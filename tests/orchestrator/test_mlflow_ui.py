"""MLflow's own page on a finished sweep, in a browser: what a user looks for is where a user looks."""

from __future__ import annotations

import json
import os
import re
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
    assert tracker.close(planned.outcomes(store.done(), {}), interrupted=False)
    client = MlflowClient(tracking_uri=store.node.mlflow)
    experiment = client.get_experiment_by_name("samref-sweep")
    assert experiment is not None
    runs = {run.info.run_name: run.info.run_id for run in client.search_runs([experiment.experiment_id])}
    child, other, training = runs["gamma=0.6 theta=1.05"], runs["gamma=0.9 theta=1.1"], runs["training gamma=0.6"]
    log = tmp_path_factory.mktemp("mlflow") / "server.log"
    with served(store.node.mlflow, log) as address, chromium.tab() as tab:
        tab.size(1600, 1200)
        text = "document.body.innerText"
        all_runs = f"{address}/#/experiments/{experiment.experiment_id}/runs"

        def look(page: str, *words: str) -> str:
            """Open a page of MLflow's and wait until it shows these words; all of its text."""
            tab.open(page, f"{text}.length > 0")
            shown = tab.wait(" && ".join(f"{text}.includes({json.dumps(word)})" for word in words) + f" && {text}")
            if folder := os.environ.get("SAMREF_SCREENSHOTS"):
                tab.screenshot(Path(folder, f"mlflow-{re.sub(r'[^a-z]+', '-', page.rpartition('/#')[2])[-40:]}.png"))
            return str(shown)

        # The table of runs: the sweep, and below it, once it is opened, the trials by what sets them apart.
        tab.open(all_runs, "!!document.querySelector('.ag-row button')")
        assert planned.sweep.name in tab.run(text)
        assert "theta=" not in tab.run(text)
        tab.run("document.querySelector('.ag-row button').click()")
        names = [name for name in runs if name != planned.sweep.name]
        tab.wait(" && ".join(f"{text}.includes('{name}')" for name in names))
        # The sweep's own run, at the address that the end of the sweep prints: configurations with their means.
        assert tracker.link
        parent = look(tracker.link.replace("http://127.0.0.1:5000", address), "NoC90", "gamma=0.6 theta=1.05")
        assert planned.sweep.purpose in parent
        assert "noc_at_90 mean/gamma 0.6 theta 1.05" in parent
        look(f"{all_runs}/{runs[planned.sweep.name]}/artifacts", "configurations.csv")
        # One trial: its settings, numbers, data, sweep and training, and its files.
        shown = look(f"{all_runs}/{child}", "evaluate.theta", "noc_at_90", "miou_at_1", "Its training", "shapes")
        assert "1.05" in shown
        assert planned.sweep.name in shown
        link = json.dumps(f"a[href*='{training}']")
        look(str(tab.run(f"document.querySelector({link}).href")), "training gamma=0.6", "train.gamma", "learning_rate")
        look(f"{all_runs}/{child}/artifacts", "trial.json", "evaluate.json")
        # Charts of a trial, of its training, and two trials side by side.
        look(f"{all_runs}/{child}/model-metrics", "miou_at_click")
        look(f"{all_runs}/{training}/model-metrics", "train/loss", "learning_rate")
        both = json.dumps([child, other]).replace('"', "%22")
        page = f"{address}/#/compare-runs?runs={both}&experiments=[%22{experiment.experiment_id}%22]"
        look(page, "Comparing 2 Runs", "gamma=0.6 theta=1.05", "gamma=0.9 theta=1.1", "evaluate.theta")
        outside = [one for one in tab.requests if not one.startswith((address, "data:", "blob:", "about:"))]
        assert outside == []
