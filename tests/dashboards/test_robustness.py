"""The table of robustness: RClicks' measures on numbers worked out by hand, and from clicks on the page."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from samref_dashboards import exports
from samref_dashboards.content import gather
from samref_dashboards.load import load
from samref_dashboards.robustness import measure
from samref_sweep.record.schemas import SCHEMAS

Writer = Callable[..., list[dict[str, Any]]]


def test_the_measures_are_of_each_object_over_its_slices_then_means() -> None:
    noc = np.array([[6.0, 2.0], [4.0, 2.0]])  # shallow, deep × two objects
    auc = np.array([[0.5, 0.9], [0.7, 0.9]])
    found = measure(noc, auc, np.array([4.0, 2.0]))
    assert (found.mean, found.std) == (3.5, 0.5)  # the deviations are 1 and 0
    assert found.base_change == pytest.approx((0.25 + 0) / 2)
    assert found.group_change == pytest.approx((0.5 + 0) / 2)
    assert found.noise_to_signal == pytest.approx((0.1 / 0.6 + 0) / 2)
    assert found.auc == pytest.approx(0.75)
    assert measure(noc, auc, None).base_change is None


def test_the_page_has_the_table_and_the_noise(write_results: Writer, tmp_path: Path) -> None:
    kinds = [("ritm", None, 0), ("distance", "0.0,0.5", 0), ("distance", "0.5,1.0", 0), ("jitter", None, 5)]
    people = [("ritm", None, 0, "clicks.csv", person) for person in (0, 1)]
    names = ("clicker", "click_slice", "click_noise_px", "first_clicks", "seed")
    for number, values in enumerate([*((*kind, None, 0) for kind in kinds), *people]):
        settings = {f"evaluate.{name}": value for name, value in zip(names, values, strict=True)}
        folder = tmp_path / "results" / str(number)
        trials = write_results(folder, axes={"model.refiner": ("none", "gfr+lfr")}, settings=settings, num_samples=2)
        # One object reaches 0.9 at a click of its own, the other never.
        rows = [
            {"trial": trial["trial"], "dataset": "davis", "sample": sample, "click": click, "x": 1, "y": 1,
             "positive": True, "iou": 0.95 if sample == "a" and click > 2 * number else 0.5}
            for trial in trials for sample in "ab" for click in range(1, 21)
        ]  # fmt: skip
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMAS["clicks"]), folder / "clicks.parquet")
    content = gather(load([tmp_path / "results"]))
    exports.write(replace(content, sections=tuple(content.tables)), tmp_path / "out")
    with (tmp_path / "out" / "robustness.csv").open() as file:
        rows = list(csv.DictReader(file))
    models = ["refiner none", "refiner gfr+lfr"]
    assert [(row["model"], row["dataset"]) for row in rows] == [(model, "davis") for model in models for _ in range(2)]
    for row in rows[1::2]:  # people, with clicks 9 and 11, and 20
        assert (row["clicks"], row["delta_gr"]) == ("2 first clicks of clicks.csv", "")
        assert (float(row["noc_at_90"]), float(row["noc_at_90_std"])) == (15, 0.5)
        assert float(row["delta_sb"]) == pytest.approx((9 + 0) / 2)
    for row in rows[::2]:
        assert float(row["noc_at_90"]) == (4 + 20) / 2  # clicks 3 and 5, and 20
        assert float(row["noc_at_90_std"]) == (1 + 0) / 2
        assert float(row["delta_sb"]) == pytest.approx((3 + 0) / 2)  # ritm needs one
        assert float(row["delta_gr"]) == pytest.approx((3 - 5) / 5 / 2)
    (noise,) = (figure for figure in content.figures if figure.name == "figure-click-noise")
    assert "no model of people" in noise.note
    drawn = noise.panels[0].spec["data"]["values"]
    assert sorted({row["x"] for row in drawn}) == [0, 5]
    assert len({row["line"] for row in drawn}) == 2
