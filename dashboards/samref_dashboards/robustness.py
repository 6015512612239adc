"""The table of RClicks (Antonov et al., NeurIPS 2024): what it does to a model where clicks are put.

Here a group of clicks is a slice of `evaluate.clicker: distance` (`evaluate.click_slice`), where RClicks has one of its
clickability model, or one first click of each object by people (`evaluate.first_clicks`). Definitions are RClicks': per
object over the groups, then the mean over objects.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from samref_dashboards import charts, metrics
from samref_dashboards.design import DATA, Configuration, Design
from samref_dashboards.figure_kit import Figure, Panel, figure, legend, lined_axes, points
from samref_dashboards.load import Database, Trial
from samref_dashboards.tables import Table, amounts, plain, texts

CLICKER, SLICE, NOISE = "evaluate.clicker", "evaluate.click_slice", "evaluate.click_noise_px"
NOISE_LABEL = "click noise (px)"
PEOPLE, PERSON = "evaluate.first_clicks", "evaluate.seed"
CLICK_AXES = (CLICKER, SLICE, NOISE, PEOPLE)
STRESS = (
    "Clickers jitter, uniform and distance are stress tests of a model, and no model of people, with whose clicks they "
    "were measured to agree little (RClicks)."
)
Numbers = NDArray[np.float64]


class Robustness(NamedTuple):
    """How one model fares with several groups of clicks, beside those of `ritm`; K slices from the shallowest."""

    mean: float
    """NoC90 over objects and groups."""
    std: float
    """Deviation over the groups of one object (population), mean over objects."""
    base_change: float | None
    """ΔSB: relative change of NoC90 from `ritm` to the groups, mean over objects; None without `ritm`."""
    group_change: float | None
    """ΔGR: relative change of NoC90 from the deepest slice to the shallowest, mean over objects; None of people."""
    noise_to_signal: float
    """NSR: deviation over mean of an object's IoU-AuC over groups, mean over objects."""
    auc: float
    """IoU-AuC: the mean IoU over the clicks by the trapezium rule, over objects and groups."""


def measure(noc_KN: Numbers, auc_KN: Numbers, base_N: Numbers | None) -> Robustness:
    """Compute the measures from NoC90 and IoU-AuC of K groups and N objects, and NoC90 with the clicks of `ritm`."""
    mean_N = noc_KN.mean(axis=0)
    return Robustness(
        mean=float(mean_N.mean()),
        std=float(noc_KN.std(axis=0).mean()),
        base_change=None if base_N is None else float(((mean_N - base_N) / base_N).mean()),
        group_change=float(((noc_KN[0] - noc_KN[-1]) / noc_KN[-1]).mean()),
        noise_to_signal=float((auc_KN.std(axis=0) / np.maximum(auc_KN.mean(axis=0), 1e-9)).mean()),
        auc=float(auc_KN.mean()),
    )


def table(sql: Database, design: Design) -> Table | None:
    """Make the table of all models with two groups of clicks or more; None where there is none."""
    rows = []
    for block in design.split(CLICK_AXES).values():
        done = [each for each in block if each.done]
        sliced = sorted((each for each in done if _slice(each)), key=lambda each: _slice(each) or "")
        base = next((each for each in done if _is_base(each.done[0])), None)
        if len(sliced) > 1:
            groups = f"{len(sliced)} slices, {_slice(sliced[0])} to {_slice(sliced[-1])}"
            rows.append((sliced[0], groups, _measured(sql, [each.done for each in sliced], base)))
        for each in done:
            if len(people := _people(each)) > 1:
                groups = f"{len(people)} first clicks of {each.done[0][PEOPLE]}"
                rows.append((each, groups, _measured(sql, people, base)._replace(group_change=None)))
    models = [design.describe(each.values, leave_out=(*CLICK_AXES, DATA)) or "all" for each, _, _ in rows]
    measured = [found for _, _, found in rows]
    columns = [
        texts("model", "model", models),
        texts("dataset", "dataset", [each.data for each, _, _ in rows], data=True),
        texts("clicks", "clicks", [groups for _, groups, _ in rows]),
        amounts("NoC90", "noc_at_90", [found.mean for found in measured], ".2f"),
        amounts("± std", "noc_at_90_std", [found.std for found in measured], ".2f"),
        amounts("ΔSB %", "delta_sb", [found.base_change for found in measured], "+.2f", scale=100),
        amounts("ΔGR %", "delta_gr", [found.group_change for found in measured], "+.2f", scale=100),
        amounts("NSR %", "nsr", [found.noise_to_signal for found in measured], ".2f", scale=100),
        amounts("IoU-AuC %", "iou_auc", [found.auc for found in measured], ".2f", scale=100),
    ]
    note = (
        "± std: over the slices, or people, of one object, mean over objects. ΔSB: from ritm's clicks to these. ΔGR: "
        "from the deepest slice to the shallowest. NSR: deviation over mean of an object's IoU-AuC. Seeds of the "
        f"clicks are averaged first. {STRESS}"
    )
    return plain("robustness", "Robustness to where clicks are put", "NoC90 over groups of clicks.", columns, note=note)


def noise(design: Design) -> Figure | None:
    """Show NoC90 and NoC95 against the noise of `clicker: jitter`, where 0 is `ritm`: a line per model."""
    lined = lined_axes(design, leave_out=(*CLICK_AXES, DATA))
    panels = []
    for data, metric in product(design.datasets, metrics.COMPARED):
        rows: list[dict[str, Any]] = []
        for block in design.split(CLICK_AXES).values():
            own = [each for each in block if each.done and each.data == data]
            moved = [each for each in own if each.done[0].get(CLICKER) == "jitter"]
            for each in (*(one for one in own if _is_base(one.done[0])), *moved) if moved else ():
                x, rest = float(each.done[0].get(NOISE) or 0), design.describe(each.values, leave_out=CLICK_AXES)
                rows += points(design, each, lined, each.summary(metric.key), x, rest)
        levels = sorted({row["x"] for row in rows})
        if len(levels) > 1:
            about = f"{metric.label} against click noise on {data}"
            spec = charts.metric_by_axis(
                rows, legend(design, lined), about, levels=levels, metric=metric.label, axis=NOISE_LABEL
            )
            panels.append(Panel(f"{metric.label}, {data}", spec, data))
    title = "Number of clicks against noise of the clicks"
    return figure(design, "click-noise", title, f"0 px is ritm. {STRESS}", lined, panels)


def _slice(configuration: Configuration) -> str | None:
    found = configuration.done[0].get(SLICE) if configuration.done else None
    return None if found is None else str(found)


def _is_base(trial: Trial) -> bool:
    return trial.get(CLICKER) == "ritm" and not trial.get(PEOPLE)


def _people(configuration: Configuration) -> list[list[Trial]]:
    """The trials of each first click of an object, by its number."""
    made: dict[int, list[Trial]] = {}
    for trial in configuration.done:
        if trial.get(PEOPLE):
            made.setdefault(trial[PERSON], []).append(trial)
    return [made[number] for number in sorted(made)]


def _measured(sql: Database, groups: Sequence[Sequence[Trial]], base: Configuration | None) -> Robustness:
    noc, auc = zip(*(_per_object(sql, trials) for trials in groups), strict=True)
    return measure(np.stack(noc), np.stack(auc), _per_object(sql, base.done)[0] if base else None)


def _per_object(sql: Database, trials: Sequence[Trial]) -> tuple[Numbers, Numbers]:
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
