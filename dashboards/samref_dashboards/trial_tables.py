"""The tables that are not the paper's: all trials, differences to a baseline, axes that matter, hardest objects."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from samref_dashboards import metrics
from samref_dashboards.comparisons import LEVEL, Comparisons, Difference
from samref_dashboards.design import DATA, Design, is_number
from samref_dashboards.load import Results, Trial
from samref_dashboards.metrics import Metric
from samref_dashboards.queries import HardObject, Spent
from samref_dashboards.statistics import explained_share
from samref_dashboards.tables import SIGNIFICANT, Block, Cell, Column, Filled, Table, amounts, column, plain, texts


def trials(results: Results, design: Design) -> Table | None:
    """List every trial: what was swept, how it ended, the headline metrics. None in an empty sweep."""
    ordered = [trial for each in design.configurations for trial in each.trials]
    columns = [texts("trial", "trial", (row["trial"] for row in ordered))]
    if len(results.sweeps) > 1:
        columns.append(texts("sweep", "sweep", (row["sweep"] for row in ordered)))
    if any(row["status"] != "done" for row in ordered):
        columns.append(texts("status", "status", (row["status"] for row in ordered)))
    columns += [_setting(design, name, ordered) for name in (*design.axes, *design.seeds)]
    for metric in metrics.described(metrics.HEADLINE, results.fields):
        if any(row.get(metric.key) is not None for row in ordered):
            columns.append((column(metric), _trial_cells(ordered, metric)))
    title = "device time of all stages of the trial, seconds"
    columns.append(amounts("device s", "device_seconds", (t["device_seconds"] for t in ordered), ",.1f", title=title))
    if any(row["reason"] for row in ordered):
        reasons = (row["reason"] or "" for row in ordered)
        columns.append(texts("reason", "reason", reasons, title="why it is not done"))
    note = "A heading sorts. Bars run from a column’s lowest number to its highest. A trial is one seed: none is best."
    table = plain("trials", "All trials", f"All {len(ordered)} trials.", columns, note=note)
    if table is None:
        return None
    marked = tuple(
        replace(made, random_weights=bool(row["random_weights"]), status=row["status"])
        for made, row in zip(table.blocks[0].rows, ordered, strict=True)
    )
    return replace(table, blocks=(Block(caption="", rows=marked),))


def differences(design: Design, comparisons: Comparisons) -> Table | None:
    """Compare every configuration with its baseline; None without a comparison."""
    of = {each: [one for one in comparisons.differences if one.metric == each.key] for each in metrics.COMPARED}
    firsts = of[metrics.NOC_90]
    names = [design.describe(one.configuration.values, leave_out=[DATA]) or "the only configuration" for one in firsts]
    columns = [
        texts("configuration", "configuration", names),
        texts("dataset", DATA, (one.configuration.data for one in firsts), data=True),
    ]
    for metric, found in of.items():
        columns += _difference_columns(metric, found)
    columns.append(amounts("objects", "objects", (one.num_objects for one in firsts)))
    # How many seeds were paired is a text, which stands to the right all the same.
    columns.append((Column(label="seeds paired", key="seeds", numeric=True), [Cell(one.seeds) for one in firsts]))
    note = f"Less is better; * is p < {LEVEL:g}. {comparisons.how[0].upper()}{comparisons.how[1:]}. "
    note += "Seeds are averaged before objects are resampled: the interval is over objects, for these trainings."
    if comparisons.left_out:
        note += f" {comparisons.left_out} more configurations are not compared; --baseline chooses another baseline."
    if comparisons.unlike:
        note += f" {comparisons.unlike} configurations were evaluated on other objects and are not compared."
    caption = f"Paired differences to {comparisons.baseline}."
    return plain("differences", "Differences in numbers", caption, columns, note=note)


def _difference_columns(metric: Metric, found: Sequence[Difference]) -> list[Filled]:
    """The mean difference in one metric, the ends of its interval, and its p."""
    key, confidence = metric.key, "95 % confidence interval"
    means = [
        Cell(_signed(one.interval.mean, metric.digits) + mark, one.interval.mean, mark=mark)
        for one in found
        for mark in [SIGNIFICANT if one.significant else ""]
    ]
    low = [Cell(_signed(one.interval.low, metric.digits), one.interval.low) for one in found]
    high = [Cell(_signed(one.interval.high, metric.digits), one.interval.high) for one in found]
    return [
        (Column(label=f"Δ {metric.label}", key=f"delta_{key}", title="less is better", numeric=True), means),
        (Column(label="95 % from", key=f"low_{key}", title=confidence, numeric=True), low),
        (Column(label="to", key=f"high_{key}", title=confidence, numeric=True), high),
        amounts("p", f"p_{key}", (one.adjusted_p for one in found), ".4f", title="Holm-adjusted, two-sided"),
    ]


def _signed(value: float, digits: int) -> str:
    """`+0.25`, `−0.25`, and no sign on a zero."""
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text if text.strip("+−0.") else text[1:]


def importance(design: Design) -> Table | None:
    """Tell how much of NoC90's variance lies between an axis' values; None below two axes or six configurations."""
    axes = [axis for axis in design.axes if axis != DATA and len(design.levels(axis)) > 1]
    if len(axes) < 2:
        return None
    found = [share for data in design.datasets for share in _shares(design, axes, data)]
    chances = ((one.levels - 1) / (one.configurations - 1) for one in found)
    levels = "distinct values; more than 6 numbers: quantiles"
    columns = [
        (Column(label="axis", key="axis"), [Cell(design.label(one.axis), one.axis) for one in found]),
        texts("dataset", DATA, (one.data for one in found), data=True),
        (
            Column(label="share of variance %", key="eta_squared", title="η²", numeric=True),
            [Cell(f"{100 * one.share:.1f}", one.share, share=one.share) for one in found],
        ),
        amounts("by chance %", "by_chance", chances, ".1f", scale=100, title="expected of an axis without effect"),
        amounts("values", "values", (one.levels for one in found), title=levels),
        amounts("configurations", "configurations", (one.configurations for one in found)),
    ]
    return plain(
        "importance",
        "Which axes matter",
        "Share of the variance of NoC90 that lies between the values of one axis (η²).",
        columns,
        note="Between configurations’ means over seeds, one axis at a time, where no seed is missing; what the "
        "shares leave over is interaction. In a full grid they add up to at most 100 %. In a search, where axes are "
        "correlated, they need not, and a share says what goes with an axis, not what it causes. “By chance” is the "
        "share of an axis without effect.",
    )


class _Share(NamedTuple):
    axis: str
    data: str
    share: float
    levels: int
    configurations: int


def _shares(design: Design, axes: Sequence[str], data: str) -> list[_Share]:
    """Each axis' share of one dataset's variance, the largest first; none below six configurations."""
    real = [each for each in design.configurations if each.data == data and not each.random_weights]
    summaries = [(each, each.summary("noc_at_90")) for each in real]
    measured = [(each, one.mean) for each, one in summaries if one.whole and one.mean is not None]
    if len(measured) < 6:
        return []
    found = []
    for axis in axes:
        levels = _binned([each.values[axis] for each, _ in measured])
        share, distinct = explained_share(levels, [mean for _, mean in measured]), len(set(levels))
        if share is not None and distinct > 1:
            found.append(_Share(axis, data, share, distinct, len(measured)))
    return sorted(found, key=lambda one: -one.share)


def _binned(values: Sequence[object]) -> list[object]:
    """Values as levels; more than six numbers (a search's) become six quantiles."""
    numbers = [float(value) for value in values if isinstance(value, int | float) and is_number(value)]
    if len(numbers) < len(values) or len(set(numbers)) <= 6:
        return list(values)
    order = sorted(set(numbers))
    rank = {number: index for index, number in enumerate(order)}
    return [6 * rank[number] // len(order) for number in numbers]


def hardest(objects: Sequence[HardObject]) -> Table | None:
    """List the objects that need most clicks; None without clicks."""
    reached = Column(label="reached 90 %", key="reached_90", title="trials that reached IoU 0.9, of all", numeric=True)
    final, worst = "mean after the last click", "lowest final IoU of a trial"
    columns = [
        texts("object", "sample", (hard.sample for hard in objects)),
        texts("dataset", "dataset", (hard.dataset for hard in objects), data=True),
        amounts("NoC90", "noc_at_90", (hard.noc_90 for hard in objects), ".2f", title="mean over the trials"),
        (reached, [Cell(f"{hard.reached} / {hard.trials}", hard.reached / hard.trials) for hard in objects]),
        amounts("final IoU %", "final_iou", (hard.final_iou for hard in objects), ".2f", scale=100, title=final),
        amounts("worst %", "worst_iou", (hard.worst_iou for hard in objects), ".2f", scale=100, title=worst),
        (
            Column(label="IoU over clicks", key="iou_curve", title="mean over the trials, 0 to 1"),
            [Cell("", hard.final_iou, curve=hard.curve) for hard in objects],
        ),
    ]
    caption = "The objects that need most clicks to IoU 90 %, mean over the trials."
    note = "Trials with random weights count only where there are no others."
    return plain("hardest", "Hardest objects", caption, columns, note=note)


def computing(spent: Sequence[Spent]) -> Table | None:
    """Sum up what the sweep itself took; None where stages were not recorded."""
    per_second = "images encoded, steps or clicks: the median"
    columns = [
        texts("stage", "kind", (one.kind for one in spent)),
        texts("hardware", "hardware", (one.hardware for one in spent)),
        amounts("done", "stages", (one.stages for one in spent)),
        amounts("device hours", "device_hours", (one.device_hours for one in spent), ",.2f", title="of all together"),
        amounts("per second", "per_second", (one.per_second for one in spent), ",.2f", title=per_second),
        amounts("memory (GB)", "memory_gb", (one.memory_gb for one in spent), ".2f", title="the most that one took"),
    ]
    caption = "What the sweep took, each stage once however many trials share it."
    return plain("computing", "Computing", caption, columns, sortable=False)


def _setting(design: Design, name: str, rows: Sequence[Trial]) -> Filled:
    label = design.label(name) if name in design.axes else name.removeprefix("train.")
    numeric = all(is_number(row.get(name)) or row.get(name) is None for row in rows)
    head = Column(label=label, key=name, title=name, numeric=numeric, data=name == DATA)
    return head, [Cell(design.show(name, row.get(name))) for row in rows]


def _trial_cells(rows: Sequence[Trial], metric: Metric) -> list[Cell]:
    """A metric of every trial, some with a bar; nothing is best, because a trial is but one seed."""
    values = [row.get(metric.key) if row["status"] == "done" else None for row in rows]
    there = [value for value in values if value is not None]
    low, high = min(there, default=0.0), max(there, default=0.0)
    barred = metric.key in metrics.BARRED and high > low
    shares = [(value - low) / (high - low) if barred and value is not None else None for value in values]
    return [Cell(metric.write(value), value, share=share) for value, share in zip(values, shares, strict=True)]
