"""Fixtures of all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real photographs (GrabCut, DAVIS, ECSSD, COCO_tiny), which are not part of the
    repository."""
    folder = os.environ.get("SAMREF_TEST_DATA")
    if not folder:
        pytest.skip("SAMREF_TEST_DATA is not set: no real photographs to test with")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"SAMREF_TEST_DATA is {folder}, which is no folder")
    return path


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Under CI nothing may be skipped for want of photographs or a browser: say so and fail."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped and os.environ.get("CI"):
        terminalreporter.section("skipped under CI: a failure", red=True)
        terminalreporter._session.exitstatus = pytest.ExitCode.TESTS_FAILED
