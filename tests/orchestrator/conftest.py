"""A store, and one in which a toy sweep is done."""

import os
import sys
from pathlib import Path

import pytest

from samref.config import Runtime
from samref_sweep.execution.unit import perform
from samref_sweep.planning.plan import Plan
from samref_sweep.store.folder import Store

# pytest's importlib mode finds no module beside a test, nor do Ray's workers.
sys.path.insert(0, str(Path(__file__).parent))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))

from toys import toy_plan, write_toy_stage


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
