"""samref-dashboard: pages from good results, one clear line from bad ones."""

from __future__ import annotations

import math
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import samref_dashboards
from samref_dashboards import comparisons, paper_tables, tables, theme
from samref_dashboards.design import find_design
from samref_dashboards.load import load
from samref_dashboards.queries import Answers
from samref_dashboards.report import _BUNDLE, main

Writer = Callable[..., list[dict[str, Any]]]


def page(folder: Path, *more: str) -> str:
    assert main([str(folder), "--no-open", *more]) == 0
    return (folder / "dashboard.html").read_text(encoding="utf-8")


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr of a call that is refused."""
    assert main([*arguments, "--no-open"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def text_of(html: str, section: str) -> str:
    """A section's words, without markup."""
    inside = html.split(f'id="{section}"')[1].split("</section>")[0]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", inside))


def test_page_is_whole_and_asks_nobody(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path, failed=[1], not_run=[2])
    html = page(tmp_path)
    assert "<b>6</b> of 8 trials done" in html
    assert "CUDA out of memory" in html
    assert "default-src 'none'" in html
    assert not re.search(r"""<(script|link|img)[^>]+(src|href)=["']?http""", html)
    for section in ("table1-theta", "trials", "table3-cost", "hardest", "differences", "pictures", "provenance"):
        assert f'id="{section}"' in html
    assert "equals the recorded one in all 6 trials" in html
    assert len(html.encode()) < 5_000_000


def test_theta_table_has_the_papers_layout(write_results: Writer, tmp_path: Path) -> None:
    grid = {"evaluate.theta": (1.05, 1.1), "train.gamma": (0.6, 0.9), "train.seed": (0, 1)}
    trials = write_results(tmp_path, axes=grid, failed=[1])
    file = tmp_path / "trials.parquet"
    whole = [row | {"num_samples": 345} for row in pq.read_table(file).to_pylist()]
    pq.write_table(pa.Table.from_pylist(whole, schema=pq.read_schema(file)), file)
    table = paper_tables.theta(find_design(load([tmp_path])), comparisons.Comparisons(baseline=""))
    assert table is not None
    assert [column.label for column in table.columns if not column.paper] == [
        "θ", "on Gₜ", "on Mₜ₋₁", "NoC90", "NoC95", "n",
    ]  # fmt: skip
    assert [block.caption for block in table.blocks] == ["davis (345) · γ 0.6", "davis (345) · γ 0.9"]
    first, second = table.blocks[0].rows
    assert first.cells[5].text == "1 of 2"
    assert first.cells[3].text == f"{trials[0]['noc_at_90']:.2f}"
    mean = (trials[4]["noc_at_90"] + trials[5]["noc_at_90"]) / 2
    assert second.cells[3].text.startswith(f"{mean:.2f} ± ")
    assert [cell.text for cell in second.cells[6:]] == ["9.44", "10.56", "4.54", "9.10"]


def test_noc_from_clicks_equals_the_headline(write_results: Writer, tmp_path: Path) -> None:
    trials = write_results(tmp_path)
    results = load([tmp_path])
    answers = Answers(results, find_design(results).configurations)
    assert answers.noc_90() == pytest.approx({t["trial"]: t["noc_at_90"] for t in trials})


def test_curves_equal_the_headline_also_after_an_early_stop(write_results: Writer, tmp_path: Path) -> None:
    trials = write_results(tmp_path, axes={"evaluate.theta": (1.1,)})
    clicks = pq.read_table(tmp_path / "clicks.parquet")
    stopped = [row for row in clicks.to_pylist() if not (row["sample"].startswith("bear") and row["click"] > 3)]
    pq.write_table(pa.Table.from_pylist(stopped, schema=clicks.schema), tmp_path / "clicks.parquet")
    results = load([tmp_path])
    answers = Answers(results, find_design(results).configurations)
    curve = dict(answers.miou_curves()[0])
    assert curve[3] == pytest.approx(trials[0]["miou_at_3"])
    last = {row["sample"]: row["iou"] for row in stopped}
    assert curve[20] == pytest.approx(sum(last.values()) / len(last))


def test_seeds_are_repetitions_and_other_differences_are_axes(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path / "a", axes={"evaluate.theta": (1.1, 1.2), "train.seed": (0, 1, 2)})
    write_results(tmp_path / "b", axes={"evaluate.theta": (1.1, 1.2)}, settings={"train.steps": 800})
    design = find_design(load([tmp_path]))
    assert design.axes == ("evaluate.theta", "train.steps")
    assert design.seeds == ("train.seed",)
    assert [len(group.trials) for group in design.configurations] == [3, 1, 3, 1]


def test_same_trial_in_two_sweeps_is_one_row_and_the_done_one(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path / "a", axes={"evaluate.theta": (1.1, 1.2)}, failed=[0], name="first")
    write_results(tmp_path / "b", axes={"evaluate.theta": (1.1, 1.3)}, name="second")
    out = tmp_path / "both.html"
    assert main([str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(out), "--no-open"]) == 0
    html = out.read_text(encoding="utf-8")
    assert "<b>3</b> of 3 trials done" in html
    assert "first + second" in text_of(html, "section-trials")
    assert "equals the recorded one in all 3" in html


def test_one_sweep_in_two_folders_is_told_apart(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path / "a", axes={"evaluate.theta": (1.1, 1.2)})
    write_results(tmp_path / "b", axes={"evaluate.theta": (1.1, 1.3)})
    names = [f"theta ({tmp_path / folder})" for folder in "ab"]
    results = load([tmp_path, tmp_path / "a"])
    assert [sweep.name for sweep in results.sweeps] == names
    assert sorted(trial["sweep"] for trial in results.trials) == sorted([" + ".join(names), *names])
    assert page(tmp_path).count("trades the global result against the previous mask") == 1


def test_random_weights_are_marked_and_never_best(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path / "real")
    write_results(tmp_path / "random", random_weights=True, name="quickstart")
    html = page(tmp_path)
    assert "8 of 16 trials ran a backbone with random weights" in html
    assert html.count(tables.RANDOM) > 8
    assert not re.search(r'class="random [^\n]*best', html)
    assert "No result." in page(tmp_path / "random")


def test_baselines_without_training_or_refiner(write_results: Writer, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "train.data": None,
        "train.gamma": None,
        "train.steps": None,
        "train.seed": None,
    }
    write_results(tmp_path, axes={"model.backbone": ("sam_vit_b", "sam_vit_h")}, settings=settings)
    html = page(tmp_path)
    assert 'id="table1-theta"' not in html
    assert 'id="table2-methods"' in html
    assert "Number of clicks against backbone" in html


def test_empty_sweep_and_all_failed_are_pages(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path / "empty", axes={})
    html = page(tmp_path / "empty")
    assert "This sweep has no trials." in html
    assert "vegaEmbed" not in html.replace("window.vegaEmbed(", "")
    write_results(tmp_path / "failed", failed=range(8))
    html = page(tmp_path / "failed")
    assert "<b>0</b> of 8 trials done" in html
    assert "No trial has measured it." in html
    assert "0 of 1" in text_of(html, "table1-theta")


def test_names_with_markup_are_escaped(write_results: Writer, tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    settings = {"model.backbone": evil, "evaluate.data": evil}
    write_results(tmp_path, name=evil, purpose=evil, settings=settings)
    html = page(tmp_path)
    assert evil not in html
    assert "<img src=x" not in html
    assert "<script>alert" not in html


def test_no_such_folder_and_no_parquet(
    write_results: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no such folder" in refusal(capsys, str(tmp_path / "nowhere"))
    assert "no trials.parquet" in refusal(capsys, str(tmp_path))


def test_newer_schema_is_refused_by_name(
    write_results: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_results(tmp_path, schema=2)
    assert "trials.parquet: has schema 2, this samref-dashboard reads up to 1" in refusal(capsys, str(tmp_path))


@pytest.mark.parametrize("kind", ["trials", "clicks", "masks", "photographs", "training", "profile"])
def test_truncated_file_is_named(
    write_results: Writer, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_results(tmp_path)
    file = tmp_path / f"{kind}.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    assert f"{kind}.parquet: not a whole Parquet file" in refusal(capsys, str(tmp_path))


def test_damaged_pages_are_one_line(write_results: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_results(tmp_path)
    file = tmp_path / "clicks.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:40] + bytes(len(whole) - 40 - 6000) + whole[-6000:])
    assert "clicks" in refusal(capsys, str(tmp_path))


def test_damaged_run_lengths_are_one_line(
    write_results: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_results(tmp_path)
    file = tmp_path / "masks.parquet"
    table = pq.read_table(file)
    rows = [row | {"counts": [*row["counts"], 1]} for row in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)
    assert "masks.parquet: the run lengths of" in refusal(capsys, str(tmp_path))


def test_foreign_parquet_is_named(write_results: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "trials.parquet")
    assert "columns are missing: sweep, trial" in refusal(capsys, str(tmp_path))


def test_several_folders_need_a_name_for_the_page(
    write_results: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_results(tmp_path / "a")
    assert "--out FILE" in refusal(capsys, str(tmp_path / "a"), str(tmp_path / "a"))


def test_tables_are_not_watched(write_results: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_results(tmp_path)
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--tables", str(tmp_path / "out"), "--watch"])
    assert "not allowed with argument --tables" in capsys.readouterr().err


@pytest.mark.slow
def test_a_large_sweep_with_a_million_clicks_is_a_page_of_five_megabytes(tmp_path: Path) -> None:
    """The page that benchmarks/dashboard.py times."""
    benchmark = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "dashboard.py"))
    benchmark["write"](tmp_path, 5000, 10)
    html = page(tmp_path)
    assert len(html.encode()) < 5_000_000
    assert "<b>4948</b> of 5000 trials done" in html
    assert html.count("<th scope=row class=id>") == 5000
    assert "blocks are left out here" in text_of(html, "section-table1-theta")
    assert "more charts are left out" in text_of(html, "figure-clicks")
    assert "more configurations are not compared" in text_of(html, "section-differences")


def test_names_of_axes_make_no_paths(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path / "results")
    file = tmp_path / "results" / "trials.parquet"
    table = pq.read_table(file)
    for axis in ("train.../../evil", "train.<b>", 'train."x'):
        table = table.append_column(axis, pa.array([index % 3 for index in range(len(table))]))
    pq.write_table(table, file)
    assert main([str(tmp_path / "results"), "--tables", str(tmp_path / "out")]) == 0
    assert {path.parent for path in tmp_path.rglob("*.svg")} == {tmp_path / "out"}


def test_every_colour_exists_on_both_grounds() -> None:
    assert set(theme.LIGHT) == set(theme.DARK)
    names = re.findall(r"var\(--([\w-]+)\)", " ".join([*theme.colours(9, True), *theme.colours(9, False)]))
    assert set(names) <= set(theme.LIGHT)


def test_a_program_reads_the_rows_of_one_sweep_or_several(write_results: Writer, tmp_path: Path) -> None:
    written = write_results(tmp_path / "all" / "one", axes={"evaluate.theta": (1.1, math.inf)}, not_run=[1])
    write_results(tmp_path / "all" / "two", axes={"evaluate.theta": (1.1, 1.2)}, name="two")
    found = samref_dashboards.read(str(tmp_path / "all"))
    assert found["trials"].schema.field("noc_at_90").metadata[b"better"] == b"lower"
    rows = {row["trial"]: row for row in found["trials"].to_pylist()}
    assert sorted(row["evaluate.theta"] for row in rows.values()) == [1.1, 1.2, math.inf]
    assert found["trials"].num_rows == 3
    assert rows[written[0]["trial"]]["noc_at_90"] == written[0]["noc_at_90"]
    assert set(found["clicks"]["trial"].to_pylist()) == {
        row["trial"] for row in rows.values() if row["status"] == "done"
    }
    assert "folder" not in found["profile"].column_names
    assert found["clicks"].to_pandas()["iou"].between(0, 1).all()
    with pytest.raises(samref_dashboards.ResultsError, match="no such folder"):
        samref_dashboards.read(tmp_path / "none")


@pytest.mark.slow
def test_the_script_of_the_charts_is_made_whatever_the_encoding_of_the_terminal() -> None:
    command, environment = [sys.executable, "-c", _BUNDLE], {**os.environ, "PYTHONIOENCODING": "ascii"}
    made = subprocess.run(command, env=environment, capture_output=True, check=True).stdout.decode()
    assert not made.isascii()
    assert "vegaEmbed" in made
