"""Tables and figures as files: the paper's tables from its own numbers, and every format escaped."""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import published
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from samref_dashboards import exports
from samref_dashboards.content import gather
from samref_dashboards.load import load
from samref_dashboards.report import main
from samref_dashboards.tables import Block, Cell, Column, Row, Table

Writer = Callable[..., list[dict[str, Any]]]
GOLDEN = Path(__file__).parents[1] / "golden"
EVIL = r"a_b & 50 % {x} $y$ #1 ~ ^ \input{/etc/passwd} <b>|c|</b> *d* `e` [f](g)"


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (published.write_table_1, "table1-theta"),
        (published.write_table_2, "table2-methods"),
        (published.write_table_3, "table3-cost"),
    ],
)
def test_the_papers_tables_from_its_numbers(write: Callable[[Path], None], name: str, tmp_path: Path) -> None:
    """tests/golden/regenerate_tables.py writes the golden files; they were compared with the paper by hand."""
    write(tmp_path / "results")
    page = tmp_path / "page.html"
    assert main([str(tmp_path / "results"), "--tables", str(tmp_path / "out"), "--out", str(page), "--no-open"]) == 0
    assert page.stat().st_size > 1000
    assert (tmp_path / "out" / f"{name}.tex").read_text("utf-8") == (GOLDEN / f"{name}.tex").read_text("utf-8")


def test_every_table_and_figure_in_every_format(write_results: Writer, tmp_path: Path) -> None:
    grid = {"evaluate.theta": (1.05, 1.1, 1.2, 1.3), "train.gamma": (0.6, 0.9), "train.seed": (0, 1)}
    write_results(tmp_path / "results", axes=grid, failed=[1])
    assert main([str(tmp_path / "results"), "--tables", str(tmp_path / "out")]) == 0
    content = gather(load([tmp_path / "results"]))
    names = {file.name for file in (tmp_path / "out").iterdir()}
    tables = [table.name for table in content.tables]
    assert {"table1-theta", "table3-cost", "differences", "importance", "trials", "hardest"} <= set(tables)
    assert {f"{name}.{suffix}" for name in tables for suffix in ("md", "csv", "tex")} <= names
    drawings = [name for name in names if name.startswith("figure-")]
    assert len(drawings) == 2 * sum(len(figure.panels) for figure in content.figures)
    for name in drawings:
        drawn = (tmp_path / "out" / name).read_bytes()
        assert b"var(--" not in drawn
        if name.endswith(".pdf"):
            assert drawn.startswith(b"%PDF-")
        else:
            assert ET.fromstring(drawn).tag.endswith("svg")


def test_csv_is_unrounded_and_keeps_spread_and_n(write_results: Writer, tmp_path: Path) -> None:
    trials = write_results(tmp_path, axes={"evaluate.theta": (1.1, 1.2), "train.seed": (0, 1, 2)}, failed=[4])
    file = tmp_path / "trials.parquet"
    whole = [row | {"num_samples": 345} for row in pq.read_table(file).to_pylist()]
    pq.write_table(pa.Table.from_pylist(whole, schema=pq.read_schema(file)), file)
    table = next(table for table in gather(load([tmp_path])).tables if table.name == "table1-theta")
    first, second = csv.DictReader(io.StringIO(exports.comma_separated(table)))
    three = [trial["noc_at_90"] for trial in trials[:3]]
    assert float(first["noc_at_90"]) == pytest.approx(sum(three) / 3, abs=1e-12)
    assert float(first["noc_at_90_std"]) > 0
    assert (first["n"], second["n"]) == ("3", "2 of 3")
    assert first["paper_noc_at_90"] == "4.54"


def test_names_are_escaped_in_every_format(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path, name=EVIL, settings={"evaluate.data": EVIL, "model.backbone": EVIL})
    content = gather(load([tmp_path]))
    for table in content.tables:
        tex = exports.latex(table)
        assert r"\input" not in tex
        assert not re.search(r"(?<!\\)[#%](?! needs)", tex)
        assert not re.search(r"(?<!\\)_(?!\{)", tex.replace(rf"\label{{tab:{table.name}}}", ""))
        for line in exports.markdown(table).splitlines():
            assert "<b>" not in line.replace(r"\<b", "")
            if line.startswith("|"):
                assert len(re.findall(r"(?<!\\)\|", line)) == len(table.columns) + 1
        rows = list(csv.reader(io.StringIO(exports.comma_separated(table))))
        assert len({len(row) for row in rows}) == 1


def test_best_is_bold_and_significance_is_marked() -> None:
    cells = (Cell("γ 0.9"), Cell("4.54 ± 0.03*", 4.54, 0.03, best=True, mark="*"), Cell("2.00", 2.0))
    table = Table(
        name="t",
        title="T",
        caption="C",
        columns=(
            Column(label="θ", key="a"),
            Column(label="Mₜ₋₁", key="b", numeric=True),
            Column(label="p", key="c", paper=True),
        ),
        blocks=(Block(caption="", rows=(Row(cells=cells), Row(cells=cells, random_weights=True))),),
    )
    tex = exports.latex(table)
    assert r"$\theta$ & $M_{t-1}$ \\" in tex
    assert r"$\gamma$ 0.9 & \textbf{4.54 $\pm$ 0.03}$^{*}$ \\" in tex
    assert r"$\gamma$ 0.9 (random weights -- not a result) &" in tex
    assert r"| γ 0.9 | **4.54 ± 0.03\*** | 2.00 |" in exports.markdown(table)
    assert exports.comma_separated(table).splitlines()[2] == "γ 0.9,4.54,0.03,2.0,yes"


def test_a_text_that_a_spreadsheet_would_run_is_quoted() -> None:
    column = Column(label="a", key="a")
    table = Table(
        name="t",
        title="",
        caption="",
        columns=(column,),
        blocks=(Block(caption="", rows=(Row(cells=(Cell("=1+1"),)),)),),
    )
    assert exports.comma_separated(table).splitlines()[1] == "'=1+1"


def test_missing_columns_are_missing_cells(tmp_path: Path) -> None:
    published.write_table_2(tmp_path / "results")
    profile = tmp_path / "results" / "profile.parquet"
    pq.write_table(pq.read_table(profile).drop_columns(["sat_latency_seconds"]), profile)
    table = next(table for table in gather(load([tmp_path / "results"])).tables if table.name == "table2-methods")
    assert [row.cells[2].text for row in table.blocks[0].rows] == ["–"] * 6


def test_unknown_columns_of_profiles_are_shown(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path)
    profile = pq.read_table(tmp_path / "profile.parquet").drop_columns(["encode_gflops", "refine_seconds"])
    more = profile.append_column("encode_gflops", pa.array([2976.5] * len(profile)))
    pq.write_table(
        more.append_column("refine_seconds", pa.array([0.0106] * len(profile))), tmp_path / "profile.parquet"
    )
    detail = next(table for table in gather(load([tmp_path])).tables if table.name == "cost-detail")
    assert [column.label for column in detail.columns] == ["measure", "tiny-REF tiny"]
    shown = [[cell.text for cell in row.cells] for row in detail.blocks[0].rows]
    assert shown[-2:] == [["encode (GFLOP)", "2,976.5"], ["refine (s)", "0.0106"]]


def test_tables_into_a_file_is_refused(
    write_results: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_results(tmp_path / "results")
    (tmp_path / "out").write_text("mine")
    assert main([str(tmp_path / "results"), "--tables", str(tmp_path / "out")]) == 2
    assert "--tables names a folder" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"


def test_why_a_trial_failed_is_in_every_format(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path, failed=[1])
    table = next(table for table in gather(load([tmp_path])).tables if table.name == "trials")
    for text in (exports.markdown(table), exports.comma_separated(table), exports.latex(table)):
        assert "CUDA out of memory in evaluate-9f2c at batch 16" in text
    write_results(tmp_path / "done")
    done = next(table for table in gather(load([tmp_path / "done"])).tables if table.name == "trials")
    assert "reason" not in [column.key for column in done.columns]
