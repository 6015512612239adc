"""The tables of a report as plain data, of which page/page.html makes HTML; other formats can follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from samref_dashboards import metrics, paper, queries
from samref_dashboards.axes import DATA, THETA, Design, Group, is_number, show
from samref_dashboards.load import Results, Trial
from samref_dashboards.metrics import Metric
from samref_dashboards.statistics import Summary, best

RANDOM = "random weights – not a result"
"""How whatever was computed with random weights is marked, everywhere."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column and how it is read."""

    label: str
    title: str = ""
    """Longer explanation."""
    numeric: bool = False
    paper: bool = False
    """Published numbers, not ours."""


@dataclass(frozen=True)
class Cell:
    """One value as it is shown."""

    text: str
    best: bool = False
    share: float | None = None
    """Length of the bar under the number, 0 to 1 of the column's largest."""
    sort: float | None = None
    """What to sort by where the text is not a plain number."""
    curve: queries.Curve | None = None
    """A small curve in place of the text."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row; its first cell names it."""

    cells: tuple[Cell, ...]
    random_weights: bool = False
    status: str = "done"
    reason: str = ""
    paper: bool = False


@dataclass(frozen=True, kw_only=True)
class Block:
    """Rows that belong together."""

    caption: str
    rows: tuple[Row, ...]

    @property
    def all_random(self) -> bool:
        """All have random weights: one mark at the caption says it."""
        return bool(self.rows) and all(row.random_weights for row in self.rows)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns and blocks of rows."""

    caption: str
    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    sortable: bool = False
    num_rows: int = 0


def theta(design: Design) -> Table | None:
    """The paper's Table 1, one block per combination of the other axes; None when θ is not swept."""
    if THETA not in design.axes:
        return None
    ours = (metrics.ON_GLOBAL, metrics.ON_PREVIOUS, metrics.NOC_90, metrics.NOC_95)
    columns = [Column(label="θ", title=THETA, numeric=True)]
    columns += [_column(metric) for metric in ours]
    columns += [Column(label="n", title="seeds measured, of those planned", numeric=True)]
    columns += [replace(_column(metric), paper=True) for metric in ours]
    blocks = []
    davis = any(group.data == "davis" for group in design.groups)
    for groups in design.split([THETA]).values():
        # Published on DAVIS: beside another dataset only where ours has no DAVIS at all.
        published = paper.THETA if groups[0].data == "davis" or not davis else {}
        rows = [
            Row(
                cells=(
                    Cell(design.show(THETA, group.values[THETA])),
                    *cells,
                    Cell(_count(group.summary("noc_at_90"))),
                    *(
                        Cell(m.write(value) if (value := row.get(m.key)) else "")
                        for m in ours
                        for row in [published.get(group.values[THETA], {})]
                    ),
                ),
                random_weights=group.random_weights,
                status="done" if group.done else group.trials[0]["status"],
            )
            for group, cells in zip(groups, _summary_cells(groups, ours), strict=True)
        ]
        caption = design.describe(groups[0].values, leave_out=[THETA])
        if DATA not in groups[0].values:
            caption = f"{groups[0].data} · {caption}" if caption else groups[0].data
        blocks.append(Block(caption=caption, rows=tuple(rows)))
    return Table(
        caption="Threshold θ of the dynamic selector, in the layout of the paper’s Table 1",
        columns=tuple(columns),
        blocks=tuple(blocks),
    )


def trials(results: Results, design: Design) -> Table:
    """Every trial: what was swept, how it ended, the headline metrics."""
    ordered = [trial for group in design.groups for trial in group.trials]
    metrics_shown = [m for m in metrics.HEADLINE if any(row.get(m.key) is not None for row in ordered)]
    several = len(results.sweeps) > 1
    columns = [Column(label="trial"), *([Column(label="sweep")] if several else []), Column(label="status")]
    columns += [_setting_column(design, axis, ordered) for axis in (*design.axes, *design.seeds)]
    columns += [_column(metric) for metric in metrics_shown]
    columns += [Column(label="device s", title="device time of all stages of the trial, seconds", numeric=True)]
    measured = [_trial_cells(ordered, metric) for metric in metrics_shown]
    rows = tuple(
        Row(
            cells=(
                Cell(row["trial"]),
                *([Cell(row["sweep"])] if several else []),
                Cell(row["status"]),
                *(Cell(design.show(axis, row.get(axis))) for axis in (*design.axes, *design.seeds)),
                *(cells[index] for cells in measured),
                Cell("–" if row["device_seconds"] is None else f"{row['device_seconds']:,.1f}"),
            ),
            random_weights=bool(row["random_weights"]),
            status=row["status"],
            reason=row["reason"] or "",
        )
        for index, row in enumerate(ordered)
    )
    return Table(
        caption="All trials",
        columns=tuple(columns),
        blocks=(Block(caption="", rows=rows),),
        sortable=True,
        num_rows=len(rows),
    )


def cost(results: Results) -> Table | None:
    """What each model costs, with the paper's Table 3 below; None when nothing was profiled."""
    profiles = queries.profiles(results.sql)
    if not profiles:
        return None
    random = {trial["stage_profile"] for trial in results.trials if trial["random_weights"]}
    columns = [
        Column(label="model"),
        Column(label="refiner"),
        Column(label="device"),
        *map(_column, metrics.COST),
    ]
    ours = [
        Row(
            cells=(
                *(Cell(show(row[key])) for key in ("model", "refiner", "device")),
                *(Cell(metric.write(_number(row[metric.key]))) for metric in metrics.COST),
            ),
            random_weights=stage in random,
        )
        for stage, row in profiles.items()
    ]
    published = [
        Row(
            cells=(
                Cell(name),
                Cell(""),
                Cell("V100"),
                *(Cell(m.write(row.get(m.key))) for m in metrics.COST),
            ),
            paper=True,
        )
        for name, row in paper.COST.items()
    ]
    return Table(
        caption="Parameters, speed and memory",
        columns=tuple(columns),
        blocks=(
            Block(caption="measured here", rows=tuple(ours)),
            Block(caption=paper.COST_SOURCE, rows=tuple(published)),
        ),
    )


def hardest(objects: Sequence[queries.HardObject]) -> Table | None:
    """The objects that need most clicks; None without clicks."""
    if not objects:
        return None
    columns = (
        Column(label="object"),
        Column(label="dataset"),
        Column(label="NoC90", title="mean over the trials", numeric=True),
        Column(label="reached 90 %", title="trials that reached IoU 0.9, of all", numeric=True),
        Column(label="final IoU %", title="mean after the last click", numeric=True),
        Column(label="worst %", title="lowest final IoU of a trial", numeric=True),
        Column(label="IoU over clicks", title="mean over the trials, 0 to 1"),
    )
    rows = tuple(
        Row(
            cells=(
                Cell(hard.sample),
                Cell(hard.dataset),
                Cell(f"{hard.noc_90:.2f}"),
                Cell(f"{hard.reached} / {hard.trials}", sort=hard.reached / hard.trials),
                Cell(f"{100 * hard.final_iou:.2f}"),
                Cell(f"{100 * hard.worst_iou:.2f}"),
                Cell("", sort=hard.final_iou, curve=hard.curve),
            )
        )
        for hard in objects
    )
    blocks = (Block(caption="", rows=rows),)
    return Table(caption="Hardest objects", columns=columns, blocks=blocks, sortable=True, num_rows=len(rows))


def _column(metric: Metric) -> Column:
    return Column(label=metric.label, title=f"{metric.meaning} ({metric.key})", numeric=True)


def _setting_column(design: Design, setting: str, rows: Sequence[Trial]) -> Column:
    label = design.label(setting) if setting in design.axes else setting.removeprefix("train.")
    numeric = all(is_number(row.get(setting)) or row.get(setting) is None for row in rows)
    return Column(label=label, title=setting, numeric=numeric)


def _trial_cells(rows: Sequence[Trial], metric: Metric) -> list[Cell]:
    """A metric of every trial: the best of each dataset marked, some with a bar."""
    values = [row.get(metric.key) if row["status"] == "done" else None for row in rows]
    there = [value for value in values if value is not None]
    low, high = min(there, default=0.0), max(there, default=0.0)
    barred = metric in metrics.BARRED and high > low
    top: set[int] = set()
    for data in {row[DATA] for row in rows}:
        real = [None if row["random_weights"] or row[DATA] != data else v for row, v in zip(rows, values, strict=True)]
        top |= best(real, metric.better) if metric.better else set()
    return [
        Cell(
            metric.write(value),
            best=index in top,
            share=(value - low) / (high - low) if barred and value is not None else None,
        )
        for index, value in enumerate(values)
    ]


def _summary_cells(groups: Sequence[Group], shown: Sequence[Metric]) -> list[list[Cell]]:
    """A row of cells per group; the best of each metric is marked unless the weights are random."""
    rows: list[list[Cell]] = [[] for _ in groups]
    for metric in shown:
        summaries = [group.summary(metric.key) for group in groups]
        # Rounded as it is shown: two numbers that read alike are equally good.
        means = [None if s.mean is None else round(s.mean * metric.scale, metric.digits) for s in summaries]
        top = best(means, metric.better) if metric.better and not groups[0].random_weights else set()
        for index, summary in enumerate(summaries):
            rows[index].append(Cell(metric.write_summary(summary), best=index in top))
    return rows


def _count(summary: Summary) -> str:
    return str(summary.n) if summary.n == summary.planned else f"{summary.n} of {summary.planned}"


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
