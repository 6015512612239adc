"""`--explore`: the notebook runs as a script, and in a browser."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chromium
import pytest

from samref_dashboards import explore
from samref_dashboards.report import main

Writer = Callable[..., list[dict[str, Any]]]


def test_explore_without_marimo_says_what_to_install(
    write_results: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_results(tmp_path)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "marimo" else find(name))
    assert main([str(tmp_path), "--explore"]) == 2
    error = capsys.readouterr().err
    assert "pip install 'marimo>=0.25'" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "explore.py").exists()


def test_the_notebook_runs_on_results(write_results: Writer, tmp_path: Path) -> None:
    """marimo runs a notebook as a script, without a browser; every query is then made once."""
    write_results(tmp_path / "a", axes={"evaluate.theta": (1.1, 1.2)})
    write_results(tmp_path / "b", axes={"evaluate.theta": (1.3,)}, name="second")
    own = shutil.copyfile(explore.NOTEBOOK, tmp_path / "explore.py")
    for command in (["-m", "marimo", "check", "--strict", str(own)], [str(own), str(tmp_path)]):
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, timeout=100, check=False, cwd=tmp_path
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif(chromium.PROGRAM is None and not os.environ.get("CI"), reason="chromium is not installed")
@pytest.mark.parametrize("changed", [False, True])
def test_the_notebook_opens_with_its_numbers(changed: bool, write_results: Writer, tmp_path: Path) -> None:
    """Ours runs at once; a notebook that came with somebody's results waits to be told."""
    write_results(tmp_path, axes={"evaluate.theta": (1.1, 1.2)})
    if changed:
        (tmp_path / "explore.py").write_text(explore.NOTEBOOK.read_text("utf-8") + "# theirs\n", "utf-8")
    command = [sys.executable, "-c", "from samref_dashboards.report import main; raise SystemExit(main())"]
    environment = {**os.environ, "BROWSER": "true"}  # a program that opens nothing
    with subprocess.Popen(
        [*command, str(tmp_path), "--explore"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    ) as server:
        try:
            assert server.stdout is not None
            address = next(found[0] for line in server.stdout if (found := re.search(r"http://\S+", line)))
            assert address.startswith(("http://localhost:", "http://127.0.0.1:"))
            with chromium.tab() as tab:
                tab.size(1280, 2400)
                tab.open(address, "document.body.innerText.includes('ORDER BY noc')")
                if changed:
                    tab.wait("document.querySelectorAll('.needs-run').length > 3")
                    assert tab.run("document.querySelectorAll('marimo-table').length") == 0
                else:
                    shown = "document.querySelectorAll('marimo-table')[1]?.shadowRoot?.textContent ?? ''"
                    tab.wait(f"({shown}).includes('never_reached') && ({shown}).includes('trial-')")
                    tab.wait("!!document.querySelector('marimo-slider')")
                if picture := os.environ.get("SAMREF_SCREENSHOTS"):
                    tab.screenshot(Path(picture, f"explore-{changed}.png"))
                own = address.partition("?")[0].rstrip("/")
                outside = [one for one in tab.requests if not one.startswith((own, "data:", "blob:", "about:", "ws:"))]
                assert outside == []
        finally:
            os.killpg(server.pid, signal.SIGTERM)  # its own group: marimo and its kernel too
