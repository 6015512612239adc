"""The driver called from Python: plain values, lazy imports, a plan that writes nothing; the notebook of the docs."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import samref_sweep
from samref.errors import UserError
from samref_sweep.failures import Failure
from samref_sweep.store.folder import FolderStore

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
((SMALL,), CODE) = (re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) for language in ("yaml", "python"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the documentation's sweep file."""
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL)
    return tmp_path


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("pass", ["torch", "ray", "mlflow", "pyarrow", "numpy", "pydantic", "samref"]),
        ("samref_sweep.plan(samref_sweep.read('small.yaml'))", ["torch", "ray", "mlflow", "pyarrow", "optuna"]),
    ],
    ids=["import", "plan"],
)
def test_nothing_is_imported_before_it_is_needed(folder: Path, code: str, absent: list[str]) -> None:
    check = f"import sys, samref_sweep; {code}; assert not set({absent}) & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_a_plan_is_a_value_and_writes_nothing(folder: Path) -> None:
    planned = samref_sweep.plan(samref_sweep.read("small.yaml", ["evaluate.theta=[1, 1.5, 2]"]))
    assert planned.plan.counts()["evaluate"].to_do == 3
    assert [outcome.status for outcome in planned.outcomes()] == ["not run"] * 3
    assert (planned.complete, planned.suggestions_left, planned.notes) == (False, 0, ())
    assert planned.cost.embedding_bytes > 0
    assert [path.name for path in folder.iterdir()] == ["small.yaml"]


def test_a_plan_says_what_is_odd_about_its_data_and_what_cannot_be_read(folder: Path) -> None:
    rows, columns = np.mgrid[0:40, 0:50]
    for name in ("images", "masks"):
        (folder / "data" / "own" / name).mkdir(parents=True)
    assert cv2.imwrite("data/own/images/a.png", (rows * columns).astype(np.uint16))
    assert cv2.imwrite("data/own/masks/a.png", np.uint8(rows > 20))
    Path("data/own/images/b.heic").touch()
    sweep = samref_sweep.read("small.yaml", ["train=null", "evaluate.data=folder:own", "evaluate.samples=null"])
    assert samref_sweep.plan(sweep).notes == (
        "folder:own: 1 files or folders of other kinds are left out (images/b.heic)",
        "folder:own: 1 of 1 images hold 12-bit values in uint16, of which 4095 is read as white (a.png)",
    )
    assert cv2.imwrite("data/own/masks/a.png", np.uint8(1 + (rows > 20) + (columns > 20)))
    with pytest.raises(UserError, match=r"a mask with several values beside 0: 1 \("):
        samref_sweep.plan(sweep)


def test_what_failed_before_is_no_more_to_do_unless_it_is_tried_again(folder: Path) -> None:
    store = FolderStore(folder / "runs")
    sweep = samref_sweep.read("small.yaml")
    (training,) = [s for s in samref_sweep.plan(sweep).plan.stages.values() if s.kind == "train"]
    store.failures.remember(training.id, Failure("the loss is nan"))
    planned = samref_sweep.plan(sweep, store="runs")
    assert {work.kind for work in planned.plan.works} == {"embed"}
    assert [outcome.status for outcome in planned.outcomes()] == ["failed"] * 2
    again = samref_sweep.plan(sweep, store="runs", retry_failed=True)
    assert {work.kind for work in again.plan.works} == {"embed", "train", "evaluate"}
    assert store.failures.all(), "a plan forgets nothing"


def test_what_cannot_be_run_is_refused_in_one_line(folder: Path) -> None:
    with pytest.raises(UserError, match="Did you mean threshold"):
        samref_sweep.read("small.yaml", ["evaluate.treshold=1"])
    planned = samref_sweep.plan(samref_sweep.read("small.yaml", ["budget.embeddings_gb=1e-6"]))
    with pytest.raises(UserError, match=r"more than budget.embeddings_gb, 1e-06"):
        samref_sweep.run(planned)
    assert not Path("results").exists()
    missing = samref_sweep.plan(samref_sweep.read("small.yaml", ["evaluate.data=davis"]))
    assert "DAVIS" in missing.notes[0]
    with pytest.raises(UserError, match="DAVIS"):
        missing.check()
    with pytest.raises(AttributeError, match="no attribute 'fly'"):
        samref_sweep.fly  # noqa: B018


@pytest.mark.slow
@pytest.mark.usefixtures("ray_head")
def test_the_notebook_of_the_documentation_runs_a_sweep_and_gets_its_tables(
    folder: Path, capsys: pytest.CaptureFixture[str], new_database: Callable[[Path], None]
) -> None:
    new_database(folder / "runs" / "mlflow.db")
    names: dict[str, Any] = {}
    for block in CODE:
        exec(block, names)
    assert "evaluate 0 done, 2 to do" in capsys.readouterr().out
    result = names["result"]
    assert [outcome.status for outcome in result.outcomes.values()] == ["done", "done"]
    assert (result.failures, result.interrupted, result.where) == ({}, False, str(folder / "results/small"))
    assert names["trials"].column("trial").to_pylist() == list(result.outcomes)
    assert names["frame"]["evaluate.theta"].tolist() == [1.05, 1.2]
    assert len(names["curve"]) == 2 * 3

    planned = samref_sweep.plan(names["sweep"], store="runs")
    assert planned.complete
    again = samref_sweep.run(planned, results="elsewhere")
    assert again.outcomes == result.outcomes
    assert again.table().equals(names["trials"])
