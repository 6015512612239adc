"""MLflow's server away, broken, killed, back: real servers on loopback, and the sweep that does not notice."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from toys import toy_plan

from samref_sweep.planning.plan import Plan
from samref_sweep.record import tracker as track
from samref_sweep.record.mlflow_client import EXPERIMENT
from samref_sweep.record.tracker import Tracker
from samref_sweep.store.store import Store

NewDatabase = Callable[[Path], None]

pytestmark = pytest.mark.slow  # MLflow's server takes seconds to start


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def mlflow_server(database: str, port: int, artifacts: Path) -> Iterator[Callable[[], None]]:
    """A real server; gives what kills it."""
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--backend-store-uri", database, "--default-artifact-root", str(artifacts)],
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # so that its workers are killed with it
    )

    def kill() -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    try:
        wait_for(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/health").status == 200)
        yield kill
    finally:
        kill()


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise TimeoutError


class Broken(BaseHTTPRequestHandler):
    """Answers 500 to everything."""

    def do_GET(self) -> None:
        self.send_error(500)

    do_POST = do_GET

    def log_message(self, *args: object) -> None: ...


def close(tracker: Tracker, planned: Plan, store: Store, **options: float) -> bool:
    return tracker.close(planned.outcomes(store.done(), {}), interrupted=False, **options)


def runs(uri: str) -> dict[str, list[str]]:
    """Id of the trial or training ("" for the sweep) → the states of its runs."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    found: dict[str, list[str]] = {}
    for run in client.search_runs([experiment.experiment_id]) if experiment else ():
        tags = run.data.tags
        found.setdefault(tags.get("samref.trial") or tags.get("samref.stage") or "", []).append(run.info.status)
    return found


def complete(planned: Plan) -> dict[str, list[str]]:
    trainings = [stage.id for stage in planned.stages.values() if stage.kind == "train"]
    return {name: ["FINISHED"] for name in ("", *trainings, *(trial.id for trial in planned.trials))}


def test_a_server_that_is_absent_broken_or_silent_is_a_warning(finished: tuple[Plan, Store], port: int) -> None:
    planned, store = finished
    warnings: list[str] = []
    uri = f"http://127.0.0.1:{port}"
    assert not close(Tracker(planned, store, uri, warnings.append), planned, store)

    broken = ThreadingHTTPServer(("127.0.0.1", port), Broken)
    threading.Thread(target=broken.serve_forever, daemon=True).start()
    assert not close(Tracker(planned, store, uri, warnings.append), planned, store)
    broken.shutdown()
    broken.server_close()

    with socket.create_server(("127.0.0.1", port)):  # takes connections and never answers
        tracker = Tracker(planned, store, uri, warnings.append)
        tracker.start()
        assert not close(tracker, planned, store, patience_seconds=1)
    assert all("--sync logs later what is missing" in warning for warning in warnings)
    assert [word for word in ("refused", "500", "slow") if any(word in warning for warning in warnings)] == [
        "refused", "500", "slow",
    ]  # fmt: skip


def test_a_server_that_was_killed_and_is_back_has_each_trial_once(
    finished: tuple[Plan, Store], port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_database: NewDatabase
) -> None:
    planned, store = finished
    new_database(tmp_path / "server.db")
    monkeypatch.setattr(track, "RETRY_SECONDS", 0.2)
    database, uri = f"sqlite:///{tmp_path}/server.db", f"http://127.0.0.1:{port}"
    warnings: list[str] = []
    first = Tracker(planned, store, uri, warnings.append)
    first.start()  # nobody is there yet
    with mlflow_server(database, port, tmp_path) as kill:
        wait_for(lambda: len(runs(uri)) > 2)
        kill()  # in the middle of the trials
    assert set(runs(database)) != set(complete(planned)), "it was killed too late"
    with mlflow_server(database, port, tmp_path):
        assert close(first, planned, store)
        assert runs(uri) == complete(planned)
        second = Tracker(planned, store, uri, warnings.append)  # as --sync does
        assert close(second, planned, store)
        assert runs(uri) == complete(planned)
    assert len(warnings) <= 2  # one for each time that it was away, however often it was tried
    assert all("does not take what happens" in warning for warning in warnings)


@pytest.mark.usefixtures("mlflow_database")
def test_a_run_that_was_made_twice_is_one_again(finished: tuple[Plan, Store]) -> None:
    planned, store = finished
    uri = store.node.mlflow
    assert close(Tracker(planned, store, uri, pytest.fail), planned, store)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    for trial in planned.trials[:2]:
        client.create_run(experiment, tags={"samref.trial": trial.id, "samref.sweep": planned.sweep.name})
    assert close(Tracker(planned, store, uri, pytest.fail), planned, store)
    assert runs(uri) == complete(planned)


def test_a_driver_killed_while_it_makes_the_database_leaves_none(finished: tuple[Plan, Store]) -> None:
    """MLflow's migration takes seconds; killed within it, the file could never be opened again."""
    planned, store = finished
    database = store.root / "mlflow.db"
    program = Path(__file__).with_name("programs") / "make_database.py"
    process = subprocess.Popen([sys.executable, program, database])
    wait_for(lambda: any(path.stat().st_size for path in store.root.glob("*/mlflow.db")))
    process.kill()
    process.wait()
    assert not database.exists(), "it was killed too late"
    assert close(Tracker(planned, store, store.node.mlflow, pytest.fail), planned, store)
    assert runs(store.node.mlflow) == complete(planned)


@pytest.mark.usefixtures("mlflow_database")
def test_two_drivers_of_one_sweep_log_each_trial_once_while_the_page_is_open(
    finished: tuple[Plan, Store], port: int
) -> None:
    planned, store = finished
    uri = store.node.mlflow
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.01):
            with suppress(MlflowException):  # the one worker resets a connection at times
                runs(f"http://127.0.0.1:{port}")

    with mlflow_server(uri, port, store.root / "mlflow-artifacts"):
        reader = threading.Thread(target=look)
        reader.start()
        warnings: list[str] = []
        trackers = [Tracker(toy_plan(store), store, uri, warnings.append) for _ in range(2)]
        for tracker in trackers:
            tracker.start()
        closed = [close(tracker, planned, store) for tracker in trackers]
        over.set()
        reader.join()
    assert (closed, warnings) == ([True, True], [])
    assert runs(uri) == complete(planned)
