"""What a table is: plain data, of which html.py makes HTML and exports.py Markdown, CSV and LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from samref_dashboards.comparisons import Comparisons
from samref_dashboards.design import Configuration
from samref_dashboards.metrics import Metric
from samref_dashboards.queries import Curve
from samref_dashboards.statistics import best

RANDOM = "random weights – not a result"
"""How whatever was computed with random weights is marked, everywhere."""
SIGNIFICANT = "*"
"""After a number that differs from its baseline's (Holm-adjusted p < 0.05)."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column and how it is read."""

    label: str
    key: str
    """Column of the CSV file."""
    title: str = ""
    """Longer explanation."""
    numeric: bool = False
    paper: bool = False
    """Published numbers, not ours."""
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


def column(metric: Metric, *, paper: bool = False) -> Column:
    """Make the column of a metric, ours or the published one beside it."""
    key = f"paper_{metric.key}" if paper else metric.key
    return Column(label=metric.label, key=key, title=metric.title, numeric=True, paper=paper)


def number(metric: Metric, value: float | None) -> Cell:
    """Make the cell of a metric's single value."""
    return Cell(metric.write(value), value=value)


def tops(metric: Metric, values: Sequence[float | None], datasets: Sequence[str]) -> set[int]:
    """Find the indices of the best value of each dataset; nothing is best where neither way is better."""
    found: set[int] = set()
    for data in set(datasets) if metric.better else ():
        own = [value if other == data else None for value, other in zip(values, datasets, strict=True)]
        found |= best(own, metric.better or "")
    return found


def summaries(
    configurations: Sequence[Configuration], shown: Sequence[Metric], comparisons: Comparisons | None = None
) -> list[list[Cell]]:
    """Make a row of cells per configuration: mean ± std; the best of each metric and dataset is marked.

    Random weights are never best, and neither is a mean that lacks a seed.
    """
    rows: list[list[Cell]] = [[] for _ in configurations]
    for metric in shown:
        measured = [each.summary(metric.key) for each in configurations]
        # Rounded as it is shown: two numbers that read alike are equally good.
        real = [
            None
            if each.random_weights or not summary.whole or summary.mean is None
            else round(summary.mean * metric.scale, metric.digits)
            for each, summary in zip(configurations, measured, strict=True)
        ]
        top = tops(metric, real, [each.data for each in configurations])
        for index, (configuration, summary) in enumerate(zip(configurations, measured, strict=True)):
            differs = comparisons is not None and comparisons.differs(configuration, metric.key)
            mark = SIGNIFICANT if differs else ""
            text = metric.write_summary(summary) + mark
            rows[index].append(Cell(text, summary.mean, summary.std, best=index in top, mark=mark))
    return rows
