"""The page (page/page.html), its tables (page/table.html), and what of their cells is easier said in Python."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup, escape

from samref_dashboards import paper, theme
from samref_dashboards.findings import MAX_FINDINGS
from samref_dashboards.queries import Curve
from samref_dashboards.tables import RANDOM, Cell, Column, Row, overs

TALL = 25
"""Rows above which a table scrolls in itself."""
SLIM = 6
"""Columns up to which a table is not stretched over the page."""


def render(**content: Any) -> str:
    """Render the page from its template and this content."""
    page = _environment().get_template("page.html")
    return page.render(**content, light=theme.LIGHT, dark=theme.DARK, chart_config=theme.CHART_CONFIG)


@cache
def _environment() -> jinja2.Environment:
    """The templates, which `--watch` need not read again for each page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("samref_dashboards", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"cells": _cells, "overs": overs, "tall": TALL, "slim": SLIM}
    environment.globals |= {"random_mark": RANDOM, "most_findings": MAX_FINDINGS}
    environment.globals["orientation"] = paper.ORIENTATION
    return environment


def _cells(row: Row, columns: Sequence[Column]) -> Markup:
    """Give all cells of a row but its first; made here, because five thousand rows take a template twice as long."""
    return Markup("".join(_cell(cell, column) for cell, column in zip(row.cells[1:], columns[1:], strict=True)))


def _cell(cell: Cell, column: Column) -> str:
    attributes = ""
    if cell.best:
        attributes = ' class="paper best"' if column.paper else " class=best"
    elif column.paper:
        attributes = " class=paper"
    if cell.share is not None:
        attributes += f' style="--f:{cell.share:.2f}"'
    # A text that is a plain number sorts as it is.
    if isinstance(cell.value, float) and not cell.text.replace(",", "").replace(".", "").isdigit():
        attributes += f" data-v={cell.value:.6g}"
    if column.key == "reason" and cell.text:
        attributes = " class=reason"
    elif column.key == "status" and cell.text != "done":
        attributes = " class=bad"
    text = _sparkline(cell.curve) if cell.curve is not None else escape(cell.text)
    if cell.mark:
        text = f"{escape(cell.text.removesuffix(cell.mark))}<sup class=star>{escape(cell.mark)}</sup>"
    return f"<td{attributes}>{text}{'<span class=unseen> (best)</span>' if cell.best else ''}</td>"


def _sparkline(curve: Curve) -> str:
    """A small curve of IoU (0 to 1) over clicks."""
    width, height = 108, 22
    last = max(x for x, _ in curve)
    scale = (width - 4) / max(1.0, last - 1)
    points = [f"{2 + (x - 1) * scale:.1f},{height - 2 - y * (height - 4):.1f}" for x, y in curve]
    label = f"IoU from {curve[0][1]:.2f} to {curve[-1][1]:.2f}"
    return (
        f'<svg class="spark" width="{width}" height="{height}" role="img" aria-label="{label}">'
        f'<path d="M2 2H{width - 2}M2 {height - 2}H{width - 2}" class="frame"/><path d="M{"L".join(points)}"/></svg>'
    )
