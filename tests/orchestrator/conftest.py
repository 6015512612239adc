"""A store, one in which a toy sweep is done, and a bucket of a real S3 server on this machine."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from toys import toy_plan, write_toy_stage

from samref.config import Runtime
from samref_sweep.execution.unit import perform
from samref_sweep.planning.plan import Plan
from samref_sweep.store.folder import FolderStore


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def finished(store: FolderStore) -> tuple[Plan, FolderStore]:
    """A toy plan (made before anything was done) and the store in which all of it is done."""
    planned = toy_plan(store)
    for work in planned.works:
        perform(work, store, runtime=Runtime(), report=lambda step, metrics: None, runner=write_toy_stage)
    return planned, store


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The address of an S3 server."""
    from s3 import s3_server

    with s3_server() as address:
        yield address


@pytest.fixture
def bucket(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of a new bucket; what the environment says of S3 is this server."""
    from s3 import CREDENTIALS, make_bucket

    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://{s3}"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SAMREF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))  # no profile of whoever runs the tests
    return make_bucket(s3, tmp_path.name.replace("_", "-").strip("-").lower()[-60:])


@pytest.fixture
def mlflow_database(store: FolderStore, new_database: Callable[[Path], None]) -> None:
    """The store has the database in which a sweep's runs are logged, empty, as after a first sweep's start."""
    new_database(store.root / "mlflow.db")
