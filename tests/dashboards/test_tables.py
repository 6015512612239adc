"""What tables say: measured once is not a mean, a small number is not 0, a tie has no winner."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from samref_dashboards import metrics
from samref_dashboards.content import Content, gather
from samref_dashboards.load import load
from samref_dashboards.tables import Table

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
    return next((table for table in content.paper if table.name == name), None)


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
    assert [block.caption for block in table.blocks] == ["davis · refiner gfr+lfr"]
    write_results(tmp_path / "none", axes={"model.refiner": ("none",), "evaluate.theta": (1.1, 1.2)})
    assert paper_table(gather(load([tmp_path / "none"])), "table1-theta") is None


def test_the_papers_columns_are_there_where_it_has_a_number(write_results: Writer, tmp_path: Path) -> None:
    for folder, thetas, columns in (("paper", (1.1, 1.17), 10), ("search", (1.123, 1.17), 6)):
        write_results(tmp_path / folder, axes={"evaluate.theta": thetas})
        table = paper_table(gather(load([tmp_path / folder])), "table1-theta")
        assert table is not None
        assert {len(table.columns)} | {len(row.cells) for row in table.blocks[0].rows} == {columns}


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
    assert "other code" not in dict(gather(load([tmp_path])).provenance)
    file, said = tmp_path / "trials.parquet", "8 stages were made by other code (refiner/gfr.py changed since)"
    table = pq.read_table(file)
    about = {**json.loads(table.schema.metadata[b"samref.sweep"]), "other_code": said}
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"samref.sweep": json.dumps(about)}), file)
    assert dict(gather(load([tmp_path])).provenance)["other code"] == [said]
