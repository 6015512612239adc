"""benchmarks/gpu.py: every path on the CPU, and the report that it writes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
