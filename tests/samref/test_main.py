"""`python -m samref`: one trial without the orchestrator."""

import json
from pathlib import Path

from samref.__main__ import main

TRIAL = {
    "model": {"backbone": "tiny", "checkpoint": "none", "refiner": "none"},
    "evaluate": {"data": "shapes", "samples": 1, "max_clicks": 1},
    "profile": None,
}


def test_a_trial_is_run_once_and_what_is_missing_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("trial.json").write_text(json.dumps(TRIAL))
    assert main(["trial.json", "--device", "cpu"]) == 0
    first = capsys.readouterr().out
    made = {path.parent.name: path.stat().st_mtime_ns for path in Path("runs").glob("[e]*-*/summary.json")}
    assert main(["trial.json", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.splitlines() == [line for line in first.splitlines() if ": {" in line]
    assert {path.parent.name: path.stat().st_mtime_ns for path in Path("runs").glob("[e]*-*/summary.json")} == made

    Path("trial.json").write_text(json.dumps({**TRIAL, "evaluate": {"data": "davis"}}))
    assert main(["trial.json"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("trial.json: data/DAVIS: no such folder")
