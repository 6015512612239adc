"""The page's curves over θ: what is drawn, what is said to be best, and the file of all pieces."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from samref_dashboards import exports
from samref_dashboards.content import Content, gather
from samref_dashboards.load import load
from samref_sweep.record.schemas import SCHEMAS

Writer = Callable[..., list[dict[str, Any]]]


def pieces(trial: str, metric: str, values: list[float], excess: list[float]) -> list[dict[str, Any]]:
    """A curve over 1 to 1.4 in even pieces."""
    ends = np.linspace(1.0, 1.4, len(values) + 1).round(3).tolist()
    bands = [{"low": value - 0.5, "high": value + 0.5} for value in values]
    return [
        {"trial": trial, "metric": metric, "theta_from": start, "theta_to": end, "value": value, "excess_low": low}
        | {"excess_high": low + 1, **band}
        for start, end, value, low, band in zip(ends[:-1], ends[1:], values, excess, bands, strict=True)
    ]


def with_curves(folder: Path, trials: list[dict[str, Any]]) -> Content:
    rows = []
    for number, trial in enumerate(trials):
        up = number / 8
        rows += pieces(trial["trial"], "noc_at_90", [6 + up, 5 + up, 5.5 + up, 7 + up], [0.5, 0, -0.25, 1])
        rows += pieces(trial["trial"], "noc_at_95", [9.0], [0.0])
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMAS["curves"]), folder / "curves.parquet")
    return gather(load([folder]))


@pytest.fixture(scope="module")
def single(write_results: Writer, tmp_path_factory: pytest.TempPathFactory) -> Content:
    folder = tmp_path_factory.mktemp("curve")
    trials = write_results(folder, axes={"train.gamma": (0.6, 0.9)}, settings={"model.backbone": "sam_vit_h"})
    return with_curves(folder, trials)


def test_a_line_is_the_curve_and_its_note_says_what_it_means(single: Content) -> None:
    (shown,) = (figure for figure in single.figures if figure.name == "figure-theta-curve")
    assert [panel.title for panel in shown.panels] == ["NoC90, davis", "NoC95, davis"]
    first, second = shown.panels[0].spec["data"]["values"]
    assert first["x"] == [1.0, 1.1, 1.2, 1.3, 1.4]
    assert first["y"] == [6, 6, 5, 5.5, 7]  # a value holds from the point before up to its own
    assert second["y"][0] == 6.125
    assert "davis, γ 0.6: NoC90 is lowest, 5.00, for θ in (1.1, 1.2]" in shown.note
    assert "distinguishable from that outside of (1.1, 1.3]" in shown.note
    for panel in shown.panels:
        alt.LayerChart.from_dict(panel.spec)  # checks it against Vega-Lite's schema


def test_the_table_says_where_each_is_lowest_and_what_is_like_it(single: Content, tmp_path: Path) -> None:
    exports.write(replace(single, sections=tuple(single.tables)), tmp_path)
    with (tmp_path / "theta-curve-best.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[1][:8] == ["γ 0.6", "5.0", "1.1", "1.2", "7.0", "1.1", "1.3", "4"]
    with (tmp_path / "curves.csv").open() as file:
        every = list(csv.DictReader(file))
    assert len(every) == 2 * (4 + 1)
    assert {row["metric"] for row in every} == {"noc_at_90", "noc_at_95"}


def test_seeds_are_a_mean_with_a_band_of_its_own(write_results: Writer, tmp_path: Path) -> None:
    trials = write_results(tmp_path, axes={"train.seed": (0, 1)})
    content = with_curves(tmp_path, trials)
    (shown,) = (figure for figure in content.figures if figure.name == "figure-theta-curve")
    (line,) = shown.panels[0].spec["data"]["values"]
    assert line["y"][1:] == pytest.approx([6.0625, 5.0625, 5.5625, 7.0625], rel=1e-4)
    assert line["seeds_high"][1] - line["seeds_low"][1] == pytest.approx(2 * 0.125 / np.sqrt(2), rel=1e-2)
    assert "inner" in shown.note


def test_results_without_curves_have_neither(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path / "old", num_samples=3)
    content = gather(load([tmp_path / "old"]))
    assert not any("theta-curve" in section.name for section in content.sections)
    tables = replace(content, sections=tuple(content.tables))
    assert not any(file.name == "curves.csv" for file in exports.write(tables, tmp_path / "out"))
