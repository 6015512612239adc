"""A store, and one in which a toy sweep is done."""

from collections.abc import Callable
from pathlib import Path

import pytest
from toys import toy_plan, write_toy_stage

from samref.config import Runtime
from samref_sweep.execution.unit import perform
from samref_sweep.planning.plan import Plan
from samref_sweep.store.folder import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def finished(store: Store) -> tuple[Plan, Store]:
    """A toy plan (made before anything was done) and the store in which all of it is done."""
    planned = toy_plan(store)
    for work in planned.works:
        perform(work, store, runtime=Runtime(), report=lambda step, metrics: None, runner=write_toy_stage)
    return planned, store


@pytest.fixture
def mlflow_database(store: Store, new_database: Callable[[Path], None]) -> None:
    """The store has the database in which a sweep's runs are logged, empty, as after a first sweep's start."""
    new_database(store.root / "mlflow.db")
