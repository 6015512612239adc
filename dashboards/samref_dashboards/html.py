"""HTML of tables, and of the page around them (page/page.html).

Tables are written here and not in the template: five thousand rows are most of a page, of its size and of its time.
What can be said once for a column (numbers to the right) is CSS and not an attribute of every cell.
"""

from __future__ import annotations

from typing import Any

import jinja2
from markupsafe import Markup, escape

from samref_dashboards import paper, theme
from samref_dashboards.queries import Curve
from samref_dashboards.tables import RANDOM, Block, Cell, Column, Row, Table

TALL = 25
"""Rows above which a table scrolls in itself."""
SLIM = 6
"""Columns up to which a table is not stretched over the page."""
_MARK = f'<span class="mark">{RANDOM}</span>'


def render(**content: Any) -> str:
    """The page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("samref_dashboards", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["table"] = table
    return environment.get_template("page.html").render(
        **content, light=theme.LIGHT, dark=theme.DARK, chart_config=theme.CHART_CONFIG, random_mark=RANDOM
    )


def table(content: Table) -> Markup:
    """A table as HTML, every text escaped."""
    name = escape(content.name)
    numeric = [n for n, column in enumerate(content.columns, start=1) if column.numeric]
    right = ",".join(f"#{name} tr>:nth-child({n}):not([colspan])" for n in numeric)
    slim = " slim" if len(content.columns) <= SLIM else ""
    parts = [
        f'<div class="scroll{" tall" if len(content.rows) > TALL else ""}{slim}" role="region" tabindex="0" '
        f'aria-label="{escape(content.caption)}">',
        f"<style>{right}{{text-align:right}}</style>" if numeric else "",
        f'<table id="{name}"{" class=sortable" if content.sortable else ""}>',
        f'<caption class="unseen">{escape(content.caption)}</caption>',
        _head(content),
        *(_body(block, content.columns) for block in content.blocks),
        "</table></div>",
    ]
    return Markup("".join(parts))


def _head(content: Table) -> str:
    ours = sum(not column.paper for column in content.columns)
    over = ""
    if ours < len(content.columns):
        theirs = len(content.columns) - ours
        over = (
            f'<tr class="over"><td colspan="{ours}"></td>'
            f'<th scope="colgroup" class="paper" colspan="{theirs}">{escape(paper.THETA_SOURCE)}</th></tr>'
        )
    cells = []
    for column in content.columns:
        label = escape(column.label)
        title = f' title="{escape(column.title)}"' if column.title else ""
        kind = " class=paper" if column.paper else ""
        data = " data-names=data" if column.data else ""
        inside = f'<button type="button">{label}</button>' if content.sortable else label
        cells.append(f'<th scope="col"{kind}{title}{data}>{inside}</th>')
    return f"<thead>{over}<tr>{''.join(cells)}</tr></thead>"


def _body(block: Block, columns: tuple[Column, ...]) -> str:
    data = f' data-of="{escape(block.data)}"' if block.data else ""
    caption = ""
    if block.caption:
        mark = f" {_MARK}" if block.all_random else ""
        caption = (
            f'<tr class="block"><th scope="rowgroup" colspan="{len(columns)}">'
            f"<span>{escape(block.caption)}</span>{mark}</th></tr>"
        )
    marked = not (block.caption and block.all_random)
    return f"<tbody{data}>{caption}{''.join(_row(row, columns, marked) for row in block.rows)}</tbody>"


def _row(row: Row, columns: tuple[Column, ...], marked: bool) -> str:
    said = (("random", row.random_weights), ("published", row.paper), ("lacking", row.status != "done"))
    kinds = [kind for kind, is_so in said if is_so]
    first, rest = row.cells[0], zip(row.cells[1:], columns[1:], strict=True)
    known = {"trial": " class=id", "configuration": " class=name"}
    identity = known.get(columns[0].key, "")
    mark = f" {_MARK}" if marked and row.random_weights else ""
    cells = "".join(_cell(cell, column) for cell, column in rest)
    opening = f'<tr class="{" ".join(kinds)}">' if kinds else "<tr>"
    return f"{opening}<th scope=row{identity}>{escape(first.text)}{mark}</th>{cells}</tr>\n"


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


def _sparkline(curve: Curve, width: int = 108, height: int = 22) -> str:
    """A small curve of IoU (0 to 1) over clicks."""
    last = max(x for x, _ in curve)
    scale = (width - 4) / max(1.0, last - 1)
    points = [f"{2 + (x - 1) * scale:.1f},{height - 2 - y * (height - 4):.1f}" for x, y in curve]
    label = f"IoU from {curve[0][1]:.2f} to {curve[-1][1]:.2f}"
    return (
        f'<svg class="spark" width="{width}" height="{height}" role="img" aria-label="{label}">'
        f'<path d="M2 2H{width - 2}M2 {height - 2}H{width - 2}" class="frame"/><path d="M{"L".join(points)}"/></svg>'
    )
