"""What the page says first: a sentence for each axis that was asked about, and how sure it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from samref_dashboards.content import Content, gather
from samref_dashboards.load import load

Writer = Callable[..., list[dict[str, Any]]]


def with_clicks(folder: Path, needed: Callable[[dict[str, Any], int], int]) -> Content:
    """The results, in which a trial (its row) needs so many clicks to IoU 0.9 for the sample of this number."""
    trials = {row["trial"]: row for row in pq.read_table(folder / "trials.parquet").to_pylist()}
    file = folder / "clicks.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    numbers = {sample: number for number, sample in enumerate(sorted({row["sample"] for row in rows}))}
    for row in rows:
        row["iou"] = 0.92 if row["click"] >= needed(trials[row["trial"]], numbers[row["sample"]]) else 0.5
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)
    return gather(load([folder]))


def test_every_axis_has_an_answer_with_its_interval_objects_and_seeds(write_results: Writer, tmp_path: Path) -> None:
    grid = {"model.refiner": ("none", "gfr+lfr"), "train.gamma": (0.6, 0.9), "train.seed": (0, 1)}
    write_results(tmp_path, axes=grid, settings={"evaluate.data": "grabcut"})
    content = with_clicks(tmp_path, lambda trial, number: 6 + number % 3 - 2 * (trial["model.refiner"] != "none"))
    refiner, gamma = content.findings
    assert refiner.what == "refiner gfr+lfr: 2.00 fewer clicks to 90 % than none"
    assert (refiner.sure, refiner.verdict) == (True, "distinguishable")
    assert refiner.how == ("95 % interval −2.00 to −2.00 clicks; 12 of 50 objects of grabcut; 2 seeds; mean of 2 pairs")
    assert gamma.what == "γ 0.9: as many clicks to 90 % than 0.6".replace("than", "as with")
    assert (gamma.sure, gamma.verdict) == (False, "not distinguishable")
    assert gamma.how.startswith("no object needs more or fewer; ")


def test_an_effect_is_the_mean_over_all_pairs_that_differ_in_the_axis_alone(
    write_results: Writer, tmp_path: Path
) -> None:
    grid = {"evaluate.theta": (1.1, 1.3), "train.gamma": (0.6, 0.9), "train.seed": (0, 1)}
    trials = write_results(tmp_path, axes=grid)
    content = gather(load([tmp_path]))
    mean = {t: np.mean([row["noc_at_90"] for row in trials if row["evaluate.theta"] == t]) for t in (1.1, 1.3)}
    shown = content.figures[0].panels[0].spec["data"]["values"]
    assert [row["configuration"] for row in shown] == ["θ 1.3 − 1.1", "γ 0.9 − 0.6"]
    assert shown[0]["mean"] == pytest.approx(mean[1.3] - mean[1.1], abs=1e-4)


def test_of_many_values_the_best_answers_and_a_best_baseline_says_so(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path, axes={"evaluate.theta": (1.1, 1.2, 1.3)})
    best = {1.1: 6, 1.2: 4, 1.3: 9}
    (finding,) = with_clicks(tmp_path, lambda trial, _: best[trial["evaluate.theta"]]).findings
    assert finding.what == "θ 1.2: 2.00 fewer clicks to 90 % than 1.1, of 3 values"
    worse = {1.1: 4, 1.2: 6, 1.3: 9}
    (finding,) = with_clicks(tmp_path, lambda trial, _: worse[trial["evaluate.theta"]]).findings
    assert finding.what == "θ 1.3: 5.00 more clicks to 90 % than 1.1, of 3 values"
    assert finding.sure


def test_an_interval_without_zero_that_is_one_of_many_says_why_nothing_follows(
    write_results: Writer, tmp_path: Path
) -> None:
    thetas = (1.1, *(1.2 + i / 100 for i in range(9)))
    write_results(tmp_path, axes={"evaluate.theta": thetas})
    (finding,) = with_clicks(tmp_path, lambda trial, i: 8 - (trial["evaluate.theta"] == 1.2 and i % 3 == 0)).findings
    assert finding.what == "θ 1.20: 0.33 fewer clicks to 90 % than 1.10, of 10 values"
    assert finding.verdict == "not distinguishable"
    assert re.match(
        r"95 % interval −0\.\d\d to −0\.\d\d clicks, p = 1\.00 among 18 comparisons \(Holm\); ", finding.how
    )


def test_axes_that_change_together_are_one_answer(write_results: Writer, tmp_path: Path) -> None:
    """Of coupled axes (zip) nobody can tell which it was."""
    for backbone, steps in (("sam_vit_b", 400), ("sam_vit_h", 800)):
        settings = {"model.backbone": backbone, "train.steps": steps}
        write_results(tmp_path / backbone, axes={"train.seed": (0, 1)}, settings=settings)
    (finding,) = gather(load([tmp_path])).findings
    assert finding.what.startswith("backbone sam_vit_h: ")
    assert finding.how.endswith("; steps changes with the backbone")


def test_random_weights_and_single_configurations_answer_nothing(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path / "random", axes={"evaluate.theta": (1.1, 1.2)}, random_weights=True)
    assert gather(load([tmp_path / "random"])).findings == []
    write_results(tmp_path / "one", axes={"train.seed": (0, 1)})
    content = gather(load([tmp_path / "one"]))
    assert content.findings == []
    assert [best.n for best in content.best] == ["n = 2"]


def test_what_is_the_same_in_all_trials_is_said_with_counts(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path, axes={"evaluate.theta": (1.1, 1.2), "train.seed": (0, 1)})
    asked, others = map(dict, gather(load([tmp_path])).same)
    assert asked["train.steps"] == "400"
    assert asked["evaluate.data"] == "davis (12 of 345)"
    assert others["model.freeze_backbone"] == "yes"
    assert not {"evaluate.theta", "train.seed", "train.init"} & {*asked, *others}


def test_sweeps_that_are_compared_say_what_they_differ_in(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path / "a", axes={"evaluate.theta": (1.1, 1.2)}, name="first")
    write_results(tmp_path / "b", axes={"evaluate.theta": (1.1,)}, name="second", settings={"train.steps": 800})
    table = next(table for table in gather(load([tmp_path])).tables if table.name == "sweeps")
    assert [column.label for column in table.columns] == ["setting", "first", "second"]
    rows = [tuple(cell.text for cell in row.cells) for row in table.blocks[0].rows]
    assert rows == [("train.steps", "400", "800"), ("evaluate.theta", "1.1, 1.2", "1.1")]
    alone = gather(load([tmp_path / "a"])).tables
    assert "sweeps" not in [table.name for table in alone]
