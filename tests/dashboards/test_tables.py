"""What tables say: measured once is not a mean, a small number is not 0, a tie has no winner."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from samref_dashboards import exports, metrics
from samref_dashboards.content import Content, gather
from samref_dashboards.load import load
from samref_dashboards.tables import Table, overs

Writer = Callable[..., list[dict[str, Any]]]
METHODS = {"model.refiner": ("none", "gfr+lfr"), "evaluate.theta": (1.1, 1.2), "train.seed": (0, 1)}


def change(file: Path, **columns: Any) -> None:
    """Set whole columns of a Parquet file."""
    table = pq.read_table(file)
    for name, value in columns.items():
        name = name.replace("__", ".")
        table = table.drop_columns([name]) if name in table.column_names else table
        table = table.append_column(name, pa.array([value] * len(table)))
    pq.write_table(table, file)


def paper_table(content: Content, name: str) -> Table | None:
    return next((table for table in content.tables if table.name == name), None)


def test_a_latency_is_measured_once_however_many_seeds_share_it(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path, axes=METHODS)
    change(tmp_path / "profile.parquet", sat_latency_seconds=4.2)
    table = paper_table(gather(load([tmp_path])), "table2-methods")
    assert table is not None
    row = table.blocks[0].rows[0].cells
    assert (row[2].text, row[2].std) == ("4.20", None)
    assert "±" in row[4].text
    assert "256 single clicks" in table.caption


def test_a_latency_of_other_clicks_than_the_papers_says_so(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path, axes=METHODS)
    change(tmp_path / "profile.parquet", sat_latency_seconds=4.2)
    change(tmp_path / "trials.parquet", profile__prompts_per_side=4)
    content = gather(load([tmp_path]))
    table, detail = paper_table(content, "table2-methods"), paper_table(content, "cost-detail")
    assert table is not None
    assert detail is not None
    assert "one encode and 16 single clicks" in table.caption
    assert "The paper’s latency is of 256 clicks." in table.note
    assert "Latency is of 16 single clicks." in detail.caption


def test_models_of_one_name_are_told_apart_by_their_settings(write_results: Writer, tmp_path: Path) -> None:
    for blocks in (1, 3):
        write_results(tmp_path / str(blocks), axes={"evaluate.theta": (1.1,)}, settings={"train.steps": blocks})
        change(tmp_path / str(blocks) / "profile.parquet", stage=f"profile-{blocks}")
        change(
            tmp_path / str(blocks) / "trials.parquet", stage_profile=f"profile-{blocks}", model__refiner_blocks=blocks
        )
    content = gather(load([tmp_path]))
    cost, detail = paper_table(content, "table3-cost"), paper_table(content, "cost-detail")
    assert cost is not None
    assert detail is not None
    assert [row.cells[1].text for row in cost.blocks[0].rows] == ["tiny (refiner blocks 1)", "tiny (refiner blocks 3)"]
    assert len({column.label for column in detail.columns}) == 3


def test_theta_of_a_model_without_selector_is_no_table(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path / "both", axes=METHODS)
    table = paper_table(gather(load([tmp_path / "both"])), "table1-theta")
    assert table is not None
    assert [block.caption for block in table.blocks if not block.folded] == ["davis (12 of 345) · refiner gfr+lfr"]
    write_results(tmp_path / "none", axes={"model.refiner": ("none",), "evaluate.theta": (1.1, 1.2)})
    assert paper_table(gather(load([tmp_path / "none"])), "table1-theta") is None


def test_published_numbers_stand_beside_the_same_measurement_and_are_folded_elsewhere(
    write_results: Writer, tmp_path: Path
) -> None:
    """The same dataset, all of its objects, the same clicker and clicks; any other and they are for orientation."""
    same = {"num_samples": 345}
    cases = (
        ("paper", (1.1, 1.17), same, 10, False),
        ("search", (1.123, 1.17), same, 6, None),
        ("few", (1.1, 1.17), {}, 6, True),
        ("clicks", (1.1, 1.17), {**same, "evaluate__max_clicks": 10}, 6, True),
        ("clicker", (1.1, 1.17), {**same, "evaluate__clicker": "interformer"}, 6, True),
        ("data", (1.1, 1.17), {**same, "evaluate__data": "shapes"}, 6, True),
    )
    for folder, thetas, changes, columns, folded in cases:
        write_results(tmp_path / folder, axes={"evaluate.theta": thetas})
        change(tmp_path / folder / "trials.parquet", **changes)
        content = gather(load([tmp_path / folder]))
        table, first = paper_table(content, "table1-theta"), paper_table(content, "configurations")
        assert table is not None
        assert first is not None
        assert {len(table.columns)} | {len(row.cells) for row in table.blocks[0].rows} == {columns}, folder
        assert any(block.folded for block in table.blocks) == bool(folded), folder
        assert len(first.blocks) == (2 if changes == same else 1), folder


def test_datasets_are_columns_with_what_was_evaluated_of_them(write_results: Writer, tmp_path: Path) -> None:
    grid = {"evaluate.data": ("davis", "shapes", "grabcut"), "model.refiner": ("none", "gfr+lfr"), "train.seed": (0, 1)}
    trials = write_results(tmp_path, axes=grid, failed=[0])
    table = paper_table(gather(load([tmp_path])), "configurations")
    assert table is not None
    assert [over.text for over in overs(table.columns)] == [
        "", "grabcut (12 of 50)", "davis (12 of 345)", "shapes (12)", "",
    ]  # fmt: skip
    first, second = table.blocks[0].rows
    assert [first.cells[0].text, second.cells[0].text] == ["refiner none", "refiner gfr+lfr"]
    grabcut = [trial["noc_at_90"] for trial in trials[8:10]]
    assert first.cells[1].value == pytest.approx(sum(grabcut) / 2)
    assert first.cells[-1].text == "2 / 1 of 2"
    tex = exports.latex(table)
    assert r"& \multicolumn{2}{c}{grabcut (12 of 50)} &" in tex
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-5} \cmidrule(lr){6-7}" in tex
    assert "| grabcut (12 of 50) NoC90 |" in exports.markdown(table)
    assert "noc_at_90_grabcut,noc_at_90_grabcut_std" in exports.comma_separated(table)


def test_failures_say_of_how_many(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path, axes={"model.refiner": ("none", "gfr+lfr")})
    table = paper_table(gather(load([tmp_path])), "configurations")
    assert table is not None
    place = [column.label for column in table.columns].index("NoF90")
    assert re.fullmatch(r"\d+ of 12", table.blocks[0].rows[0].cells[place].text)


def test_bold_is_what_can_be_told_from_the_next(write_results: Writer, tmp_path: Path) -> None:
    """Twelve objects that all need a click less can be told apart; one of twelve cannot, nor can a single object."""
    for name, objects, better, bold in (("all", 12, 12, True), ("one", 12, 1, False), ("alone", 1, 1, False)):
        folder = tmp_path / name
        trials = write_results(folder, axes={"model.refiner": ("none", "gfr+lfr")}, num_samples=objects)
        rows = pq.read_table(folder / "clicks.parquet").to_pylist()
        samples = list(dict.fromkeys(row["sample"] for row in rows))
        for row in rows:
            ours = row["trial"] == trials[1]["trial"] and samples.index(row["sample"]) < better
            row["iou"] = 0.99 if row["click"] >= (3 if ours else 4) else 0.5
        schema = pq.read_schema(folder / "clicks.parquet")
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "clicks.parquet")
        noc = {"none": 4.0, "gfr+lfr": 4.0 - better / objects}
        table = pq.read_table(folder / "trials.parquet")
        made = [row | {"noc_at_90": noc[row["model.refiner"]]} for row in table.to_pylist()]
        pq.write_table(pa.Table.from_pylist(made, schema=table.schema), folder / "trials.parquet")
        content = gather(load([folder]))
        shown = paper_table(content, "configurations")
        assert shown is not None
        place = [column.label for column in shown.columns].index("NoC90")
        assert [row.cells[place].best for row in shown.blocks[0].rows] == [False, bold], name
        (finding,) = content.findings
        assert finding.sure == bold, name
        assert "fewer clicks to 90 % than none" in finding.what


def test_a_time_whose_repetitions_spread_is_marked_and_never_bold(write_results: Writer, tmp_path: Path) -> None:
    for name, spread, mark in (("busy", 0.5, "‡"), ("steady", 0.1, "")):
        folder = tmp_path / name
        write_results(folder, axes={"model.backbone": ("sam_vit_b", "sam_vit_h")})
        profile = pq.read_table(folder / "profile.parquet")
        rows = [
            row | {"sat_latency_seconds": 4.0 + index, "fps_spread": spread * row["fps"]}
            for index, row in enumerate(profile.to_pylist())
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema=profile.schema), folder / "profile.parquet")
        content = gather(load([folder]))
        table, cost = paper_table(content, "table2-methods"), paper_table(content, "table3-cost")
        assert table is not None
        assert cost is not None
        latency = table.blocks[0].rows[0].cells[2]
        assert (latency.text, latency.best) == (f"4.00{mark}", not mark)
        assert cost.blocks[0].rows[0].cells[3].text == f"1.67{mark}"
        assert cost.blocks[0].rows[0].cells[2].mark == ""  # parameters are counted
        assert ("never bold" in table.note) == bool(mark)


def test_the_lowest_that_several_share_is_nobodys(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path, axes={"evaluate.theta": (1.1, 1.2, 1.3)})
    change(tmp_path / "trials.parquet", noc_at_90=20.0)
    (best,) = gather(load([tmp_path])).best
    assert (best.value, best.configuration) == ("20.00", "3 configurations alike")


def test_a_mean_that_lacks_a_seed_decides_no_importance(write_results: Writer, tmp_path: Path) -> None:
    grid = {"evaluate.theta": (1.1, 1.2, 1.3), "train.gamma": (0.3, 0.6, 0.9), "train.seed": (0, 1)}
    write_results(tmp_path, axes=grid, failed=[0])
    table = next(table for table in gather(load([tmp_path])).tables if table.name == "importance")
    assert {row.cells[-1].text for row in table.blocks[0].rows} == {"8"}


def test_headings_say_what_the_files_say_and_files_without_words_load(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path)
    (noc, miou) = metrics.described([metrics.NOC_90, metrics.MIOU_5], load([tmp_path]).fields)
    assert noc.title.endswith("the most clicks allowed if none, in clicks (noc_at_90)")
    assert miou.title == "mean IoU after click 5, in percent (miou_at_5)"
    for kind in ("trials", "profile"):
        table = pq.read_table(tmp_path / f"{kind}.parquet")
        plain = pa.schema([pa.field(f.name, f.type) for f in table.schema], metadata=table.schema.metadata)
        pq.write_table(table.cast(plain), tmp_path / f"{kind}.parquet")
    old = load([tmp_path])
    assert old.fields == {}
    for new in (noc, miou):
        assert metrics.described([new], old.fields)[0].better == new.better


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.7, "3.7"), (0.05, "0.1"), (0.0049, "0.005"), (0.0, "0.0"), (-0.01, "-0.01"), (None, "–")],
)
def test_what_was_measured_is_never_written_as_nothing(value: float | None, text: str) -> None:
    assert metrics.MEMORY.write(value) == text


def test_stages_that_other_code_made_are_told_where_the_page_says_what_made_it(
    write_results: Writer, tmp_path: Path
) -> None:
    write_results(tmp_path, axes=METHODS)
    assert not {"other code", "notes"} & dict(gather(load([tmp_path])).provenance).keys()
    file, said = tmp_path / "trials.parquet", "8 stages were made by other code (refiner/gfr.py changed since)"
    odd = "mine: 2 of 3 masks are inverted"
    table = pq.read_table(file)
    about = {**json.loads(table.schema.metadata[b"samref.sweep"]), "other_code": said, "notes": [odd]}
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"samref.sweep": json.dumps(about)}), file)
    provenance = dict(gather(load([tmp_path])).provenance)
    assert (provenance["other code"], provenance["notes"]) == ([said], [odd])
