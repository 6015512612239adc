"""The tables that are not the paper's: all trials, differences to a baseline, axes that matter, hardest objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from samref_dashboards import metrics
from samref_dashboards.comparisons import LEVEL, Comparisons, Difference
from samref_dashboards.design import DATA, Configuration, Design, is_number
from samref_dashboards.load import Results, Trial
from samref_dashboards.metrics import Metric
from samref_dashboards.queries import HardObject, Spent
from samref_dashboards.statistics import best, explained_share
from samref_dashboards.tables import Block, Cell, Column, Row, Table, column


def trials(results: Results, design: Design) -> Table | None:
    """Every trial: what was swept, how it ended, the headline metrics. None in an empty sweep."""
    if not results.trials:
        return None
    ordered = [trial for each in design.configurations for trial in each.trials]
    headline = metrics.described(metrics.HEADLINE, results.fields)
    shown = [metric for metric in headline if any(row.get(metric.key) is not None for row in ordered)]
    several = len(results.sweeps) > 1
    settings = (*design.axes, *design.seeds)
    columns = [Column(label="trial", key="trial")]
    columns += [Column(label="sweep", key="sweep")] if several else []
    columns += [Column(label="status", key="status"), *(_setting_column(design, name, ordered) for name in settings)]
    columns += [column(metric) for metric in shown]
    title = "device time of all stages of the trial, seconds"
    columns += [Column(label="device s", key="device_seconds", title=title, numeric=True)]
    reasons = any(row["reason"] for row in ordered)
    columns += [Column(label="reason", key="reason", title="why it is not done")] if reasons else []
    measured = [_trial_cells(ordered, metric) for metric in shown]
    rows = tuple(
        Row(
            cells=(
                Cell(row["trial"]),
                *([Cell(row["sweep"])] if several else []),
                Cell(row["status"]),
                *(Cell(design.show(name, row.get(name))) for name in settings),
                *(cells[index] for cells in measured),
                Cell("–" if row["device_seconds"] is None else f"{row['device_seconds']:,.1f}", row["device_seconds"]),
                *([Cell(row["reason"] or "")] if reasons else []),
            ),
            random_weights=bool(row["random_weights"]),
            status=row["status"],
        )
        for index, row in enumerate(ordered)
    )
    return Table(
        name="trials",
        title="All trials",
        caption=f"All {len(rows)} trials.",
        columns=tuple(columns),
        blocks=(Block(caption="", rows=rows),),
        note="A heading sorts. Bars run from the column’s smallest number to its largest; the best of a dataset in "
        "bold.",
        sortable=True,
    )


def differences(design: Design, comparisons: Comparisons) -> Table | None:
    """Every configuration against its baseline; None without a comparison."""
    if not comparisons.differences:
        return None
    pairs: dict[tuple[Any, ...], list[Difference]] = {}
    for difference in comparisons.differences:
        pairs.setdefault(difference.configuration.key, []).append(difference)
    known = {metric.key: metric for metric in (metrics.NOC_90, metrics.NOC_95)}
    columns = [Column(label="configuration", key="configuration"), Column(label="dataset", key=DATA, data=True)]
    for metric in known.values():
        key, confidence = metric.key, "95 % confidence interval"
        columns += [
            Column(label=f"Δ {metric.label}", key=f"delta_{key}", title="less is better", numeric=True),
            Column(label="95 % from", key=f"low_{key}", title=confidence, numeric=True),
            Column(label="to", key=f"high_{key}", title=confidence, numeric=True),
            Column(label="p", key=f"p_{key}", title="Holm-adjusted, two-sided", numeric=True),
        ]
    columns.append(Column(label="objects", key="objects", numeric=True))
    columns.append(Column(label="seeds paired", key="seeds", numeric=True))
    rows = []
    for found in pairs.values():
        first = found[0]
        cells = [cell for one in found for cell in _difference_cells(known[one.metric], one)]
        cells += [Cell(str(first.num_objects), first.num_objects), Cell(first.seeds)]
        name = design.describe(first.configuration.values, leave_out=[DATA]) or "the only configuration"
        rows.append(Row(cells=(Cell(name), Cell(first.configuration.data), *cells)))
    note = f"Less is better; * is p < {LEVEL:g}. {comparisons.how[0].upper()}{comparisons.how[1:]}. "
    note += "Seeds are averaged before objects are resampled: the interval is over objects, for these trainings."
    if comparisons.left_out:
        note += f" {comparisons.left_out} more configurations are not compared; --baseline chooses another baseline."
    if comparisons.unlike:
        note += f" {comparisons.unlike} configurations were evaluated on other objects and are not compared."
    return Table(
        name="differences",
        title="Differences in numbers",
        caption=f"Paired differences to {comparisons.baseline}.",
        columns=tuple(columns),
        blocks=(Block(caption="", rows=tuple(rows)),),
        note=note,
        sortable=True,
    )


def _difference_cells(metric: Metric, difference: Difference) -> list[Cell]:
    interval, digits = difference.interval, metric.digits
    mark = "*" if difference.significant else ""
    p = difference.adjusted_p
    return [
        Cell(_signed(interval.mean, digits) + mark, interval.mean, mark=mark),
        Cell(_signed(interval.low, digits), interval.low),
        Cell(_signed(interval.high, digits), interval.high),
        Cell(f"{p:.4f}", p),
    ]


def _signed(value: float, digits: int) -> str:
    """`+0.25`, `−0.25`, and no sign on a zero."""
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text if text.strip("+−0.") else text[1:]


def importance(design: Design) -> Table | None:
    """How much of the variance of NoC90 lies between an axis' values; None below two axes or six configurations."""
    axes = [axis for axis in design.axes if axis != DATA and len(design.levels(axis)) > 1]
    if len(axes) < 2:
        return None
    columns = (
        Column(label="axis", key="axis"),
        Column(label="dataset", key=DATA, data=True),
        Column(label="share of variance %", key="eta_squared", title="η²", numeric=True),
        Column(label="by chance %", key="by_chance", title="expected of an axis without effect", numeric=True),
        Column(label="values", key="values", title="distinct values; more than 6 numbers: quantiles", numeric=True),
        Column(label="configurations", key="configurations", numeric=True),
    )
    rows: list[Row] = []
    for data in dict.fromkeys(each.data for each in design.configurations):
        configurations = [each for each in design.configurations if each.data == data and not each.random_weights]
        rows += _importance_rows(design, axes, data, configurations)
    if not rows:
        return None
    return Table(
        name="importance",
        title="Which axes matter",
        caption="Share of the variance of NoC90 that lies between the values of one axis (η²).",
        columns=columns,
        blocks=(Block(caption="", rows=tuple(rows)),),
        note="Between configurations’ means over seeds, one axis at a time, where no seed is missing; what the "
        "shares leave over is interaction. In a full grid they add up to at most 100 %. In a search, where axes are "
        "correlated, they need not, and a share says what goes with an axis, not what it causes. “By chance” is the "
        "share of an axis without effect.",
        sortable=True,
    )


def _importance_rows(
    design: Design, axes: Sequence[str], data: str, configurations: Sequence[Configuration]
) -> list[Row]:
    summaries = [(each, each.summary("noc_at_90")) for each in configurations]
    measured = [(each, one.mean) for each, one in summaries if one.whole and one.mean is not None]
    if len(measured) < 6:
        return []
    found: list[tuple[float, Row]] = []
    for axis in axes:
        levels = _binned([each.values[axis] for each, _ in measured])
        share, distinct = explained_share(levels, [mean for _, mean in measured]), len(set(levels))
        if share is None or distinct < 2:
            continue
        chance = (distinct - 1) / (len(measured) - 1)
        cells = (
            Cell(design.label(axis), axis),
            Cell(data),
            Cell(f"{100 * share:.1f}", share, share=share),
            Cell(f"{100 * chance:.1f}", chance),
            Cell(str(distinct)),
            Cell(str(len(measured))),
        )
        found.append((share, Row(cells=cells)))
    return [row for _, row in sorted(found, key=lambda item: -item[0])]


def _binned(values: Sequence[object]) -> list[object]:
    """Values as levels; more than six numbers (a search's) become six quantiles."""
    numbers = [float(value) for value in values if isinstance(value, int | float) and is_number(value)]
    if len(numbers) < len(values) or len(set(numbers)) <= 6:
        return list(values)
    order = sorted(set(numbers))
    rank = {number: index for index, number in enumerate(order)}
    return [6 * rank[number] // len(order) for number in numbers]


def hardest(objects: Sequence[HardObject]) -> Table | None:
    """The objects that need most clicks; None without clicks."""
    if not objects:
        return None
    columns = (
        Column(label="object", key="sample"),
        Column(label="dataset", key="dataset", data=True),
        Column(label="NoC90", key="noc_at_90", title="mean over the trials", numeric=True),
        Column(label="reached 90 %", key="reached_90", title="trials that reached IoU 0.9, of all", numeric=True),
        Column(label="final IoU %", key="final_iou", title="mean after the last click", numeric=True),
        Column(label="worst %", key="worst_iou", title="lowest final IoU of a trial", numeric=True),
        Column(label="IoU over clicks", key="iou_curve", title="mean over the trials, 0 to 1"),
    )
    rows = tuple(
        Row(
            cells=(
                Cell(hard.sample),
                Cell(hard.dataset),
                Cell(f"{hard.noc_90:.2f}", hard.noc_90),
                Cell(f"{hard.reached} / {hard.trials}", hard.reached / hard.trials),
                Cell(f"{100 * hard.final_iou:.2f}", hard.final_iou),
                Cell(f"{100 * hard.worst_iou:.2f}", hard.worst_iou),
                Cell("", hard.final_iou, curve=hard.curve),
            )
        )
        for hard in objects
    )
    return Table(
        name="hardest",
        title="Hardest objects",
        caption="The objects that need most clicks to IoU 90 %, mean over the trials.",
        columns=columns,
        blocks=(Block(caption="", rows=rows),),
        note="Trials with random weights count only where there are no others.",
        sortable=True,
    )


def computing(spent: Sequence[Spent]) -> Table | None:
    """What the sweep itself took; None where stages were not recorded."""
    if not spent:
        return None
    columns = (
        Column(label="stage", key="kind"),
        Column(label="hardware", key="hardware"),
        Column(label="done", key="stages", numeric=True),
        Column(label="device hours", key="device_hours", title="of all together", numeric=True),
        Column(label="per second", key="per_second", title="images encoded, steps or clicks: the median", numeric=True),
        Column(label="memory (GB)", key="memory_gb", title="the most that one took", numeric=True),
    )
    rows = tuple(
        Row(
            cells=(
                Cell(one.kind),
                Cell(one.hardware),
                Cell(str(one.stages), one.stages),
                Cell(f"{one.device_hours:,.2f}", one.device_hours),
                Cell("–" if one.per_second is None else f"{one.per_second:,.2f}", one.per_second),
                Cell("–" if one.memory_gb is None else f"{one.memory_gb:.2f}", one.memory_gb),
            )
        )
        for one in spent
    )
    return Table(
        name="computing",
        title="Computing",
        caption="What the sweep took, each stage once however many trials share it.",
        columns=columns,
        blocks=(Block(caption="", rows=rows),),
    )


def _setting_column(design: Design, setting: str, rows: Sequence[Trial]) -> Column:
    label = design.label(setting) if setting in design.axes else setting.removeprefix("train.")
    numeric = all(is_number(row.get(setting)) or row.get(setting) is None for row in rows)
    return Column(label=label, key=setting, title=setting, numeric=numeric, data=setting == DATA)


def _trial_cells(rows: Sequence[Trial], metric: Metric) -> list[Cell]:
    """A metric of every trial: the best of each dataset marked, some with a bar."""
    values = [row.get(metric.key) if row["status"] == "done" else None for row in rows]
    there = [value for value in values if value is not None]
    low, high = min(there, default=0.0), max(there, default=0.0)
    barred = metric.key in metrics.BARRED and high > low
    top: set[int] = set()
    for data in {row[DATA] for row in rows}:
        real = [None if row["random_weights"] or row[DATA] != data else v for row, v in zip(rows, values, strict=True)]
        top |= best(real, metric.better) if metric.better else set()
    return [
        Cell(
            metric.write(value),
            value,
            best=index in top,
            share=(value - low) / (high - low) if barred and value is not None else None,
        )
        for index, value in enumerate(values)
    ]
