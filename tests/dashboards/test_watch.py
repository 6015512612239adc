"""`--watch`, and the pictures of the hardest objects."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from samref_dashboards.report import main

Writer = Callable[..., list[dict[str, Any]]]


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


@pytest.mark.slow
def test_watch_rewrites_the_page_when_tables_change(write_results: Writer, tmp_path: Path) -> None:
    folder, page = tmp_path / "results", tmp_path / "page.html"
    folder.mkdir()
    # Whoever starts tests in a shell's background hands down SIGINT ignored.
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", f"{listen}; from samref_dashboards.report import main; raise SystemExit(main())"]
    options = [str(folder), "--watch", "--no-open", "--out", str(page)]
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True) as watching:
        try:
            assert watching.stderr is not None
            assert "no trials.parquet in it" in watching.stderr.readline()
            write_results(folder, not_run=range(4, 8))
            wait_for(lambda: page.exists() and "<b>4</b> of 8 trials done" in page.read_text("utf-8"))
            write_results(folder)
            wait_for(lambda: "<b>8</b> of 8 trials done" in page.read_text("utf-8"))
            assert '<meta http-equiv="refresh"' in page.read_text("utf-8")
        finally:
            watching.send_signal(signal.SIGINT)
        try:
            assert watching.wait(60) == 0
        finally:
            watching.kill()


def test_a_page_that_is_not_watched_does_not_reload(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path)
    assert main([str(tmp_path), "--no-open"]) == 0
    assert 'http-equiv="refresh"' not in (tmp_path / "dashboard.html").read_text("utf-8")
