"""The table of RClicks (Antonov et al., NeurIPS 2024): what it does to a model where clicks are put.

Here a group of clicks is a slice of `evaluate.clicker: distance` (`evaluate.click_slice`), where RClicks has one of its
clickability model. Definitions are RClicks': per object over the slices, then the mean over objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import duckdb
import numpy as np
from numpy.typing import NDArray

from samref_dashboards import charts, metrics
from samref_dashboards.design import DATA, Configuration, Design
from samref_dashboards.figure_kit import Figure, Panel, figure, legend, lined_axes, who
from samref_dashboards.load import Trial
from samref_dashboards.tables import Table, amounts, plain, texts

CLICKER, SLICE, NOISE = "evaluate.clicker", "evaluate.click_slice", "evaluate.click_noise_px"
NOISE_LABEL = "click noise (px)"
CLICK_AXES = (CLICKER, SLICE, NOISE)
STRESS = (
    "Clickers jitter, uniform and distance are stress tests of a model, and no model of people, with whose clicks they "
    "were measured to agree little (RClicks)."
)
Numbers = NDArray[np.float64]


class Robustness(NamedTuple):
    """How one model fares with clicks of several slices, beside those of `ritm`; K slices from the shallowest."""

    mean: float
    """NoC90 over objects and slices."""
    std: float
    """Deviation over the slices of one object (population), mean over objects."""
    base_change: float | None
    """ΔSB: relative change of NoC90 from `ritm` to the slices, mean over objects; None without `ritm`."""
    group_change: float
    """ΔGR: relative change of NoC90 from the deepest slice to the shallowest, mean over objects."""
    noise_to_signal: float
    """NSR: deviation over mean of an object's IoU-AuC over slices, mean over objects."""
    auc: float
    """IoU-AuC: the mean IoU over the clicks by the trapezium rule, over objects and slices."""


def measure(noc_KN: Numbers, auc_KN: Numbers, base_N: Numbers | None) -> Robustness:
    """Compute the measures from NoC90 and IoU-AuC of K slices and N objects, and NoC90 with the clicks of `ritm`."""
    mean_N = noc_KN.mean(axis=0)
    return Robustness(
        mean=float(mean_N.mean()),
        std=float(noc_KN.std(axis=0).mean()),
        base_change=None if base_N is None else float(((mean_N - base_N) / base_N).mean()),
        group_change=float(((noc_KN[0] - noc_KN[-1]) / noc_KN[-1]).mean()),
        noise_to_signal=float((auc_KN.std(axis=0) / np.maximum(auc_KN.mean(axis=0), 1e-9)).mean()),
        auc=float(auc_KN.mean()),
    )


def table(sql: duckdb.DuckDBPyConnection, design: Design) -> Table | None:
    """Make the table of all models that were evaluated with two slices or more; None where there is none."""
    rows = []
    for block in design.split(CLICK_AXES).values():
        sliced = sorted((each for each in block if each.done and _slice(each)), key=lambda each: _slice(each) or "")
        base = next((each for each in block if each.done and each.done[0].get(CLICKER) == "ritm"), None)
        if len(sliced) > 1:
            rows.append((sliced, _measured(sql, sliced, base)))
    left_out = (*CLICK_AXES, DATA)
    columns = [
        texts("model", "model", [design.describe(s[0].values, leave_out=left_out) or "all" for s, _ in rows]),
        texts("dataset", "dataset", [sliced[0].data for sliced, _ in rows], data=True),
        texts("slices", "slices", [f"{len(s)}: {_slice(s[0])} to {_slice(s[-1])}" for s, _ in rows]),
        amounts("NoC90", "noc_at_90", [found.mean for _, found in rows], ".2f"),
        amounts("± std", "noc_at_90_std", [found.std for _, found in rows], ".2f"),
        amounts("ΔSB %", "delta_sb", [found.base_change for _, found in rows], "+.2f", scale=100),
        amounts("ΔGR %", "delta_gr", [found.group_change for _, found in rows], "+.2f", scale=100),
        amounts("NSR %", "nsr", [found.noise_to_signal for _, found in rows], ".2f", scale=100),
        amounts("IoU-AuC %", "iou_auc", [found.auc for _, found in rows], ".2f", scale=100),
    ]
    note = (
        "± std: over the slices of one object, mean over objects. ΔSB: from ritm's clicks to the slices'. ΔGR: from "
        "the deepest slice to the shallowest. NSR: deviation over mean of an object's IoU-AuC. Seeds of the clicks are "
        f"averaged first. {STRESS}"
    )
    return plain("robustness", "Robustness to where clicks are put", "NoC90 over slices of clicks", columns, note=note)


def noise(design: Design) -> Figure | None:
    """Show NoC90 and NoC95 against the noise of `clicker: jitter`, where 0 is `ritm`: a line per model."""
    lined = lined_axes(design, leave_out=(*CLICK_AXES, DATA))
    panels = []
    for data, metric in product(design.datasets, metrics.COMPARED):
        rows, levels = [], set()
        for block in design.split(CLICK_AXES).values():
            own = [each for each in block if each.done and each.data == data]
            moved = [each for each in own if each.done[0].get(CLICKER) == "jitter"]
            for each in (*(one for one in own if one.done[0].get(CLICKER) == "ritm"), *moved) if moved else ():
                summary, x = each.summary(metric.key), float(each.done[0].get(NOISE) or 0)
                if summary.mean is not None:
                    ends = {"low": summary.mean - (summary.std or 0), "high": summary.mean + (summary.std or 0)}
                    rest = design.describe(each.values, leave_out=CLICK_AXES)
                    rows.append(
                        {
                            "x": x,
                            "y": summary.mean,
                            **ends,
                            "n": summary.count,
                            "rest": rest,
                            **who(design, each, lined),
                        }
                    )
                    levels.add(x)
        if len(levels) > 1:
            about = f"{metric.label} against click noise on {data}"
            spec = charts.metric_by_axis(
                rows, legend(design, lined), about, levels=sorted(levels), metric=metric.label, axis=NOISE_LABEL
            )
            panels.append(Panel(f"{metric.label}, {data}", spec, data))
    title = "Number of clicks against noise of the clicks"
    return figure(design, "click-noise", title, f"0 px is ritm. {STRESS}", lined, panels)


def _slice(configuration: Configuration) -> str | None:
    found = configuration.done[0].get(SLICE) if configuration.done else None
    return None if found is None else str(found)


def _measured(
    sql: duckdb.DuckDBPyConnection, sliced: Sequence[Configuration], base: Configuration | None
) -> Robustness:
    noc, auc = zip(*(_per_object(sql, each.done) for each in sliced), strict=True)
    return measure(np.stack(noc), np.stack(auc), _per_object(sql, base.done)[0] if base else None)


def _per_object(sql: duckdb.DuckDBPyConnection, trials: Sequence[Trial]) -> tuple[Numbers, Numbers]:
    """NoC90 and IoU-AuC of each object, in order of their names, means over these trials."""
    most = int(trials[0]["evaluate.max_clicks"])
    rows = sql.execute(
        """
        WITH objects AS (
            SELECT trial, sample, coalesce(min(click) FILTER (iou >= 0.9), $most) AS noc, arg_max(iou, click) AS final,
                   sum(iou) + ($most - max(click)) * arg_max(iou, click) AS total, arg_min(iou, click) AS first
            FROM clicks WHERE list_contains($trials, trial) GROUP BY trial, sample)
        SELECT avg(noc)::DOUBLE AS noc, avg((total - (first + final) / 2) / greatest($most - 1, 1))::DOUBLE AS auc
        FROM objects GROUP BY sample ORDER BY sample""",
        {"most": most, "trials": [trial["trial"] for trial in trials]},
    ).fetchnumpy()
    return np.asarray(rows["noc"], np.float64), np.asarray(rows["auc"], np.float64)
