"""docs/results.md explains every column, and no column that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from samref_dashboards import load
from samref_sweep.record import tables as results

DOCS = Path(__file__).parents[2] / "docs" / "results.md"


def documented(kind: str) -> set[str]:
    section = DOCS.read_text(encoding="utf-8").split(f"## {kind}.parquet")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*`) \|", section, flags=re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


@pytest.mark.parametrize("kind", load.COLUMNS)
def test_the_dashboard_reads_only_documented_columns(kind: str) -> None:
    assert set(load.COLUMNS[kind].split()) <= documented(kind)


@pytest.mark.parametrize("kind", results.SCHEMAS)
def test_docs_name_exactly_the_columns_that_are_written(kind: str) -> None:
    assert documented(kind) == set(results.SCHEMAS[kind].names)
