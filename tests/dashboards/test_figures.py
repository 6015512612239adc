"""What charts say: missing seeds are seen, lines can be told apart, and what is compared has one scale."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import altair as alt
import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import vl_convert

from samref_dashboards import exports, theme
from samref_dashboards.content import Content, gather
from samref_dashboards.figure_kit import Figure
from samref_dashboards.load import load

Writer = Callable[..., list[dict[str, Any]]]


def figure(content: Content, name: str) -> Figure:
    return next(figure for figure in content.figures if figure.name == f"figure-{name}")


def with_costs(folder: Path) -> Content:
    """The results, with a cost of its own for each model."""
    profile = pq.read_table(folder / "profile.parquet")
    costs = [row | {"click_seconds": 0.01 * (1 + index)} for index, row in enumerate(profile.to_pylist())]
    pq.write_table(pa.Table.from_pylist(costs, schema=profile.schema), folder / "profile.parquet")
    return gather(load([folder]))


def rows(shown: Figure) -> list[dict[str, Any]]:
    """What all its charts draw."""
    return [row for panel in shown.panels for row in panel.spec["data"]["values"]]


@pytest.fixture(scope="module")
def content(write_results: Writer, tmp_path_factory: pytest.TempPathFactory) -> Content:
    """Every kind of chart: numbers, names, two datasets, two costs, and the third of six seeds' trials missing."""
    folder = tmp_path_factory.mktemp("figures")
    grid = {
        "model.backbone": ("tiny", "sam_vit_b"),
        "evaluate.theta": (1.05, 1.1),
        "evaluate.data": ("davis", "grabcut"),
        "train.gamma": (0.6, 0.9),
        "train.seed": (0, 1),
    }
    write_results(folder, axes=grid, failed=[2])
    return with_costs(folder)


def test_every_chart_is_valid_vega_lite(content: Content) -> None:
    kinds = {
        "success",
        "clicks",
        "noc-by-model-backbone",
        "noc-by-train-gamma",
        "heat",
        "tradeoff",
        "training",
        "differences",
    }
    assert kinds <= {figure.name.removeprefix("figure-") for figure in content.figures}
    for shown in content.figures:
        alt.LayerChart.from_dict(shown.panels[0].spec)
    bad = {**content.figures[0].panels[0].spec, "height": "tall"}
    with pytest.raises(jsonschema.ValidationError):  # so the check is on
        alt.LayerChart.from_dict(bad)


def test_a_missing_seed_is_hollow_and_named(content: Content) -> None:
    for name in ("noc-by-train-gamma", "noc-by-model-backbone"):
        shown = figure(content, name)
        lacking = [row for row in rows(shown) if row["lacking"]]
        assert {(row["n"], row["configuration"]) for row in lacking} == {
            ("1 of 2", "backbone tiny · θ 1.05 · dataset davis · γ 0.9, 1 of 2 seeds")
        }
        assert "Hollow: a seed is missing." in shown.note
        assert 'fill="#fdfdfb"' in vl_convert.vegalite_to_svg(exports.standalone(shown, shown.panels[0]))
    assert [row["text"][-1] for row in rows(figure(content, "heat")) if row["lacking"]] == ["†"]
    assert "1 of 16 curves lack a seed" in figure(content, "clicks").note


def test_a_missing_seed_is_never_on_the_front(write_results: Writer, tmp_path: Path) -> None:
    grid = {"model.backbone": ("sam_vit_b", "sam_vit_h"), "train.seed": (0, 1)}
    write_results(tmp_path, axes=grid, failed=[0])
    shown = figure(with_costs(tmp_path), "tradeoff").panels[0].spec
    (front,) = shown["datasets"].values()
    (whole,) = [row for row in shown["data"]["values"] if not row["lacking"]]
    assert [(point["x"], point["y"]) for point in front] == [(pytest.approx(whole["x"]), pytest.approx(whole["y"]))]


def test_colours_tell_all_lines_of_a_chart_apart(content: Content) -> None:
    shown = figure(content, "noc-by-train-gamma")
    assert shown.legend_title == "backbone · θ"
    assert list(shown.legend) == ["tiny · 1.05", "tiny · 1.10", "sam_vit_b · 1.05", "sam_vit_b · 1.10"]
    for panel in shown.panels:
        drawn = [(row["line"], row["x"]) for row in panel.spec["data"]["values"]]
        assert len(set(drawn)) == len(drawn)


def test_few_configurations_share_one_chart_per_dataset(write_results: Writer, tmp_path: Path) -> None:
    grid = {"model.refiner": ("none", "gfr+lfr"), "train.gamma": (0.6, 0.9), "evaluate.data": ("davis", "grabcut")}
    write_results(tmp_path, axes=grid)
    shown = figure(gather(load([tmp_path])), "clicks")
    assert [(panel.title, panel.data) for panel in shown.panels] == [
        ("davis (12 of 345)", "davis"),
        ("grabcut (12 of 50)", "grabcut"),
    ]
    assert list(shown.legend) == ["none · 0.6", "none · 0.9", "gfr+lfr · 0.6", "gfr+lfr · 0.9"]


def test_curves_are_what_the_clicks_say_and_bands_hold_them(write_results: Writer, tmp_path: Path) -> None:
    """Twelve objects, two seeds: the share that reached 90 %, and mean IoU, counted plainly; bands around them."""
    trials = write_results(tmp_path, axes={"model.refiner": ("none", "gfr+lfr"), "train.seed": (0, 1)})
    content = gather(load([tmp_path]))
    clicks = pq.read_table(tmp_path / "clicks.parquet").to_pylist()
    own = [click for click in clicks if click["trial"] in (trials[0]["trial"], trials[1]["trial"])]
    for number in (1, 3, 20):
        reached = {(c["trial"], c["sample"]) for c in own if c["click"] <= number and c["iou"] >= 0.9}
        after = [click["iou"] for click in own if click["click"] == number]
        for name, value in (("success", len(reached) / 24), ("clicks", sum(after) / 24)):
            row = rows(figure(content, name))[0]
            assert row["line"] == "none"
            place = row["click"].index(number)
            assert row["y"][place] == pytest.approx(100 * value, rel=1e-4)
            assert row["low"][place] <= row["y"][place] <= row["high"][place]
            assert row["high"][place] - row["low"][place] < 100 or name == "success"
    assert "Bands: 95 %" in figure(content, "success").note


def test_many_lines_have_no_bands(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path, axes={"evaluate.theta": (1.1, 1.2, 1.3, 1.4, 1.5)}, num_samples=3)
    shown = figure(gather(load([tmp_path])), "clicks")
    assert len(rows(shown)) == 5
    assert not any("low" in row for row in rows(shown))
    assert "Bands" not in shown.note


def test_every_loss_term_has_a_chart_of_smoothed_curves(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path, axes={"train.gamma": (0.6, 0.9)})
    file = tmp_path / "training.parquet"
    table = pq.read_table(file)
    terms = [row | {"metric": "local_nfl"} for row in table.to_pylist() if row["metric"] == "loss"]
    pq.write_table(pa.concat_tables([table, pa.Table.from_pylist(terms, schema=table.schema)]), file)
    shown = figure(gather(load([tmp_path])), "training")
    assert [panel.title for panel in shown.panels] == ["loss", "local_nfl"]
    raw = [row["value"] for row in terms if row["stage"] == terms[0]["stage"]]
    (curve,) = [
        row["value"] for row in shown.panels[1].spec["data"]["values"] if row["configuration"] == terms[0]["stage"]
    ]
    assert max(map(abs, np.diff(curve[50:]))) < 0.3 * max(map(abs, np.diff(raw[130:])))
    assert sum(curve[50:]) / len(curve[50:]) == pytest.approx(sum(raw[133:]) / len(raw[133:]), rel=0.02)


def test_names_are_in_the_order_of_the_sweep_file(content: Content) -> None:
    first = figure(content, "noc-by-model-backbone").panels[0].spec["data"]["values"]
    assert list(dict.fromkeys(row["x"] for row in first)) == ["tiny", "sam_vit_b"]
    assert content.design.levels("model.backbone") == ["tiny", "sam_vit_b"]


def test_charts_of_one_dataset_have_one_scale(content: Content) -> None:
    curves = figure(content, "clicks")
    scales = {panel.data: set() for panel in curves.panels}
    for panel in curves.panels:
        scales[panel.data].add(tuple(panel.spec["layer"][0]["encoding"]["y"]["scale"]["domain"]))
    assert sorted(scales) == ["davis", "grabcut"]
    assert all(len(found) == 1 for found in scales.values())
    heat = figure(content, "heat")
    for data in scales:
        squares = [row for panel in heat.panels if panel.data == data for row in panel.spec["data"]["values"]]
        squares.sort(key=lambda row: float(row["text"].rstrip("†")))
        assert (squares[0]["fill"], squares[-1]["fill"]) == ("var(--ramp-1)", "var(--ramp-7)")
        assert all(a["fill"] <= b["fill"] for a, b in pairwise(squares))
        assert heat.ramp
        assert heat.panels[0].spec["layer"][0]["encoding"]["x"]["sort"] == ["1.05", "1.10"]
        assert f"{data} {squares[0]['text'].rstrip('†')} to {squares[-1]['text'].rstrip('†')}" in heat.note


def test_equal_numbers_have_ticks_that_say_them(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path, axes={"train.gamma": (0.6, 0.9)}, num_samples=1)
    spec = figure(gather(load([tmp_path])), "noc-by-train-gamma").panels[0].spec
    (value,) = {row["y"] for row in spec["data"]["values"]}
    assert spec["layer"][1]["encoding"]["y"]["scale"]["domain"] == [value - 1, value + 1]


def contrast(one: str, other: str) -> float:
    """WCAG 2.2: from 1 to 21."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colours", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
def test_text_and_lines_stand_out(colours: dict[str, str]) -> None:
    for name, colour in colours.items():
        least = 4.5 if name in ("ink", "soft", "accent", "good", "warn", "bad") else 3.0
        if name not in ("ground", "panel", "line", "bar", "on-ramp"):
            assert min(contrast(colour, colours[ground]) for ground in ("ground", "panel")) >= least, name
    for step in range(1, 8):
        ink = colours["ground" if step > 2 else "on-ramp"]
        assert contrast(colours[f"ramp-{step}"], ink) >= 4.5
