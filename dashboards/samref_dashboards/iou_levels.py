"""NoC as a function of the IoU that counts as a success: what `NoC@k` is for every k, from clicks that were made."""

from typing import Any

from samref.repetitions import summarise
from samref_dashboards import charts
from samref_dashboards.design import DATA, Design
from samref_dashboards.figure_kit import Figure, Panel, evenly, figure, legend, lined_axes, points
from samref_dashboards.load import Database

LEVELS = (*(round(0.5 + 0.025 * step, 3) for step in range(20)), 0.99)
MAX_LINES = 20
Values = dict[tuple[str, float], float]
"""Trial and level → NoC."""


def read(sql: Database, design: Design) -> Values:
    """Compute NoC of every done trial at each level that its early stop allows."""
    done = [trial for each in design.configurations for trial in each.done]
    most = {trial["trial"]: trial["evaluate.max_clicks"] for trial in done}
    until = {trial["trial"]: trial.get("evaluate.stop_at") or 1.0 for trial in done}
    rows = sql.execute(
        """
        WITH levels AS (SELECT unnest($levels) AS level),
             firsts AS (
                SELECT trial, sample, level, min(click) FILTER (iou >= level) AS first
                FROM clicks, levels GROUP BY trial, sample, level)
        SELECT trial, level, count(*), count(first), coalesce(sum(first), 0) FROM firsts GROUP BY trial, level""",
        {"levels": list(LEVELS)},
    ).fetchall()
    return {
        (trial, level): (total + (objects - reached) * most[trial]) / objects
        for trial, level, objects, reached, total in rows
        if trial in most and level <= until[trial]
    }


def noc_by_level(design: Design, values: Values) -> Figure | None:
    """Show NoC against the IoU that is asked for: a chart per dataset, a line per configuration."""
    lined = lined_axes(design, leave_out=[DATA])
    panels = []
    for data in design.datasets:
        rows: list[dict[str, Any]] = []
        for each in evenly([one for one in design.configurations if one.data == data and one.done], MAX_LINES):
            for level in LEVELS:
                found = summarise(values.get((trial["trial"], level)) for trial in each.done)
                rows += points(design, each, lined, found, 100 * level, design.describe(each.values))
        if rows:
            text = f"NoC against the IoU that is asked for, {data}"
            levels = [100 * level for level in LEVELS]
            spec = charts.metric_by_axis(rows, legend(design, lined), text, metric="NoC", axis="IoU (%)", levels=levels)
            panels.append(Panel(data, spec, data))
    note = "NoC@k for every k, from the same clicks: also the clicks that a loop makes which stops at IoU k."
    return figure(design, "noc-by-level", "Number of clicks against the IoU asked for", note, lined, panels)
