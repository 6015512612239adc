"""Single charts as Vega-Lite specs, made with Altair: rows in, spec out. Knows nothing of trials.

Curves are one row each, with lists of x and y: names repeated at every point would be most of a page.
Rows have `configuration` (which line), `line` (which colour of the legend) and `random` (dashed).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

HEIGHT_PX = 210

Spec = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]
Legend = Mapping[str, str]
"""label -> colour; empty when there is but one."""


def curves(rows: Rows, legend: Legend, description: str) -> Spec:
    """Mean IoU in percent (`miou`) over clicks (`click`), both lists."""
    # A logarithmic axis gives room to the first clicks, where configurations differ.
    clicks = alt.Axis(title="clicks", values=[1, 2, 3, 5, 10, 20, 50, 100], grid=False, format="d")
    chart = (
        _chart(rows)
        .transform_flatten(["click", "miou"])
        .mark_line(strokeWidth=1.4)
        .encode(
            x=alt.X("click:Q", axis=clicks, scale=alt.Scale(type="log", nice=False)),
            y=alt.Y("miou:Q", title="mIoU %", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5)),
            color=_colour(legend),
            detail="configuration:N",
            strokeDash=_dash(rows),
            tooltip=[
                alt.Tooltip("configuration:N", title="trials"),
                alt.Tooltip("click:Q"),
                alt.Tooltip("miou:Q", title="mIoU %", format=".2f"),
            ],
        )
    )
    return _spec([chart], description)


def metric_by_axis(
    rows: Rows,
    legend: Legend,
    description: str,
    *,
    metric: str,
    axis: str,
    levels: Sequence[float] | None,
    reference: Rows = (),
) -> Spec:
    """A metric (`y`, with `low` and `high`) over an axis (`x`): lines over numbers, points over names.

    `levels` are the axis' numbers, None if it has names. `reference` is drawn in grey: `x`, `y`, `source`.
    """
    x = alt.X("x:N", axis=alt.Axis(title=axis, labelAngle=0, grid=False), sort=None)
    if levels is not None:
        wide = min(levels) > 0 and max(levels) / min(levels) > 50
        scale = alt.Scale(zero=False, padding=14, type="log" if wide else "linear")
        x = alt.X("x:Q", axis=alt.Axis(title=axis, values=list(levels), grid=False, format="~g"), scale=scale)
    y = alt.Y("y:Q", title=metric, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5))
    base = _chart(rows).encode(x=x, color=_colour(legend))
    layers = []
    if levels is not None:
        layers.append(base.mark_line().encode(y=y, detail="rest:N", strokeDash=_dash(rows)))
    layers.append(base.mark_rule(strokeWidth=1.5, opacity=0.55).encode(y=alt.Y("low:Q"), y2="high:Q"))
    tooltip = [
        alt.Tooltip("configuration:N", title="trials"),
        alt.Tooltip("y:Q", title=metric, format=".3f"),
        alt.Tooltip("n:Q", title="n"),
    ]
    layers.append(base.mark_point(size=46, opacity=1).encode(y=y, tooltip=tooltip))
    if reference:
        point = alt.OverlayMarkDef(color="var(--soft)", size=20)
        line = _chart(reference).mark_line(color="var(--soft)", strokeWidth=1, strokeDash=[1, 3], point=point)
        layers.append(line.encode(x="x:Q", y="y:Q", tooltip=["source:N", "y:Q"]))
    return _spec(layers, description)


def training(rows: Rows, legend: Legend, description: str) -> Spec:
    """A training metric (`value`) over `step`, both lists."""
    chart = (
        _chart(rows)
        .transform_flatten(["step", "value"])
        .mark_line(strokeWidth=1.25, opacity=0.85)
        .encode(
            x=alt.X("step:Q", title="step", axis=alt.Axis(grid=False, tickCount=5, format="~s")),
            y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5)),
            color=_colour(legend),
            detail="configuration:N",
            strokeDash=_dash(rows),
            tooltip=[alt.Tooltip("configuration:N", title="training")],
        )
    )
    return _spec([chart], description)


def _chart(rows: Rows) -> alt.Chart:
    return alt.Chart(alt.InlineData(values=[_shorten(row) for row in rows]))


def _shorten(row: Mapping[str, Any]) -> dict[str, Any]:
    """Five digits are more than a screen shows, and a quarter of the bytes."""
    return {key: _round(value) for key, value in row.items()}


def _round(value: Any) -> Any:
    if isinstance(value, list):
        return [_round(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _colour(legend: Legend) -> Any:
    if not legend:
        return alt.value("var(--series-1)")
    scale = alt.Scale(domain=list(legend), range=list(legend.values()))
    return alt.Color("line:N", scale=scale, legend=None)


def _dash(rows: Rows) -> Any:
    if not any(row["random"] for row in rows):
        return alt.value([1, 0])
    dashes = alt.Scale(domain=[False, True], range=[[1, 0], [5, 4]])
    return alt.StrokeDash("random:N", scale=dashes, legend=None)


def _spec(layers: Sequence[alt.Chart], description: str) -> Spec:
    chart = alt.LayerChart(layer=layers, description=description, width="container", height=HEIGHT_PX)
    spec: Spec = chart.to_dict()
    spec.pop("config", None)  # one for all charts of the page: theme.CHART_CONFIG
    return spec
