"""Which configurations are compared, how they are paired, and what is never mixed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from samref_dashboards.comparisons import Comparisons, compare
from samref_dashboards.content import Content, gather
from samref_dashboards.design import find_design
from samref_dashboards.load import ResultsError, load
from samref_dashboards.queries import Answers
from samref_dashboards.report import main

Writer = Callable[..., list[dict[str, Any]]]


def compared(folder: Path, *baseline: str) -> Comparisons:
    results = load([folder])
    design = find_design(results)
    return compare(Answers(results, design.configurations), design, baseline)


def edit(file: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    table = pq.read_table(file)
    pq.write_table(pa.Table.from_pylist(change(table.to_pylist()), schema=table.schema), file)


def test_difference_is_the_headlines_difference(write_results: Writer, tmp_path: Path) -> None:
    grid = {"evaluate.theta": (1.1, 1.3), "evaluate.data": ("davis", "grabcut"), "train.seed": (0, 1)}
    trials = write_results(tmp_path, axes=grid)
    found = compared(tmp_path)
    assert found.baseline == "θ 1.1"
    assert len(found.differences) == 4
    for difference in found.differences:
        mine = [t for t in trials if t["evaluate.data"] == difference.configuration.data]
        means = {
            theta: np.mean([t[difference.metric] for t in mine if t["evaluate.theta"] == theta]) for theta in (1.1, 1.3)
        }
        assert difference.interval.mean == pytest.approx(means[1.3] - means[1.1])
        assert difference.interval.low <= difference.interval.mean <= difference.interval.high
        assert (difference.num_objects, difference.seeds) == (12, "2")
        assert difference.adjusted_p >= difference.interval.p


def test_only_seeds_that_both_have_are_paired(write_results: Writer, tmp_path: Path) -> None:
    trials = write_results(tmp_path, axes={"evaluate.theta": (1.1, 1.3), "train.seed": (0, 1, 2)}, failed=[1])
    difference = compared(tmp_path).differences[0]
    assert difference.seeds == "2 of 3"
    ours, theirs = ([trials[first + seed]["noc_at_90"] for seed in (0, 2)] for first in (3, 0))
    assert difference.interval.mean == pytest.approx(np.mean(ours) - np.mean(theirs))


@pytest.mark.parametrize("theta", ["∞", "inf", ".inf"])
def test_an_infinite_theta_is_a_level_with_a_name(write_results: Writer, tmp_path: Path, theta: str) -> None:
    write_results(tmp_path, axes={"evaluate.theta": (1.1, float("inf"))})
    found = compared(tmp_path, f"evaluate.theta={theta}")
    assert found.baseline == "θ ∞"
    assert {each.configuration.values["evaluate.theta"] for each in found.differences} == {1.1}


def test_a_model_without_training_stands_against_the_mean_of_seeds(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path / "a", axes={"model.refiner": ("gfr+lfr",), "train.seed": (0, 1)})
    untrained = {"train.data": None, "train.seed": None, "train.gamma": None, "train.steps": None}
    write_results(tmp_path / "b", axes={"model.refiner": ("none",)}, settings=untrained)
    results = load([tmp_path])
    design = find_design(results)
    assert "model.refiner" in design.axes
    found = compared(tmp_path, "model.refiner=none")
    assert {difference.seeds for difference in found.differences} <= {"2 against 1, not paired"}


def test_other_objects_are_not_compared(write_results: Writer, tmp_path: Path) -> None:
    trials = write_results(tmp_path, axes={"evaluate.theta": (1.1, 1.2, 1.3)})
    last = trials[2]["trial"]
    edit(
        tmp_path / "clicks.parquet",
        lambda rows: [row | {"sample": row["sample"] + ("x" if row["trial"] == last else "")} for row in rows],
    )
    found = compared(tmp_path)
    assert (len(found.differences), found.unlike) == (2, 1)


def test_random_weights_are_not_compared(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path / "a", axes={"evaluate.theta": (1.1, 1.2)})
    write_results(tmp_path / "b", axes={"evaluate.theta": (1.1, 1.2)}, random_weights=True, name="b")
    found = compared(tmp_path)
    assert len(found.differences) == 2
    assert not any(d.configuration.random_weights or d.baseline.random_weights for d in found.differences)


def test_same_settings_on_other_data_are_never_averaged(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path / "a", axes={"train.seed": (0, 1)}, num_samples=12)
    write_results(tmp_path / "b", axes={"train.seed": (2,)}, num_samples=6, name="b")
    design = find_design(load([tmp_path]))
    assert design.axes == ("num_samples",)
    assert sorted(len(group.trials) for group in design.configurations) == [1, 2]


def test_other_fingerprints_are_never_averaged(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path, axes={"train.seed": (0, 1)})
    file = tmp_path / "trials.parquet"
    table = pq.read_table(file).drop_columns("evaluate_data_fingerprint")
    pq.write_table(table.append_column("evaluate_data_fingerprint", pa.array(["aaa", "bbb"])), file)
    assert find_design(load([tmp_path])).axes == ("evaluate_data_fingerprint",)


def test_baseline_can_be_chosen_by_value_or_trial(write_results: Writer, tmp_path: Path) -> None:
    trials = write_results(tmp_path, axes={"evaluate.theta": (1.05, 1.1, 1.2), "train.gamma": (0.6, 0.9)})
    by_value = compared(tmp_path, "evaluate.theta=1.10")
    assert by_value.baseline == "θ 1.10"
    assert {d.configuration.values["evaluate.theta"] for d in by_value.differences} == {1.05, 1.2}
    assert all(d.configuration.values["train.gamma"] == d.baseline.values["train.gamma"] for d in by_value.differences)
    both = compared(tmp_path, "evaluate.theta=1.1", "train.gamma=0.6")
    assert len(both.differences) == 2 * 5
    by_trial = compared(tmp_path, trials[3]["trial"][6:])
    assert {d.baseline.trials[0]["trial"] for d in by_trial.differences} == {trials[3]["trial"]}


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        ("evaluate.theta=9", "evaluate.theta has no such value; it has 1.1, 1.2"),
        ("train.gamma=0.6", "train.gamma is not swept; axes are evaluate.theta"),
        ("trial-zzz", "0 trials have that id"),
    ],
)
def test_a_baseline_that_does_not_exist_is_one_line(
    baseline: str, message: str, write_results: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_results(tmp_path, axes={"evaluate.theta": (1.1, 1.2)})
    with pytest.raises(ResultsError, match=message):
        compared(tmp_path, baseline)
    assert main([str(tmp_path), "--no-open", "--baseline", baseline]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.fixture(scope="module")
def methods(write_results: Writer, tmp_path_factory: pytest.TempPathFactory) -> Content:
    """Two backbones with and without the refiner, whose costs differ."""
    folder = tmp_path_factory.mktemp("methods")
    write_results(folder, axes={"model.backbone": ("sam_vit_b", "sam_vit_h"), "model.refiner": ("none", "gfr+lfr")})
    edit(
        folder / "profile.parquet",
        lambda rows: [row | {"click_seconds": 0.01 * (1 + index)} for index, row in enumerate(rows)],
    )
    return gather(load([folder]))


def test_nobody_beats_the_front_in_both(methods: Content) -> None:
    panel = next(figure for figure in methods.figures if figure.name == "figure-tradeoff").panels[0]
    points = panel.spec["data"]["values"]
    front = next(iter(panel.spec["datasets"].values()))
    assert len(points) == 4
    assert 1 <= len(front) <= 4
    for best in front:
        assert not any(p["x"] <= best["x"] + 1e-9 and p["y"] < best["y"] - 1e-3 for p in points)


def test_methods_are_named_and_ordered_as_in_the_paper(methods: Content) -> None:
    table = next(table for table in methods.tables if table.name == "table2-methods")
    assert [(row.cells[0].text, row.cells[1].text) for row in table.blocks[0].rows] == [
        ("SAM", "ViT-B*"), ("SAM-REF", "ViT-B*"), ("SAM", "ViT-H*"), ("SAM-REF", "ViT-H*"),
    ]  # fmt: skip


def test_axes_that_matter_are_first(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path, axes={"evaluate.theta": (1.1, 1.2), "train.gamma": (0.6, 0.9), "train.steps": (1, 2)})
    edit(
        tmp_path / "trials.parquet",
        lambda rows: [row | {"noc_at_90": 5 + 3 * row["train.gamma"] + row["evaluate.theta"]} for row in rows],
    )
    table = next(table for table in gather(load([tmp_path])).tables if table.name == "importance")
    rows = table.blocks[0].rows
    assert [row.cells[0].text for row in rows] == ["γ", "θ", "steps"]
    shares = [row.cells[2].value for row in rows]
    assert shares == pytest.approx([0.81 / 0.82, 0.01 / 0.82, 0.0], abs=1e-6)
