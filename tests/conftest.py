"""What all tests share: photographs, MLflow's database, one Ray a process, markers, and the order of the files."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Half the time of a collection would go into looking for garbage among what it imports (pytest_collection_finish).
gc.disable()

# No test fails because its machine is busy.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# pytest's importlib mode finds no module beside a test, nor do processes that tests start, Ray's workers among them.
BESIDE = [str(Path(__file__).parent / folder) for folder in ("orchestrator", "dashboards", "samref")]
sys.path[:0] = BESIDE
os.environ["PYTHONPATH"] = os.pathsep.join([*BESIDE, *filter(None, [os.environ.get("PYTHONPATH")])])

# Before anything imports torch: on cores that pytest's workers share its threads wait for each other, and networks of
# these sizes take four times the CPU time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray reads it when it is imported, which some tests do before ours: each worker would start through `uv run` again.
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
if os.environ.get("SAMREF_TEST_DEVICE", "cpu") == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton: its kernels, in numpy

DEAREST = (
    "test_end_to_end", "test_workers", "test_cluster", "test_slurm", "test_cli", "test_killed_drivers",
    "test_crash_points", "test_faults", "test_execute", "test_jobs", "test_search", "test_train", "test_object_store",
    "test_wheel", "test_explore", "test_track_server", "test_gpu_benchmark", "test_sam2", "test_parallel",
    "test_mlflow_ui", "test_sam_triton", "test_shards_on_ray", "test_evaluate", "test_report", "test_browser",
    "test_driver", "test_backbones", "test_ray_start", "test_repetitions", "test_train_parts", "test_silent_driver",
    "test_memory_monitor",
)  # fmt: skip
"""Files of ten seconds and more, which are begun first: the last file to end is then a short one. The last one ends the
Ray that the others share."""
ON_RAY = {"test_cluster", "test_jobs", "test_killed_drivers", "test_slurm"}
"""Files whose tests start commands that start Ray; a test that takes `ray_head` or `private_ray` is known by that."""
IN_A_BROWSER = {"test_browser", "test_mlflow_ui", "test_watch", "test_explore"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs Ray, a browser or root, and put the dearest files first."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if item.path.stem in ON_RAY or fixtures & {"ray_head", "private_ray"}:
            item.add_marker(pytest.mark.ray)
        if item.path.stem in IN_A_BROWSER:
            item.add_marker(pytest.mark.browser)
        if "small_disk" in fixtures:  # a file system of its own
            item.add_marker(pytest.mark.root)
        if item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="mounts a file system, which only root may; CI does"))
    rank = {name: number for number, name in enumerate(DEAREST)}

    # A file's own order stays.
    items.sort(key=lambda item: (rank.get(item.path.stem, len(rank)), item.path.stem))


def pytest_collection_finish() -> None:
    """Look for garbage again, among what the tests make."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Free what was imported too at the end: Triton's interpreter tells of objects that are left."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real photographs (GrabCut, DAVIS, ECSSD, COCO_tiny), which are not part of the repository."""
    folder = os.environ.get("SAMREF_TEST_DATA")
    if not folder:
        pytest.skip("SAMREF_TEST_DATA is not set: no real photographs to test with")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"SAMREF_TEST_DATA is {folder}, which is no folder")
    return path


@pytest.fixture(scope="session")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], None]:
    """Puts an empty SQLite file of MLflow at a path: its migrations take seconds, and are made once a session."""
    import shutil

    from samref_sweep.record.mlflow_client import make_database

    folder = tmp_path_factory.getbasetemp()
    template = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "mlflow.db"
    make_database(template)

    def put(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(template, path)

    return put


@pytest.fixture(scope="session")
def _no_ray_is_left() -> Iterator[None]:
    yield
    import ray

    ray.shutdown()


@pytest.fixture(scope="module")
def ray_head(_no_ray_is_left: None) -> None:
    """One Ray for all tests of this process: a sweep that is given no address joins it instead of starting its own."""
    from samref_sweep.execution.ray import cluster  # sets the variables that Ray reads when it is imported

    if not cluster.ray.is_initialized():
        cluster.start_workers_once()
        cluster.ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)


@pytest.fixture
def private_ray(_no_ray_is_left: None) -> Iterator[None]:
    """No Ray in this process: the sweep starts its own, with the environment of this test."""
    import ray

    ray.shutdown()
    yield
    ray.shutdown()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # SQLite may have it open


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Under CI nothing may be skipped for want of photographs, a browser or root: say so and fail."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped and os.environ.get("CI"):
        terminalreporter.section("skipped under CI: a failure", red=True)
        terminalreporter._session.exitstatus = pytest.ExitCode.TESTS_FAILED
