"""benchmarks/gpu.py: every path on the CPU, and the report that it writes."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from samref.metrics import boundary

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def run(*arguments):
    return subprocess.run(
        [sys.executable, BENCHMARK, *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_every_path_runs_and_gives_every_figure(tmp_path):
    report, results = tmp_path / "gpu.json", tmp_path / "RESULTS.md"
    results.write_text("# Results\n\n## Before\n\nkept\n\n## On a GPU\n\nold\n\n## After\n\nkept too\n")
    done = run("--quick", "--device", "cpu", "--data-root", tmp_path, "--out", report, "--results", results)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert found["failed"] == {}
    assert len(found["paper"]) == 3
    assert min(found["measured"].values()) > 0
    assert "not measured" not in done.stdout

    # The report goes into the file of all claims, where it replaces the one before and nothing else.
    text = results.read_text()
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# Results", "## Before", "## On a GPU", "## After",
    ]  # fmt: skip
    assert "old" not in text
    assert text.count("kept") == 2
    for part in (found["card"], found["torch"], found["date"], f"commit {found['commit']}", "ViT-H encoder, bf16"):
        assert part in text
    assert run("--read", report, "--results", results).returncode == 0
    assert results.read_text() == text


def test_where_time_goes_is_told_by_lines_of_ours(capsys):
    spec = importlib.util.spec_from_file_location("where", BENCHMARK.with_name("where.py"))
    where = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(where)
    mask_HW = np.zeros((300, 300), bool)
    mask_HW[50:200, 80:220] = True
    where.tell("boundaries", lambda: [boundary(mask_HW) for _ in range(300)], "cpu")
    first, *rows = capsys.readouterr().out.strip().splitlines()
    assert first.startswith("boundaries: ")
    assert any("metrics.py:" in row and " boundary" in row for row in rows)
