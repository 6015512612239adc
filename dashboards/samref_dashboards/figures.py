"""The figures of a report: which charts, side by side under one legend. charts.py draws each.

Every chart embeds only aggregates. Colours are names (theme.py); the legend is plain data, because one legend
serves all charts of a figure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from samref_dashboards import charts, metrics, paper
from samref_dashboards.axes import DATA, THETA, Design, Group, is_number
from samref_dashboards.metrics import Metric
from samref_dashboards.queries import CURVE_POINTS, Curve
from samref_dashboards.tables import RANDOM
from samref_dashboards.theme import DISTINCT, colours

Item = TypeVar("Item")

MAX_CHARTS = 12
"""Charts of one figure; a page with more is not looked at."""
MAX_LINES = 60
"""Curves of one chart; more are a grey cloud, and most of a page's bytes."""
EARLIER = "earlier training"
"""A training that no trial owns: others start from it."""
MAX_POINTS = 600
"""Configurations of one chart against an axis."""


@dataclass(frozen=True)
class Panel:
    """One chart."""

    title: str
    spec: charts.Spec
    data: str = ""
    """The dataset that it shows; empty where it shows several."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Charts that share a legend."""

    name: str
    """Of its section and of its files."""
    title: str
    note: str
    legend_title: str
    legend: Mapping[str, str]
    """label -> colour."""
    panels: tuple[Panel, ...]
    dashed: str
    """What a dashed line means; empty where there is none."""
    widest: int = 4
    """Charts side by side on a wide page."""

    @property
    def columns(self) -> int:
        """Charts side by side here, in full rows where that is possible."""
        count = len(self.panels)
        if count <= self.widest:
            return count
        return 3 if self.widest > 3 and count % 3 == 0 else self.widest


def click_curves(design: Design, curves: Mapping[int, Curve]) -> Figure | None:
    """Mean IoU after each click: a chart per dataset and, where lines need it, per combination of further axes."""
    lined = lined_axes(design, leave_out=[DATA]) or lined_axes(design)
    colours_of = legend(design, lined)
    combinations: dict[tuple[Any, ...], list[int]] = {}
    for index, group in enumerate(design.groups):
        if index in curves:
            key = tuple(value for axis, value in group.values.items() if axis not in lined)
            combinations.setdefault(key, []).append(index)
    panels = []
    for indices in list(combinations.values())[:MAX_CHARTS]:
        first = design.groups[indices[0]]
        data = "" if DATA in lined else first.data
        rows = [
            {"click": [x for x, _ in curves[index]], "miou": [100 * y for _, y in curves[index]]}
            | who(design, design.groups[index], lined)
            for index in evenly(indices, MAX_LINES)
        ]
        # Charts of one dataset are compared, so they have one scale.
        alike = [curve for index, curve in curves.items() if not data or design.groups[index].data == data]
        percent = [100 * edge(y for curve in alike for _, y in curve) for edge in (min, max)]
        title = " · ".join(filter(None, [data, design.describe(first.values, leave_out=[DATA, *lined])]))
        spec = charts.curves(rows, colours_of, f"Mean IoU after each click, {title}", percent=percent)
        panels.append(Panel(title, spec, data))
    note = "Mean over objects, then over seeds." if design.seeds else "Mean over objects."
    lacking = sum(design.groups[index].lacking for index in curves)
    note += f" {lacking} of {len(curves)} curves lack a seed; the pointer says which." if lacking else ""
    most = max(map(len, combinations.values()), default=0)
    if most > MAX_LINES:
        note += f" {MAX_LINES} of up to {most} curves a chart, evenly spaced."
    return figure(design, "clicks", "Mean IoU after each click", note, lined, panels, len(combinations))


def noc_by_axis(design: Design, axis: str) -> Figure | None:
    """NoC90 and NoC95 against one axis: a chart per dataset and metric, a line per value of another axis."""
    levels = design.levels(axis)
    if len(levels) < 2:
        return None
    lined = lined_axes(design, leave_out=(axis, DATA))
    colours_of = legend(design, lined)
    numeric = all(is_number(level) for level in levels)
    panels, most = [], 0
    for data in dict.fromkeys(group.data for group in design.groups):
        groups = [group for group in design.groups if group.data == data]
        for metric in (metrics.NOC_90, metrics.NOC_95):
            rows = [row for group in groups if (row := _point(design, group, axis, lined, metric, numeric))]
            most = max(most, len(rows))
            if rows:
                shown, about = evenly(rows, MAX_POINTS), f"{metric.label} against {axis} on {data}"
                names = {"metric": metric.label, "axis": design.label(axis)}
                reference = _published(metric) if axis == THETA and _is_the_papers(groups) else ()
                spec = (
                    charts.metric_by_axis(shown, colours_of, about, levels=levels, reference=reference, **names)
                    if numeric
                    else charts.metric_by_name(shown, colours_of, about, **names)
                )
                panels.append(Panel(f"{metric.label}, {data}", spec, data))
    note = "Fewer is better."
    if design.seeds:
        note += f" {'Bands' if numeric else 'Bars'}: ± one standard deviation over seeds; n is under the pointer."
    note += hollow(design)
    if axis == THETA and _is_the_papers(design.groups):
        note += f" Grey: {paper.THETA_SOURCE}."
    if most > MAX_POINTS:
        note += f" {MAX_POINTS} of up to {most} configurations a chart, evenly spaced."
    title = f"Number of clicks against {design.label(axis)}"
    name = f"noc-by-{re.sub(r'[^a-z0-9]+', '-', axis)}"  # a file's name, so nothing but that
    return figure(design, name, title, note, lined, panels[:MAX_CHARTS], len(panels))


def training(design: Design, curves: Mapping[str, Mapping[str, Curve]]) -> Figure | None:
    """The losses over the steps of every training (another metric only where there is no loss)."""
    names = [name for name in curves if "loss" in name] or list(curves)[:1]
    owners = {trial["stage_train"]: group for group in design.groups for trial in group.trials}
    # What is evaluated does not tell trainings apart.
    lined = lined_axes(design, leave_out=[axis for axis in design.axes if axis.startswith("evaluate.")])
    stages = sorted({stage for name in names for stage in curves[name]}, key=lambda stage: stage not in owners)
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
            curve = curves[name].get(stage, [])
            points = {"step": [x for x, _ in curve], "value": [y for _, y in curve]}
            rows.append({**points, **owner, "configuration": stage})
        panels.append(Panel(name, charts.training(rows, colours_of, f"{name} over training steps")))
    note = f"{len(shown)} of {len(stages)} trainings; curves of more than {CURVE_POINTS} points are averaged."
    made = figure(design, "training", "Training", note, lined, panels[:MAX_CHARTS], len(panels))
    return replace(made, legend={label: colour for label, colour in colours_of.items() if label}) if made else None


def figure(
    design: Design,
    name: str,
    title: str,
    note: str,
    lined: Sequence[str],
    panels: Sequence[Panel],
    found: int,
    *,
    dashed: bool = True,
    widest: int = 4,
) -> Figure | None:
    """The panels as a figure; None without any, and a note where there were more."""
    if not panels:
        return None
    if found > len(panels):
        note += f" {found - len(panels)} more charts are left out."
    return Figure(
        name=f"figure-{name}",
        title=title,
        note=note,
        legend_title=" · ".join(map(design.label, lined)),
        legend=legend(design, lined),
        panels=tuple(panels),
        dashed=RANDOM if dashed and any(group.random_weights for group in design.groups) else "",
        widest=widest,
    )


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """So many items, evenly spaced, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(index * (len(items) - 1) / (count - 1))] for index in range(count)]


def lined_axes(design: Design, leave_out: Sequence[str] = ()) -> tuple[str, ...]:
    """The axes whose values colours stand for: all that vary if there are colours enough, else the first.

    The dataset comes last.
    """
    several = [axis for axis in design.axes if axis not in leave_out and len(design.levels(axis)) > 1]
    several.sort(key=lambda axis: axis == DATA)
    return tuple(several if len(_combinations(design, several)) <= DISTINCT else several[:1])


def _combinations(design: Design, axes: Sequence[str]) -> list[tuple[Any, ...]]:
    """The axes' values that occur together, in order."""
    levels = {axis: design.levels(axis) for axis in axes}
    found = {tuple(group.values[axis] for axis in axes) for group in design.groups}
    return sorted(found, key=lambda values: [levels[axis].index(v) for axis, v in zip(axes, values, strict=True)])


def legend(design: Design, axes: Sequence[str]) -> dict[str, str]:
    """label -> colour of all that colours stand for."""
    if not axes:
        return {}
    found = _combinations(design, axes)
    ordered = len(axes) == 1 and len(found) > 2 and all(is_number(level) for (level,) in found)
    return dict(zip((_line(design, axes, values) for values in found), colours(len(found), ordered), strict=True))


def _line(design: Design, axes: Sequence[str], values: Sequence[Any]) -> str:
    return " · ".join(design.show(axis, value) for axis, value in zip(axes, values, strict=True))


def who(design: Design, group: Group, lined: Sequence[str]) -> dict[str, Any]:
    """The fields that tell a chart's rows apart."""
    name = design.describe(group.values) or group.data
    if group.lacking:
        name += f", {len(group.done)} of {len(group.trials)} seeds"
    return {
        "line": _line(design, lined, [group.values[axis] for axis in lined]),
        "configuration": f"{name} ({RANDOM})" if group.random_weights else name,
        "random": group.random_weights,
        "lacking": group.lacking,
    }


def hollow(design: Design) -> str:
    """What hollow points mean, for a figure's note; empty where there are none."""
    return " Hollow: a seed is missing." if any(group.done and group.lacking for group in design.groups) else ""


def _point(
    design: Design, group: Group, axis: str, lined: Sequence[str], metric: Metric, numeric: bool
) -> dict[str, Any] | None:
    summary = group.summary(metric.key)
    if summary.mean is None:
        return None
    spread = summary.std or 0.0
    return {
        "x": group.values[axis] if numeric else design.show(axis, group.values[axis]),
        "y": summary.mean,
        "low": summary.mean - spread,
        "high": summary.mean + spread,
        "n": summary.count,
        "rest": design.describe(group.values, leave_out=[axis]),
        **who(design, group, lined),
    }


def _is_the_papers(groups: Sequence[Group]) -> bool:
    """Whether Table 1 belongs beside these; on other data or backbones it would squash the scale."""
    settings = [group.trials[0] for group in groups]
    return any(row[DATA] == "davis" and row["model.backbone"] == "sam_vit_h" for row in settings)


def _published(metric: Metric) -> list[dict[str, Any]]:
    return [
        {"x": theta, "y": row[metric.key], "source": paper.THETA_SOURCE, "random": False}
        for theta, row in paper.THETA.items()
    ]
