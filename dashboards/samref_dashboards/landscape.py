"""Figures over the whole design: two axes as a heat map, quality against cost, differences to a baseline."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from samref_dashboards import charts, metrics
from samref_dashboards.comparisons import LEVEL, Comparisons
from samref_dashboards.design import DATA, Configuration, Design
from samref_dashboards.figure_kit import MAX_CHARTS, Figure, Panel, evenly, figure, hollow, legend, lined_axes, who
from samref_dashboards.metrics import Metric
from samref_dashboards.tables import RANDOM

COSTS = (metrics.LATENCY, replace(metrics.CLICK, label="one click (s)"), metrics.SECONDS_PER_CLICK, metrics.PARAMETERS)
"""What quality can be held against, best first."""
MAX_SQUARES = 400
MAX_POINTS = 400
MAX_ROWS = 24
"""Values of all axes in one chart of differences."""


def heat_maps(design: Design) -> Figure | None:
    """Map NoC90 over the first two axes, a chart per dataset and combination of the others; None below two axes."""
    axes = [axis for axis in design.axes if axis != DATA and len(design.levels(axis)) > 1][:2]
    if len(axes) < 2:
        return None
    down, across = sorted(axes, key=lambda axis: len(design.levels(axis)))
    maps: list[tuple[Configuration, list[dict[str, Any]]]] = []
    for configurations in design.split(axes).values():
        rows = [row for each in configurations if (row := _square(design, each, across, down))]
        full = len({row["x"] for row in rows}) > 1 and len({row["y"] for row in rows}) > 1
        if full and len(rows) <= MAX_SQUARES:
            maps.append((configurations[0], rows))
    ranges = _paint(maps)
    panels = []
    for first, rows in maps[:MAX_CHARTS]:
        rest = design.describe(first.values, leave_out=[*axes, DATA])
        title = " · ".join(
            filter(None, [f"NoC90, {design.counted(first.data)}", rest, RANDOM if first.random_weights else ""])
        )
        names = {"x": design.label(across), "y": design.label(down)}
        order: dict[str, Any] = {
            way: [design.show(axis, level) for level in design.levels(axis)]
            for way, axis in (("across", across), ("down", down))
        }
        spec = charts.heat(rows, f"{title}, over {across} and {down}", metric="NoC90", **names, **order)
        panels.append(Panel(title, spec, first.data))
    title = f"NoC90 over {design.label(across)} and {design.label(down)}"
    note = "Mean over seeds. One scale per dataset: "
    note += f"{', '.join(ranges)}. An empty square has no measurement."
    note += " † lacks a seed." if any(row["lacking"] for _, rows in maps for row in rows) else ""
    made = figure(design, "heat", title, note, (), panels, found=len(maps), dashed=False)
    return replace(made, ramp=True) if made else None


def _square(design: Design, configuration: Configuration, across: str, down: str) -> dict[str, Any] | None:
    summary = configuration.summary("noc_at_90")
    if summary.mean is None:
        return None
    return {
        "x": design.show(across, configuration.values[across]),
        "y": design.show(down, configuration.values[down]),
        "value": summary.mean,
        "text": metrics.NOC_90.write(summary.mean) + ("†" if configuration.lacking else ""),
        "n": summary.count,
        **who(design, configuration, ()),
    }


def _paint(maps: Sequence[tuple[Configuration, Sequence[dict[str, Any]]]]) -> list[str]:
    """Colours from a dataset's lowest to its highest, and letters that can be read on each; the ranges in words.

    Maps of one dataset are compared, so they have one scale; random weights have their own.
    """
    alike: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for configuration, rows in maps:
        alike.setdefault((configuration.data, configuration.random_weights), []).extend(rows)
    ranges = []
    for (data, random), rows in alike.items():
        values = [row.pop("value") for row in rows]
        low, high = min(values), max(values)
        for row, value in zip(rows, values, strict=True):
            step = 1 + min(6, int(7 * (value - low) / ((high - low) or 1)))
            row["fill"] = f"var(--ramp-{step})"
            # The ramp ends far from the ground: there the ground's own colour is the readable one.
            row["ink"] = "var(--ground)" if step > 2 else "var(--on-ramp)"
        name = f"{data} ({RANDOM})" if random else data
        ranges.append(f"{name} {metrics.NOC_90.write(low)} to {metrics.NOC_90.write(high)}")
    return ranges


def tradeoffs(design: Design) -> Figure | None:
    """Show NoC90 against what it costs, a chart per dataset, with the configurations that none beats in both."""
    # One model has one cost: differences between its rows would be noise of the clock.
    models = {each.trials[0].get("stage_profile") for each in design.configurations if each.done}
    if len(models) < 2:
        return None
    means = {cost: {each.summary(cost.key).mean for each in design.configurations} - {None} for cost in COSTS}
    cost = next((cost for cost in COSTS if len(means[cost]) > 1), None)
    if cost is None:
        return None
    lined = lined_axes(design, leave_out=[DATA])
    panels = []
    for data in design.datasets:
        rows = [row for g in design.configurations if g.data == data and (row := _point(design, g, cost, lined))]
        if len({row["x"] for row in rows}) > 1:
            front = _front([row for row in rows if not row["random"] and not row["lacking"]])
            title = f"NoC90 against {cost.label}, {data}"
            spec = charts.tradeoff(
                evenly(rows, MAX_POINTS), front, legend(design, lined), title, cost=cost.label, quality="NoC90"
            )
            panels.append(Panel(design.counted(data), spec, data))
    (about,) = metrics.described([cost], design.fields)
    meaning = (about.meaning or cost.key).replace("`", "")
    note = f"To the lower left is better. {cost.label}: {meaning}"
    if cost is metrics.LATENCY:
        note += f" (here {metrics.latency_clicks(trial for each in design.configurations for trial in each.done)})"
    note += f". The dashed steps join the configurations that none beats in both.{hollow(design)}"
    return figure(design, "tradeoff", "Quality against cost", note, lined, panels)


def _point(design: Design, configuration: Configuration, cost: Metric, lined: Sequence[str]) -> dict[str, Any] | None:
    quality, spent = configuration.summary("noc_at_90"), configuration.summary(cost.key)
    if quality.mean is None or spent.mean is None:
        return None
    return {"x": spent.mean * cost.scale, "y": quality.mean, "n": quality.count, **who(design, configuration, lined)}


def _front(rows: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """Points that no other beats in cost and in quality, by cost."""
    front: list[dict[str, float]] = []
    for row in sorted(rows, key=lambda row: (row["x"], row["y"])):
        if not front or row["y"] < front[-1]["y"]:
            front.append({"x": row["x"], "y": row["y"]})
    return front


def differences(design: Design, comparisons: Comparisons) -> Figure | None:
    """Show what each value of each axis does against the axis' baseline, a chart per metric and dataset."""
    effects = comparisons.effects
    names = {(one.axis, one.value): f"{design.label(one.axis)} {design.show(one.axis, one.value)}" for one in effects}
    against = {(one.axis, one.value): f" − {design.show(one.axis, one.baseline)}" for one in effects}
    ends = [0.0, *(end for one in effects for end in (one.interval.low, one.interval.high))]
    domain = [1.08 * min(ends), 1.08 * max(ends)] if any(ends) else [-1.0, 1.0]
    panels = []
    for data, metric in product(dict.fromkeys(one.data for one in effects), metrics.COMPARED):
        rows = [
            {"configuration": names[one.axis, one.value] + against[one.axis, one.value]}
            | {"mean": one.interval.mean, "low": one.interval.low, "high": one.interval.high}
            | {"p": one.adjusted_p, "sure": one.significant}
            for one in effects
            if one.metric == metric.key and one.data == data
        ]
        title = f"{metric.label}, {design.counted(data)}"
        panels.append(
            Panel(title, charts.differences(rows[:MAX_ROWS], f"Δ {title}", metric=metric.label, domain=domain), data)
        )
    note = "Left of 0: fewer clicks. Each value of an axis against the axis’ baseline, all else equal: mean and 95 % "
    note += f"interval of the paired difference over objects. Filled: p < {LEVEL:g}, {comparisons.how_effects}."
    # Names take half of a chart.
    return figure(design, "differences", "What each axis does", note, (), panels, dashed=False, widest=2)
