"""The figures of a report: which charts, side by side under one legend. charts.py draws each.

Every chart embeds only aggregates. Colours are names (theme.py); the legend is plain data, because one legend
serves all charts of a figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from samref_dashboards import charts, metrics, paper
from samref_dashboards.axes import DATA, THETA, Design, Group, is_number
from samref_dashboards.metrics import Metric
from samref_dashboards.queries import CURVE_POINTS, Curve
from samref_dashboards.tables import RANDOM
from samref_dashboards.theme import colours

MAX_CHARTS = 12
"""Charts of one figure; a page with more is not looked at."""
MAX_TRAININGS = 40
"""Curves of one training chart."""


@dataclass(frozen=True)
class Panel:
    """One chart."""

    title: str
    spec: charts.Spec


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Charts that share a legend."""

    title: str
    note: str
    legend_title: str
    legend: Mapping[str, str]
    """label -> colour."""
    panels: tuple[Panel, ...]
    dashed: str
    """What a dashed line means; empty where there is none."""


def click_curves(design: Design, curves: Mapping[int, Curve]) -> Figure | None:
    """Mean IoU after each click: a line per value of one axis, a chart per combination of the others."""
    lined = _lined_axis(design)
    legend = _legend(design, lined)
    combinations: dict[tuple[Any, ...], list[int]] = {}
    for index, group in enumerate(design.groups):
        if index in curves:
            key = tuple(value for axis, value in group.values.items() if axis != lined)
            combinations.setdefault(key, []).append(index)
    panels = []
    for indices in list(combinations.values())[:MAX_CHARTS]:
        rows = [
            {"click": [x for x, _ in curves[index]], "miou": [100 * y for _, y in curves[index]]}
            | _who(design, design.groups[index], lined)
            for index in indices
        ]
        first = design.groups[indices[0]]
        rest = design.describe(first.values, leave_out=[DATA, *([lined] if lined else [])])
        title = " · ".join(filter(None, ["" if lined == DATA else first.data, rest]))
        panels.append(Panel(title, charts.curves(rows, legend, f"Mean IoU after each click, {title}")))
    note = "Mean over objects, then over seeds." if design.seeds else "Mean over objects."
    return _figure(design, "Mean IoU after each click", note, lined, panels, len(combinations))


def noc_by_axis(design: Design, axis: str) -> Figure | None:
    """NoC90 and NoC95 against one axis: a chart per dataset and metric, a line per value of another axis."""
    levels = design.levels(axis)
    if len(levels) < 2:
        return None
    lined = _lined_axis(design, leave_out=(axis, DATA))
    numeric = all(is_number(level) for level in levels)
    panels = []
    for data in dict.fromkeys(group.data for group in design.groups):
        groups = [group for group in design.groups if group.data == data]
        for metric in (metrics.NOC_90, metrics.NOC_95):
            rows = [row for group in groups if (row := _point(design, group, axis, lined, metric, numeric))]
            if rows:
                spec = charts.metric_by_axis(
                    rows,
                    _legend(design, lined),
                    f"{metric.label} against {axis} on {data}",
                    metric=metric.label,
                    axis=design.label(axis),
                    levels=levels if numeric else None,
                    reference=_published(metric) if axis == THETA and _is_the_papers(groups) else (),
                )
                panels.append(Panel(f"{metric.label}, {data}", spec))
    note = "Fewer is better."
    if design.seeds:
        note += " Vertical bars: ± one standard deviation over seeds."
    if axis == THETA and _is_the_papers(design.groups):
        note += f" Grey: {paper.THETA_SOURCE}."
    title = f"Number of clicks against {design.label(axis)}"
    return _figure(design, title, note, lined, panels[:MAX_CHARTS], len(panels))


def training(design: Design, curves: Mapping[str, Mapping[str, Curve]]) -> Figure | None:
    """The losses over the steps of every training (another metric only where there is no loss)."""
    names = [name for name in curves if "loss" in name] or list(curves)[:1]
    owners = {trial["stage_train"]: group for group in design.groups for trial in group.trials}
    # What is evaluated does not tell trainings apart.
    lined = _lined_axis(design, leave_out=[axis for axis in design.axes if axis.startswith("evaluate.")])
    stages = sorted({stage for name in names for stage in curves[name]}, key=lambda stage: stage not in owners)
    shown = stages[:MAX_TRAININGS]
    panels = []
    for name in names:
        rows = []
        for stage in shown:
            # A stage that no trial owns is an earlier training that others start from.
            who = _who(design, owners[stage], lined) if stage in owners else {"line": "", "random": False}
            curve = curves[name].get(stage, [])
            points = {"step": [x for x, _ in curve], "value": [y for _, y in curve]}
            rows.append({**points, **who, "configuration": stage})
        panels.append(Panel(name, charts.training(rows, _legend(design, lined), f"{name} over training steps")))
    note = f"{len(shown)} of {len(stages)} trainings; curves of more than {CURVE_POINTS} points are averaged."
    return _figure(design, "Training", note, lined, panels[:MAX_CHARTS], len(panels))


def _figure(
    design: Design, title: str, note: str, lined: str | None, panels: Sequence[Panel], found: int
) -> Figure | None:
    if not panels:
        return None
    if found > len(panels):
        note += f" {found - len(panels)} more charts are left out."
    return Figure(
        title=title,
        note=note,
        legend_title=design.label(lined) if lined else "",
        legend=_legend(design, lined),
        panels=tuple(panels),
        dashed=RANDOM if any(group.random_weights for group in design.groups) else "",
    )


def _lined_axis(design: Design, leave_out: Sequence[str] = ()) -> str | None:
    """The axis that colours stand for: the first with several values, preferably not the dataset."""
    several = [axis for axis in design.axes if axis not in leave_out and len(design.levels(axis)) > 1]
    return min(several, key=lambda axis: axis == DATA, default=None)


def _legend(design: Design, axis: str | None) -> dict[str, str]:
    if axis is None:
        return {}
    levels = design.levels(axis)
    ordered = len(levels) > 2 and all(is_number(level) for level in levels)
    names = [design.show(axis, level) for level in levels]
    return dict(zip(names, colours(len(levels), ordered), strict=True))


def _who(design: Design, group: Group, lined: str | None) -> dict[str, Any]:
    """The fields that tell a chart's rows apart."""
    name = design.describe(group.values) or group.data
    return {
        "line": design.show(lined, group.values[lined]) if lined else "",
        "configuration": f"{name} ({RANDOM})" if group.random_weights else name,
        "random": group.random_weights,
    }


def _point(
    design: Design, group: Group, axis: str, lined: str | None, metric: Metric, numeric: bool
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
        "n": summary.n,
        "rest": design.describe(group.values, leave_out=[axis]),
        **_who(design, group, lined),
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
