"""A process that ends at any of its steps leaves a store and a database from which the next one gets to the end."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parent / "programs" / "crash_points.py"


def cut_everywhere(scenario: str, folder: Path, *uri: str) -> dict[str, Any]:
    """Have all steps of a scenario cut; its steps, after comparing all ends with an undisturbed one."""
    command = [sys.executable, str(PROGRAM), scenario, str(folder), *uri]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=300, check=True).stdout
    found: dict[str, Any] = json.loads(told)
    assert found["last"] == 0, "the scenario itself failed"
    code, undisturbed = found["wanted"]
    assert code == 0
    assert undisturbed["outcome"], "nothing was compared"
    assert not undisturbed["repeated"]
    assert not found["different"]
    return found


@pytest.mark.slow
def test_a_process_may_end_at_any_change_of_a_folder(tmp_path: Path) -> None:
    found = cut_everywhere("folder", tmp_path)
    assert {"os.rename", "os.fsync", "os.mkdir", "os.rmdir", "write"} <= set(found["steps"])
    assert len(found["steps"]) > 40
    outcome = found["wanted"][1]["outcome"]
    assert [stage_id.partition("-")[0] for stage_id in outcome["stages"]] == ["embed", "train"]
    assert len(outcome["journal"]) == 2
    assert outcome["failures"]
    assert not outcome["left"]


@pytest.mark.slow
def test_a_process_may_end_at_any_change_of_object_storage(bucket: str, tmp_path: Path) -> None:
    found = cut_everywhere("objects", tmp_path, bucket)
    assert {"bucket.write", "bucket.put", "bucket.remove", "os.rename"} <= set(found["steps"])
    assert len(found["steps"]) > 30
    outcome = found["wanted"][1]["outcome"]
    assert len(outcome["stages"]) == len(outcome["uploads"]) == 2
    assert not outcome["left"]


@pytest.mark.slow
def test_a_process_may_end_at_any_commit_to_mlflow(tmp_path: Path) -> None:
    found = cut_everywhere("mlflow", tmp_path)
    assert len(found["steps"]) > 5
    runs, points = found["wanted"][1]["outcome"]
    assert sum(run[1:2] == ["FINISHED"] for run in runs if isinstance(run, list)) == 3, "sweep, training, trial"
    assert len(points) > 100
