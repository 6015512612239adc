"""The commands of the README, run as a user runs them: real Ray, MLflow and photographs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = Path(sys.executable).parent

pytestmark = pytest.mark.slow


def command(name: str, *arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run one of our commands with `folder` as the place of store and results."""
    line = [str(COMMANDS / name), *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, cwd=folder, env={**os.environ, "COLUMNS": "200"})


def trials(folder: Path, name: str) -> list[dict[str, object]]:
    return pq.read_table(folder / "results" / name / "trials.parquet").to_pylist()


def settings(**values: object) -> list[str]:
    return [part for key, value in values.items() for part in ("--set", f"{key.replace('__', '.')}={value}")]


@pytest.fixture(autouse=True)
def made_before(tmp_path: Path, new_database: Callable[[Path], None]) -> None:
    new_database(tmp_path / "runs" / "mlflow.db")


def test_the_quickstart_learns_and_a_second_run_has_nothing_to_do(tmp_path: Path) -> None:
    """An eighth of the quick start; NoC90 far below 20, where the untrained model stays."""
    short = settings(train__steps=40, train__gamma=[0.6], evaluate__theta=[1.1, 1.3], evaluate__samples=16)
    quickstart = ROOT / "sweeps" / "quickstart.yaml"
    done = command("samref-sweep", quickstart, *short, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    learned = trials(tmp_path, "quickstart")
    assert [row["status"] for row in learned] == ["done", "done"]
    assert max(row["noc_at_90"] for row in learned) < 17
    assert not any(row["random_weights"] for row in learned)
    for row in learned:
        assert row["clicks_on_global"] + row["clicks_on_previous"] == pytest.approx(20)

    again = command("samref-sweep", quickstart, *short, folder=tmp_path)
    assert again.returncode == 0
    assert "0 to do" in again.stdout
    assert "started" not in again.stdout
    # `started` and `device_seconds` too: nothing was computed again.
    assert trials(tmp_path, "quickstart") == learned

    untrained = settings(model__checkpoint="none", train="null", evaluate__samples=16, evaluate__theta=1.1)
    refused = command("samref-sweep", quickstart, *untrained, folder=tmp_path)
    assert refused.returncode == 2
    assert "results/quickstart holds 2 finished trials" in refused.stderr
    done = command("samref-sweep", quickstart, *untrained, *settings(name="untrained"), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (row,) = trials(tmp_path, "untrained")
    assert row["random_weights"]
    assert row["noc_at_90"] > 19
    assert row["miou_at_20"] < min(other["miou_at_20"] for other in learned) - 0.3

    page = command("samref-dashboard", "results/untrained", "--no-open", folder=tmp_path)
    assert page.returncode == 0, page.stderr
    html = (tmp_path / "results" / "untrained" / "dashboard.html").read_text()
    assert "random weights" in html
    assert "with nothing predicted" in html or "with the predicted mask filled" in html


def test_a_slice_of_table_1_on_real_photographs(tmp_path: Path, real_data: Path) -> None:
    """sweeps/theta.yaml as committed, with the small model, a few steps, ECSSD and DAVIS frames."""
    small = settings(
        model__backbone="tiny", model__refiner_width=16, model__refiner_blocks=1, model__patch_size_px=64,
        train__data="ecssd", train__samples=8, train__steps=4, train__warmup_steps=1, train__batch_size=2,
        evaluate__samples=4, profile__prompts_per_side=1,
    )  # fmt: skip
    done = command("samref-sweep", ROOT / "sweeps" / "theta.yaml", *small, "--data-root", real_data, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = trials(tmp_path, "theta")
    assert [row["evaluate.theta"] for row in rows] == [1.05, 1.1, 1.15, 1.2, 1.3]
    assert len({row["stage_train"] for row in rows}) == 1
    assert len({row["stage_evaluate"] for row in rows}) == 5
    pasted = [row["clicks_on_global"] for row in rows]
    assert pasted == sorted(pasted)  # a larger θ pastes more on the global result, as in Table 1
    clicks = pq.read_table(tmp_path / "results" / "theta" / "clicks.parquet")
    assert clicks.num_rows == 5 * 4 * 20
    assert set(clicks["dataset"].to_pylist()) == {"davis"}
    page = command("samref-dashboard", "results/theta", "--no-open", folder=tmp_path)
    assert page.returncode == 0, page.stderr
