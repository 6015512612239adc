"""The commands of the README on real Ray, MLflow and photographs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from samref_dashboards.report import main as dashboard
from samref_sweep.cli import main

ROOT = Path(__file__).parents[1]
COMMANDS = Path(sys.executable).parent
ONE = ("--jobs", "1")
"""One worker process, whose imports take seconds, where a test does not need two."""

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_head")]


def trials(folder: Path, name: str) -> list[dict[str, object]]:
    return pq.read_table(folder / "results" / name / "trials.parquet").to_pylist()


def settings(**values: object) -> list[str]:
    return [part for key, value in values.items() for part in ("--set", f"{key.replace('__', '.')}={value}")]


@pytest.fixture(autouse=True)
def made_before(tmp_path: Path, new_database: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch) -> None:
    new_database(tmp_path / "runs" / "mlflow.db")
    monkeypatch.chdir(tmp_path)


def kill_after_the_training(*command: object) -> None:
    """Start one of our commands in a process of its own, with a Ray of its own, and kill it when a training is done."""
    line = [str(COMMANDS / "samref-sweep"), *map(str, command)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    said = []
    for text in process.stdout:
        said.append(text)
        if text.startswith("done    train"):
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert said[-1].startswith("done    train"), "".join(said)


def finished() -> dict[str, int]:
    """The finished stages, each with what tells its folder from another one."""
    return {path.name: path.stat().st_ino for path in Path("runs/stages").iterdir()}


def test_the_quickstart_learns_goes_on_after_a_kill_and_a_second_run_has_nothing_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fraction of the quick start; NoC90 far below 20, where the untrained model stays."""
    short = settings(
        train__steps=12, train__samples=40, train__warmup_steps=4, train__gamma=[0.6],
        evaluate__theta=[1.1, 1.3], evaluate__samples=8, profile="null",
    )  # fmt: skip
    quickstart = str(ROOT / "sweeps" / "quickstart.yaml")
    kill_after_the_training(quickstart, *short)
    before = finished()
    assert any(name.startswith("train") for name in before)

    assert main([quickstart, *short, *ONE]) == 0
    assert before.items() <= finished().items()  # what was done is the same folder still
    learned = trials(tmp_path, "quickstart")
    assert [row["status"] for row in learned] == ["done", "done"]
    assert max(row["noc_at_90"] for row in learned) < 17
    assert not any(row["random_weights"] for row in learned)
    for row in learned:
        assert row["clicks_on_global"] + row["clicks_on_previous"] == pytest.approx(20)

    capsys.readouterr()
    assert main([quickstart, *short]) == 0
    said = capsys.readouterr().out
    assert "0 to do" in said
    assert "started" not in said
    # `started` and `device_seconds` too: nothing was computed again.
    assert trials(tmp_path, "quickstart") == learned

    random = {"model__checkpoint": "none", "train": "null"}
    untrained = settings(**random, evaluate__samples=4, evaluate__theta=1.1, profile="null")
    capsys.readouterr()
    assert main([quickstart, *untrained]) == 2
    assert "results/quickstart holds 2 finished trials" in capsys.readouterr().err
    assert main([quickstart, *untrained, *settings(name="untrained"), *ONE]) == 0
    (row,) = trials(tmp_path, "untrained")
    assert row["random_weights"]
    assert row["noc_at_90"] > 19
    assert row["miou_at_20"] < min(other["miou_at_20"] for other in learned) - 0.3

    assert dashboard(["results/untrained", "--no-open"]) == 0
    html = (tmp_path / "results" / "untrained" / "dashboard.html").read_text()
    assert "random weights" in html
    assert "with nothing predicted" in html or "with the predicted mask filled" in html


def test_a_slice_of_table_1_on_real_photographs(tmp_path: Path, real_data: Path) -> None:
    """sweeps/theta.yaml as committed, with the small model, a few steps, ECSSD and DAVIS frames."""
    small = settings(
        model__backbone="tiny", model__refiner_width=16, model__refiner_blocks=1, model__patch_size_px=64,
        train__data="ecssd", train__samples=8, train__steps=4, train__warmup_steps=1, train__batch_size=2,
        evaluate__samples=4, profile__prompts_per_side=1, profile__repeats=1,
    )  # fmt: skip
    assert main([str(ROOT / "sweeps" / "theta.yaml"), *small, "--data-root", str(real_data), *ONE]) == 0
    rows = trials(tmp_path, "theta")
    assert [row["evaluate.theta"] for row in rows] == [1.05, 1.1, 1.15, 1.2, 1.3]
    assert len({row["stage_train"] for row in rows}) == 1
    assert len({row["stage_evaluate"] for row in rows}) == 5
    pasted = [row["clicks_on_global"] for row in rows]
    assert pasted == sorted(pasted)  # a larger θ pastes more on the global result, as in Table 1
    clicks = pq.read_table(tmp_path / "results" / "theta" / "clicks.parquet")
    assert clicks.num_rows == 5 * 4 * 20
    assert set(clicks["dataset"].to_pylist()) == {"davis"}
    assert dashboard(["results/theta", "--no-open"]) == 0
