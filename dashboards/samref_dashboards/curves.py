"""The figures that are lines: IoU over clicks, clicks over an axis, losses over steps. charts.py draws each chart.

Every chart embeds only aggregates.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samref_dashboards import charts, metrics, paper
from samref_dashboards.design import DATA, THETA, Configuration, Design, is_number
from samref_dashboards.figure_kit import (
    MAX_CHARTS,
    Figure,
    Panel,
    evenly,
    figure,
    hollow,
    legend,
    lined_axes,
    points,
    who,
)
from samref_dashboards.metrics import Metric
from samref_dashboards.queries import Answers, Curve
from samref_dashboards.statistics import bootstrap_band

MAX_LINES = 60
"""Curves of one chart; more are a grey cloud, and most of a page's bytes."""
EARLIER = "earlier training"
"""A training that no trial owns: others start from it."""
MAX_BANDS = 4
"""Lines of a chart that have bands; more lie over each other."""
Band = tuple[NDArray[np.float64], NDArray[np.float64]]
MAX_POINTS = 600
"""Configurations of one chart against an axis."""


def click_curves(design: Design, answers: Answers) -> list[Figure]:
    """Show, after each click, how many objects have reached IoU 0.9, and the mean IoU.

    A chart per dataset and, where lines need it, per combination of further axes; few lines have bands.
    """
    lined = lined_axes(design, leave_out=[DATA]) or lined_axes(design)
    combinations: dict[tuple[Any, ...], list[int]] = {}
    success, means = answers.success_curves(), answers.miou_curves()
    for index, configuration in enumerate(design.configurations):
        if index in means:
            key = tuple(value for axis, value in configuration.values.items() if axis not in lined)
            combinations.setdefault(key, []).append(index)
    shown = list(combinations.values())[:MAX_CHARTS]
    banded = [index for indices in shown if len(indices) <= MAX_BANDS for index in indices]
    bands = {index: tuple(map(bootstrap_band, made)) for index, made in answers.by_object(banded).items()}
    note = "Mean over objects, then over seeds." if design.seeds else "Mean over objects."
    note += " Bands: 95 % bootstrap intervals over objects." if bands else ""
    lacking = sum(design.configurations[index].lacking for index in means)
    note += f" {lacking} of {len(means)} curves lack a seed; the pointer says which." if lacking else ""
    most = max(map(len, combinations.values()), default=0)
    if most > MAX_LINES:
        note += f" {MAX_LINES} of up to {most} curves a chart, evenly spaced."
    kinds = (
        ("success", "Objects that reached IoU 90 %", "% of objects", success, 1),
        ("clicks", "Mean IoU after each click", "mIoU %", means, 0),
    )
    figures = []
    for name, title, axis, curves, place in kinds:
        own = {index: made[place] for index, made in bands.items()}
        panels = [_curve_panel(design, lined, indices, curves, own, (title, axis)) for indices in shown]
        figures.append(figure(design, name, title, note, lined, panels, found=len(combinations)))
    return [made for made in figures if made]


def _curve_panel(
    design: Design,
    lined: Sequence[str],
    indices: Sequence[int],
    curves: Mapping[int, Curve],
    bands: Mapping[int, Band],
    titles: tuple[str, str],
) -> Panel:
    """One chart of curves over clicks, in percent; those of one dataset are compared, so they have one scale."""
    first = design.configurations[indices[0]]
    data = "" if DATA in lined else first.data
    rows = []
    for index in evenly(indices, MAX_LINES):
        curve = curves[index]
        row: dict[str, Any] = {"click": [x for x, _ in curve], "y": [100 * y for _, y in curve]}
        for end, ys in zip(("low", "high"), bands.get(index, ()), strict=False):
            row[end] = [100 * float(y) for y in ys[: len(curve)]]
        rows.append(row | who(design, design.configurations[index], lined))
    alike = [index for index in curves if not data or design.configurations[index].data == data]
    ends = [y for index in alike for _, y in curves[index]]
    ends += [float(y) for index in alike if index in bands for ys in bands[index] for y in ys]
    said = design.describe(first.values, leave_out=[DATA, *lined])
    title = " · ".join(filter(None, [design.counted(data) if data else "", said]))
    percent = [100 * min(ends), 100 * max(ends)] if min(ends) < max(ends) else [0.0, 100.0]
    spec = charts.curves(rows, legend(design, lined), f"{titles[0]}, {title}", title=titles[1], percent=percent)
    return Panel(title, spec, data)


def noc_by_axis(design: Design, axis: str) -> Figure | None:
    """Show NoC90 and NoC95 against one axis: a chart per dataset and metric, a line per value of another axis."""
    levels = design.levels(axis)
    if len(levels) < 2:
        return None
    lined = lined_axes(design, leave_out=(axis, DATA))
    colours_of = legend(design, lined)
    numeric = all(is_number(level) for level in levels)
    panels, most = [], 0
    for data in design.datasets:
        configurations = [each for each in design.configurations if each.data == data]
        for metric in metrics.COMPARED:
            rows = []
            for each in configurations:
                x = each.values[axis] if numeric else design.show(axis, each.values[axis])
                rest = design.describe(each.values, leave_out=[axis])
                rows += points(design, each, lined, each.summary(metric.key), x, rest)
            most = max(most, len(rows))
            if rows:
                shown, about = evenly(rows, MAX_POINTS), f"{metric.label} against {axis} on {data}"
                names = {"metric": metric.label, "axis": design.label(axis)}
                reference = published(metric) if axis == THETA and is_the_papers(configurations) else ()
                spec = (
                    charts.metric_by_axis(shown, colours_of, about, levels=levels, reference=reference, **names)
                    if numeric
                    else charts.metric_by_name(shown, colours_of, about, **names)
                )
                panels.append(Panel(f"{metric.label}, {design.counted(data)}", spec, data))
    note = "Fewer is better."
    if design.seeds:
        note += f" {'Bands' if numeric else 'Bars'}: ± one standard deviation over seeds; n is under the pointer."
    note += hollow(design)
    if axis == THETA and is_the_papers(design.configurations):
        note += f" Grey: {paper.THETA_SOURCE}."
    if most > MAX_POINTS:
        note += f" {MAX_POINTS} of up to {most} configurations a chart, evenly spaced."
    title = f"Number of clicks against {design.label(axis)}"
    name = f"noc-by-{re.sub(r'[^a-z0-9]+', '-', axis)}"  # a file's name, so nothing but that
    return figure(design, name, title, note, lined, panels)


def training(design: Design, curves: Mapping[str, Mapping[str, Curve]]) -> Figure | None:
    """Show the loss, and each term that it is the sum of, smoothed, over the steps of every training."""
    names = [name for name in curves if name != "learning_rate"]
    owners = {trial["stage_train"]: each for each in design.configurations for trial in each.trials}
    # What is evaluated does not tell trainings apart.
    lined = lined_axes(design, leave_out=[axis for axis in design.axes if axis.startswith("evaluate.")])
    stages = sorted(sorted({stage for name in names for stage in curves[name]}), key=lambda stage: stage not in owners)
    shown = evenly(stages, MAX_LINES)
    colours_of = legend(design, lined)
    if any(stage not in owners for stage in shown):
        colours_of = {**(colours_of or {"": "var(--series-1)"}), EARLIER: "var(--soft)"}
    panels = []
    for name in names:
        rows = []
        for stage in shown:
            # A stage that no trial owns is an earlier training that others start from.
            owner = who(design, owners[stage], lined) if stage in owners else {"line": EARLIER, "random": False}
            if curve := curves[name].get(stage):
                line = {"step": [x for x, _ in curve], "value": _smoothed([y for _, y in curve])}
                rows.append({**line, **owner, "configuration": stage})
        panels.append(Panel(name, charts.training(rows, colours_of, f"{name} over training steps")))
    note = "The loss, and each of its terms: at each step the mean over a tenth of all steps around it. "
    note += f"{len(shown)} of {len(stages)} trainings."
    made = figure(design, "training", "Training", note, lined, panels)
    return replace(made, legend={label: colour for label, colour in colours_of.items() if label}) if made else None


def _smoothed(values: Sequence[float]) -> list[float]:
    """Moving means over a tenth of the values, of fewer at the ends."""
    reach = len(values) // 20
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    low, high = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(values))
    return [float(mean) for mean in (sums[high] - sums[low]) / (high - low)]


def is_the_papers(configurations: Sequence[Configuration]) -> bool:
    """Whether Table 1 belongs beside these; on other data or backbones it would squash the scale."""
    settings = [each.trials[0] for each in configurations]
    return any(row[DATA] == "davis" and row["model.backbone"] == "sam_vit_h" for row in settings)


def published(metric: Metric) -> list[dict[str, Any]]:
    """Make the rows of the paper's points of a metric over θ, as `charts` draws references."""
    place = paper.THETA_METRICS.index(metric)
    return [
        {"x": theta, "y": row[place], "source": paper.THETA_SOURCE, "random": False}
        for theta, row in paper.THETA.items()
    ]
