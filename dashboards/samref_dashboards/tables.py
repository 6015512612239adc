"""What a table is: plain data, of which html.py makes HTML and exports.py Markdown, CSV and LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby, product
from typing import NamedTuple

from samref_dashboards.comparisons import Comparisons
from samref_dashboards.design import UNSTEADY, Configuration, Design
from samref_dashboards.metrics import Metric
from samref_dashboards.queries import Curve

RANDOM = "random weights – not a result"
"""How whatever was computed with random weights is marked, everywhere."""
SIGNIFICANT = "*"
"""After a number that differs from its baseline's (Holm-adjusted p < 0.05)."""
BUSY = "‡"
"""After a time whose repetitions spread by more than a fifth."""
BUSY_NOTE = "‡ unsteady: its repetitions’ quartiles lie more than 20 % of the median apart; never bold."


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column and how it is read."""

    label: str
    key: str
    """Column of the CSV file."""
    title: str = ""
    numeric: bool = False
    paper: bool = False
    """Published numbers, not ours."""
    over: str = ""
    """What stands above this column and those beside it that have the same: a dataset, a source."""
    data: bool = False
    """Names a dataset: what the page's filter looks at."""


@dataclass(frozen=True)
class Cell:
    """One value of a table, as it is shown."""

    text: str
    value: float | str | None = None
    """What to sort by and to export: the number in its stored unit, unrounded."""
    std: float | None = None
    """Over repetitions, in the stored unit."""
    best: bool = False
    mark: str = ""
    share: float | None = None
    """Length of the bar under the number, 0 to 1 of the column's largest."""
    curve: Curve | None = None
    """A small curve in place of the text."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row; its first cell names it."""

    cells: tuple[Cell, ...]
    random_weights: bool = False
    status: str = "done"
    paper: bool = False

    @property
    def kinds(self) -> str:
        """The classes of the row in the page."""
        said = {"random": self.random_weights, "published": self.paper, "lacking": self.status != "done"}
        return " ".join(kind for kind, is_so in said.items() if is_so)


@dataclass(frozen=True, kw_only=True)
class Block:
    """Rows of a table that belong together."""

    caption: str
    rows: tuple[Row, ...]
    data: str = ""
    """The dataset of all rows; empty where they have several."""
    folded: bool = False
    """Published under other conditions: for orientation, behind a click, and never beside our numbers."""

    @property
    def all_random(self) -> bool:
        """Whether all rows have random weights: one mark at the caption says it."""
        return bool(self.rows) and all(row.random_weights for row in self.rows)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns and blocks of rows."""

    name: str
    """The name of its section and of its files: `table1-theta`."""
    title: str
    caption: str
    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    note: str = ""
    """What a reader must know: what is left out, what a mark means."""
    sortable: bool = False

    @property
    def rows(self) -> list[Row]:
        """The rows of all blocks."""
        return [row for block in self.blocks for row in block.rows]

    def limited(self, rows: int) -> Table:
        """Keep the first blocks, up to so many rows, with a note that says what is left out."""
        every, totals = len(self.blocks), accumulate(len(block.rows) for block in self.blocks)
        kept = max(1, sum(total <= rows for total in totals))
        if kept >= every:
            return self
        note = f"{self.note} {every - kept} of {every} blocks are left out here; --tables writes all.".strip()
        return replace(self, blocks=self.blocks[:kept], note=note)


class Over(NamedTuple):
    """A heading above columns."""

    text: str
    span: int
    paper: bool


def overs(columns: Sequence[Column]) -> list[Over]:
    """List what stands above the columns, those side by side that have the same together."""
    groups = (list(inside) for _, inside in groupby(columns, key=lambda column: column.over))
    return [Over(inside[0].over, len(inside), inside[0].paper) for inside in groups]


Filled = tuple[Column, Sequence[Cell]]
"""A column with its cells, one for each row."""


def texts(label: str, key: str, values: Iterable[str], *, title: str = "", data: bool = False) -> Filled:
    """Make a column of words."""
    return Column(label=label, key=key, title=title, data=data), [Cell(value) for value in values]


def amounts(
    label: str, key: str, values: Iterable[float | None], form: str = "", *, scale: float = 1, title: str = ""
) -> Filled:
    """Make a column of numbers in a format such as `.2f`, times a scale (100: percent); a dash where one is missing."""
    cells = [Cell("–" if value is None else f"{scale * value:{form}}", value) for value in values]
    return Column(label=label, key=key, title=title, numeric=True), cells


def plain(
    name: str, title: str, caption: str, columns: Sequence[Filled], *, note: str = "", sortable: bool = True
) -> Table | None:
    """Make a table of one block without a heading; None without rows."""
    rows = tuple(Row(cells=cells) for cells in zip(*(cells for _, cells in columns), strict=True))
    if not rows:
        return None
    block, heads = Block(caption="", rows=rows), tuple(head for head, _ in columns)
    return Table(name=name, title=title, caption=caption, columns=heads, blocks=(block,), note=note, sortable=sortable)


def column(metric: Metric, *, paper: str = "", data: str = "") -> Column:
    """Make the column of a metric: ours, of one dataset, or the published one, of which `paper` is the source."""
    key = "_".join(filter(None, ["paper" if paper else "", metric.key, data.partition(" ")[0]]))
    title, over = metric.title, paper or data
    return Column(label=metric.label, key=key, title=title, numeric=True, paper=bool(paper), over=over)


def number(metric: Metric, value: float | None) -> Cell:
    """Make the cell of a metric's single value."""
    return Cell(metric.write(value), value=value)


def summaries(
    blocks: Sequence[Sequence[Configuration]], shown: Sequence[Metric], comparisons: Comparisons
) -> list[list[list[Cell]]]:
    """Make a row of cells for each configuration of each block: mean ± std.

    The best of a block, metric and dataset is marked where it can be told from the next. Random weights are never
    best, and neither is a mean that lacks a seed.
    """
    made = [[[summary_cell(each, metric, comparisons) for metric in shown] for each in block] for block in blocks]
    found = [
        ((block, first, column), (blocks[block][first], blocks[block][second], metric))
        for block, (column, metric) in product(range(len(blocks)), enumerate(shown))
        for first, second in _first_two(blocks[block], metric)
    ]
    leading = comparisons.leads([pair for _, pair in found])
    for ((block, row, column), _), leads in zip(found, leading, strict=True):
        made[block][row][column] = replace(made[block][row][column], best=leads)
    return made


def summary_cell(configuration: Configuration, metric: Metric, comparisons: Comparisons) -> Cell:
    """Make the cell of a configuration's mean, with the marks that it needs to be read rightly."""
    summary = configuration.summary(metric.key)
    mark = SIGNIFICANT if comparisons.differs(configuration, metric.key) else ""
    if metric.timed and metric.key in configuration.profiled and (configuration.unsteadiness or 0) > UNSTEADY:
        mark = BUSY
    text = metric.write_summary(summary)
    count = configuration.done[0].get("num_samples") if configuration.done else None
    if metric.key.startswith("nof_") and summary.mean is not None and count:
        text += f" of {count}"
    return Cell(text + mark, summary.mean, summary.std, mark=mark)


def reading(design: Design, comparisons: Comparisons, rows: Iterable[Row]) -> str:
    """Say how the numbers of these rows are to be read: what ±, bold and marks mean, where they are there."""
    parts = [f"Mean ± standard deviation over {', '.join(design.seeds)}; n: how many."] if design.seeds else []
    cells = [cell for row in rows for cell in row.cells]
    if any(cell.best for cell in cells):
        parts.append("Bold: the best, where it can be told from the next (p < 0.05).")
    if any(cell.mark == SIGNIFICANT for cell in cells):
        parts.append(f"* differs from {comparisons.baseline} ({comparisons.how}).")
    if any(cell.mark == BUSY for cell in cells):
        parts.append(BUSY_NOTE)
    return " ".join(parts)


def _first_two(block: Sequence[Configuration], metric: Metric) -> list[tuple[int, int]]:
    """The places of each dataset's best and second best; none where several are best as they are written."""
    found = []
    for data in dict.fromkeys(each.data for each in block) if metric.better else ():
        summaries = [(index, each.summary(metric.key)) for index, each in enumerate(block) if each.data == data]
        ranked = sorted(
            (round(one.mean * metric.scale, metric.digits) * (1 if metric.better == "lower" else -1), index)
            for index, one in summaries
            if one.whole and one.mean is not None and not block[index].random_weights
        )
        if len(ranked) > 1 and ranked[0][0] < ranked[1][0]:
            found.append((ranked[0][1], ranked[1][1]))
    return found
