"""Single charts as Vega-Lite specs, made with Altair: rows in, spec out. Knows nothing of trials.

Curves are one row each, with lists of x and y: names repeated at every point would be most of a page.
Rows have `configuration` (which line), `line` (which colour of the legend), `random` (dashed) and `lacking` (hollow).
Channels are Altair's classes rather than texts, which it would look up in Vega-Lite's schema, each time.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import altair as alt
from altair.utils import schemapi

HEIGHT_PX = 210

Spec = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]
Numbers = Sequence[float]
Legend = Mapping[str, str]
"""label -> colour; empty when there is but one."""

_POINT: dict[str, Any] = {"filled": False, "size": 50, "opacity": 1, "strokeWidth": 1.5}
_WHO = alt.Tooltip("configuration:N", title="trials")
_SOURCE = [alt.Tooltip("source:N"), alt.Tooltip("y:Q")]


def unchecked() -> AbstractContextManager[None]:
    """Switch Altair's checks off while charts are made.

    It checks every small part against Vega-Lite's JSON schema, which takes longer than all the rest of a page; a test
    checks each kind of chart instead.
    """
    return schemapi.debug_mode(False)


def curves(rows: Rows, legend: Legend, description: str, *, title: str, percent: Numbers) -> Spec:
    """Draw a share in percent (`y`) over clicks (`click`), both lists; `percent` is the range of the axis.

    Rows with `low` and `high`, lists as well, have a band.
    """
    # A logarithmic axis gives room to the first clicks, where configurations differ.
    clicks = alt.Axis(title="clicks", values=[1, 2, 3, 5, 10, 20, 50, 100], grid=False, format="d")
    x = alt.X("click:Q", axis=clicks, scale=alt.Scale(type="log", nice=False))
    scale = alt.Scale(domain=list(percent))
    encoded = (
        alt.Chart()
        .transform_flatten(["click", "y"])
        .encode(
            x=x,
            y=alt.Y("y:Q", title=title, scale=scale, axis=alt.Axis(tickCount=5)),
            color=_colour(legend),
            detail=alt.Detail("configuration:N"),
            strokeDash=_dash(rows),
            tooltip=[_WHO, alt.Tooltip("click:Q"), alt.Tooltip("y:Q", title=title, format=".2f")],
        )
    )
    # Points that cannot be seen can be hit by a mouse; lines only by luck.
    layers = [encoded.mark_line(strokeWidth=1.4), encoded.mark_point(size=40, opacity=0)]
    if any("low" in row for row in rows):
        band = alt.Chart().transform_filter("isValid(datum.low)").transform_flatten(["click", "low", "high"])
        low = alt.Y("low:Q", title=title, scale=scale)
        band = band.encode(x=x, y=low, y2=alt.Y2("high:Q"), fill=_colour(legend), detail=alt.Detail("configuration:N"))
        layers.insert(0, band.mark_area(opacity=0.13, stroke=None, strokeWidth=0))
    return _spec(layers, rows, description)


def metric_by_axis(
    rows: Rows, legend: Legend, description: str, *, metric: str, axis: str, levels: Numbers, reference: Rows = ()
) -> Spec:
    """Draw a metric (`y`, with `low` and `high`) over an axis' numbers (`x`, of `levels`): lines in bands.

    `reference` is drawn in grey: `x`, `y`, `source`.
    """
    x = alt.X("x:Q", axis=_numbers(axis, levels), scale=_scale(levels))
    scale = _around([*(row[end] for row in rows for end in ("low", "high")), *(row["y"] for row in reference)])
    y = alt.Y("y:Q", title=metric, scale=scale, axis=alt.Axis(tickCount=5))
    base = alt.Chart().encode(x=x, color=_colour(legend))
    low = alt.Y("low:Q", title=metric, scale=scale)
    band = alt.Chart().encode(x=x, fill=_colour(legend), detail=alt.Detail("rest:N"), y=low, y2=alt.Y2("high:Q"))
    layers = [
        band.mark_area(opacity=0.14 if len(legend) < 4 else 0.07, stroke=None, strokeWidth=0),
        base.mark_line().encode(y=y, detail=alt.Detail("rest:N"), strokeDash=_dash(rows)),
        base.mark_point(**_POINT).encode(y=y, fill=_hollow(legend), tooltip=_measured(metric)),
    ]
    if reference:
        point = alt.OverlayMarkDef(color="var(--soft)", size=20)
        line = _apart(reference).mark_line(color="var(--soft)", strokeWidth=1, strokeDash=[1, 3], point=point)
        layers.append(line.encode(x=alt.X("x:Q"), y=alt.Y("y:Q"), tooltip=_SOURCE))
    return _spec(layers, rows, description)


def steps(
    rows: Rows, legend: Legend, description: str, *, metric: str, alike: Rows, rug: Numbers, reference: Rows = ()
) -> Spec:
    """Draw functions of θ that are constant piece by piece, in bands; lists, of which each value holds up to its `x`.

    `low` to `high` is the band, `seeds_low` to `seeds_high` one inside it; `alike` are intervals (`x` to `x2`, at `y`),
    `rug` places on the axis, and `reference` is drawn in grey: `x`, `y`, `source`.
    """
    x = alt.X("x:Q", title="θ", scale=alt.Scale(zero=False, nice=False), axis=alt.Axis(grid=False, tickCount=6))
    ends = [value for row in rows for end in ("low", "high") for value in row[end]]
    scale = _around([*ends, *(row["y"] for row in reference)])
    flat = alt.Chart().transform_flatten(["x", "y", "low", "high", "seeds_low", "seeds_high"])
    y = alt.Y("y:Q", title=metric, scale=scale, axis=alt.Axis(tickCount=5))
    band = flat.mark_area(interpolate="step-before", opacity=0.12, stroke=None, strokeWidth=0)
    band = band.encode(x=x, fill=_colour(legend), detail=alt.Detail("configuration:N"))
    tooltip = [_WHO, alt.Tooltip("x:Q", title="up to θ", format=".4~g"), alt.Tooltip("y:Q", title=metric, format=".3f")]
    line = flat.encode(x=x, y=y, color=_colour(legend), detail=alt.Detail("configuration:N"))
    layers = [
        band.encode(y=alt.Y("low:Q", scale=scale), y2=alt.Y2("high:Q")),
        band.encode(y=alt.Y("seeds_low:Q", scale=scale), y2=alt.Y2("seeds_high:Q")),
        line.mark_line(interpolate="step-before", strokeWidth=1.4).encode(strokeDash=_dash(rows)),
        line.mark_point(size=40, opacity=0).encode(tooltip=tooltip),
        _apart([{"x": place} for place in rug])
        .mark_tick(thickness=0.75, size=6, color="var(--soft)")
        .encode(x=alt.X("x:Q"), y=alt.value(HEIGHT_PX - 3)),
    ]
    if alike:
        spans = _apart(alike).mark_rule(strokeWidth=5, opacity=0.4, strokeCap="butt")
        layers.append(spans.encode(x=alt.X("x:Q"), x2=alt.X2("x2:Q"), y=alt.Y("y:Q"), color=_colour(legend)))
    if reference:
        points = _apart(reference).mark_point(color="var(--soft)", filled=True, size=30, opacity=1)
        layers.append(points.encode(x=alt.X("x:Q"), y=alt.Y("y:Q"), tooltip=_SOURCE))
    return _spec(layers, rows, description)


def metric_by_name(rows: Rows, legend: Legend, description: str, *, metric: str, axis: str) -> Spec:
    """Draw a metric (`y`, `low` to `high`) for each of an axis' names (`x`, in order): points in bars, side by side."""
    names = alt.Y("x:N", sort=None, axis=alt.Axis(title=axis, grid=False, ticks=False, labelLimit=130))
    scale = _around([row[end] for row in rows for end in ("low", "high")], 8)
    base = alt.Chart().encode(y=names, color=_colour(legend))
    if legend:
        base = base.encode(yOffset=alt.YOffset("line:N", sort=list(legend)))
    bars = base.mark_rule(strokeWidth=1.5, opacity=0.55)
    points = base.mark_point(**_POINT)
    layers = [
        bars.encode(x=alt.X("low:Q", title=metric, scale=scale, axis=alt.Axis(tickCount=4)), x2=alt.X2("high:Q")),
        points.encode(x=alt.X("y:Q", title=metric, scale=scale), fill=_hollow(legend), tooltip=_measured(metric)),
    ]
    height = 40 + len({row["x"] for row in rows}) * max(24, 9 * len(legend))
    return _spec(layers, rows, description, height=height)


def heat(
    rows: Rows, description: str, *, metric: str, x: str, y: str, across: Sequence[str], down: Sequence[str]
) -> Spec:
    """Draw a metric, written `text`, over two axes (`x`, `y`: texts); `fill` and `ink` are colours.

    `across` and `down` are the axes' values in their order.
    """
    base = alt.Chart().encode(
        x=alt.X("x:N", sort=list(across), axis=alt.Axis(title=x, labelAngle=0, grid=False, labelOverlap=True)),
        y=alt.Y("y:N", sort=list(down), axis=alt.Axis(title=y, grid=False, labelOverlap=True)),
        tooltip=[_WHO, alt.Tooltip("text:N", title=metric), alt.Tooltip("n:N", title="n")],
    )
    layers = [base.mark_rect().encode(color=alt.Color("fill:N", scale=None))]
    if len({row["x"] for row in rows}) <= 8:
        layers.append(base.mark_text(fontSize=11).encode(text=alt.Text("text:N"), color=alt.Color("ink:N", scale=None)))
    return _spec(layers, rows, description)


def tradeoff(rows: Rows, front: Rows, legend: Legend, description: str, *, cost: str, quality: str) -> Spec:
    """Draw quality (`y`) against cost (`x`), one point per configuration; `front` holds the best, by cost."""
    x = alt.X("x:Q", axis=alt.Axis(title=cost, grid=False, tickCount=5), scale=alt.Scale(zero=False, padding=18))
    y = alt.Y("y:Q", title=quality, scale=_around([row["y"] for row in rows], 12), axis=alt.Axis(tickCount=5))
    points = alt.Chart().mark_point(**_POINT).encode(x=x, y=y, color=_colour(legend), fill=_hollow(legend))
    points = points.encode(tooltip=[alt.Tooltip("x:Q", title=cost, format=".4~g"), *_measured(quality)])
    line = _apart(front).mark_line(interpolate="step-after", color="var(--soft)", strokeWidth=1, strokeDash=[3, 3])
    return _spec([line.encode(x=x, y=y), points], rows, description)


def differences(rows: Rows, description: str, *, metric: str, domain: Numbers) -> Spec:
    """Draw mean differences (`mean`) with their intervals (`low`, `high`), a line each; `sure` ones are filled.

    `domain` holds 0 and the intervals of all charts that are read together.
    """
    y = alt.Y("configuration:N", sort=None, title=None, axis=alt.Axis(labelLimit=260, grid=False, ticks=False))
    scale = alt.Scale(domain=list(domain), nice=True)
    base = alt.Chart().encode(y=y)
    known = {"test": "datum.sure", "value": "var(--series-1)"}
    sure, fill = alt.ColorValue("var(--soft)", condition=known), alt.FillValue("var(--ground)", condition=known)
    tooltip = [
        _WHO,
        alt.Tooltip("mean:Q", title=f"Δ {metric}", format="+.2f"),
        alt.Tooltip("low:Q", title="from", format="+.2f"),
        alt.Tooltip("high:Q", title="to", format="+.2f"),
        alt.Tooltip("p:Q", title="adjusted p", format=".4f"),
    ]
    zero = _apart([{"x": 0}]).mark_rule(color="var(--soft)", strokeDash=[2, 3])
    low = alt.X("low:Q", title=f"Δ {metric}: fewer ← 0 → more", scale=scale, axis=alt.Axis(tickCount=5))
    layers = [
        zero.encode(x=alt.X("x:Q", scale=scale)),
        base.mark_rule(strokeWidth=1.75).encode(x=low, x2=alt.X2("high:Q"), color=sure),
        base.mark_point(**_POINT).encode(x=alt.X("mean:Q", scale=scale), color=sure, fill=fill, tooltip=tooltip),
    ]
    return _spec(layers, rows, description, height=40 + 22 * len(rows))


def training(rows: Rows, legend: Legend, description: str) -> Spec:
    """Draw a training metric (`value`) over `step`, both lists."""
    chart = alt.Chart().transform_flatten(["step", "value"]).mark_line(strokeWidth=1.25, opacity=0.85)
    encoded = chart.encode(
        x=alt.X("step:Q", title="step", axis=alt.Axis(grid=False, tickCount=5, format="~s")),
        y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5)),
        color=_colour(legend),
        detail=alt.Detail("configuration:N"),
        strokeDash=_dash(rows),
        tooltip=[alt.Tooltip("configuration:N", title="training")],
    )
    return _spec([encoded], rows, description)


def _apart(rows: Rows) -> alt.Chart:
    """A chart with rows of its own."""
    return alt.Chart(alt.InlineData(values=[dict(row) for row in rows]))


def _numbers(title: str, levels: Numbers) -> alt.Axis:
    """Ticks at the axis' own values; a search has too many for that."""
    if len(levels) > 12 or any(float(f"{level:.4g}") != level for level in levels):
        # With digits: a format without them gets as few as tell the ticks apart, and 50 is 5e+1.
        return alt.Axis(title=title, grid=False, tickCount=5, format=".6~g")
    # A format alone is rounded to the distance of the ticks: 1.075 would read 1.08.
    exact = "format(datum.value, '.6~g')"
    return alt.Axis(title=title, values=list(levels), grid=False, labelExpr=exact, labelOverlap=True)


def _around(values: Numbers, padding: int = 0) -> alt.Scale:
    """A scale that holds the values; where all are alike, one more on each side, for ticks that say where they are."""
    low, high = min(values), max(values)
    if low == high:
        return alt.Scale(domain=[low - 1, high + 1])
    return alt.Scale(zero=False, padding=padding) if padding else alt.Scale(zero=False)


def _measured(metric: str) -> list[alt.Tooltip]:
    """The lines of a tooltip: which trials, their mean, and of how many it is."""
    return [_WHO, alt.Tooltip("y:Q", title=metric, format=".3f"), alt.Tooltip("n:N", title="n")]


def _scale(levels: Numbers) -> alt.Scale:
    wide = min(levels) > 0 and max(levels) / min(levels) > 50
    return alt.Scale(zero=False, padding=14, type="log" if wide else "linear")


def _round(value: Any) -> Any:
    """Five digits are more than a screen shows, and a quarter of the bytes."""
    if isinstance(value, list):
        return [_round(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _colour(legend: Legend, **more: Any) -> Any:
    if not legend:
        return alt.ColorValue("var(--series-1)", **more)
    scale = alt.Scale(domain=list(legend), range=list(legend.values()))
    return alt.Color("line:N", scale=scale, legend=None, **more)


def _hollow(legend: Legend) -> Any:
    """The fill of points: the ground's where a seed is missing."""
    return _colour(legend, condition={"test": "datum.lacking", "value": "var(--ground)"})


def _dash(rows: Rows) -> Any:
    if not any(row["random"] for row in rows):
        return alt.StrokeDashValue([1, 0])
    dashes = alt.Scale(domain=[False, True], range=[[1, 0], [5, 4]])
    return alt.StrokeDash("random:N", scale=dashes, legend=None)


def _spec(layers: Sequence[alt.Chart], rows: Rows, description: str, height: int = HEIGHT_PX) -> Spec:
    """Layers over the same rows, which Altair need not look at."""
    chart = alt.LayerChart(layer=layers, description=description, width="container", height=height)
    spec: Spec = chart.to_dict(validate=False)
    spec["datasets"].pop("empty")
    spec.pop("config", None)  # one for all charts of the page: theme.CHART_CONFIG
    for layer in spec["layer"]:
        if layer["data"] == {"name": "empty"}:  # what Altair 6 writes of a chart without data
            del layer["data"]
    spec["data"] = {"values": [{key: _round(value) for key, value in row.items()} for row in rows]}
    return spec
