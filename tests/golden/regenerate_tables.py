"""Writes tests/golden/table*.tex: the paper's three tables as samref-dashboard renders the published numbers."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

GOLDEN = Path(__file__).parent
sys.path.insert(0, str(GOLDEN.parent / "dashboards"))

import published  # noqa: E402

from samref_dashboards import exports  # noqa: E402
from samref_dashboards.content import gather  # noqa: E402
from samref_dashboards.load import load  # noqa: E402


def main() -> None:
    for number, write in ((1, published.write_table_1), (2, published.write_table_2), (3, published.write_table_3)):
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder, "results"))
            for table in gather(load([Path(folder, "results")])).tables:
                if table.name.startswith(f"table{number}"):
                    (GOLDEN / f"{table.name}.tex").write_text(exports.latex(table), encoding="utf-8", newline="")


if __name__ == "__main__":
    main()
