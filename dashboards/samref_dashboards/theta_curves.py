"""The exact curves over θ of the trials that asked for them (`evaluate.curve`): a figure, and where each is lowest."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samref.theta_curves import Curve, runs, sentence
from samref_dashboards import charts, metrics
from samref_dashboards.curves import is_the_papers, published
from samref_dashboards.design import DATA, THETA, Configuration, Design
from samref_dashboards.figure_kit import Figure, Panel, evenly, figure, legend, lined_axes, who
from samref_dashboards.load import Database
from samref_dashboards.metrics import Metric
from samref_dashboards.tables import Table, amounts, plain, texts

MAX_PIECES = 300
"""Pieces of one line that are drawn; the files have all."""
RUG = 200
_COLUMNS = ("value", "low", "high", "excess_low")

Pieces = dict[str, NDArray[np.float64]]
"""`theta_from`, `theta_to`, `value`, `low`, `high` and `excess_low` of a curve's pieces, in order."""
Curves = Mapping[tuple[str, str], Pieces]
"""Trial and metric → its curve."""


def read(sql: Database) -> dict[tuple[str, str], Pieces]:
    """Read the curves of what is compared, NoC90 and NoC95."""
    shown = [metric.key for metric in metrics.COMPARED]
    rows = sql.execute(
        f"SELECT trial, metric, theta_from, theta_to, {', '.join(_COLUMNS)} FROM curves "
        "WHERE list_contains(?, metric) ORDER BY trial, metric, theta_from",
        [shown],
    ).fetchnumpy()
    found: dict[tuple[str, str], list[int]] = {}
    for index, key in enumerate(zip(rows["trial"], rows["metric"], strict=True)):
        found.setdefault(key, []).append(index)
    names = ("theta_from", "theta_to", *_COLUMNS)
    return {key: {name: np.asarray(rows[name][at], np.float64) for name in names} for key, at in found.items()}


def curves(design: Design, found: Curves) -> Figure | None:
    """Show NoC90 and NoC95 as functions of θ: a chart per dataset and metric, a line per configuration."""
    leave_out = (DATA, THETA, "evaluate.curve")
    lined = lined_axes(design, leave_out=leave_out)
    colours_of, panels, told = legend(design, lined), [], []
    for data in design.datasets:
        configurations = [each for each in design.configurations if each.data == data]
        for metric in metrics.COMPARED:
            rows, alike, cuts = [], [], []
            for each, own in _of(configurations, metric, found):
                joined = _joined(own)
                rows.append({**_drawn(joined), **who(design, each, lined)})
                cuts += joined["theta_to"][:-1].tolist()
                if len(own) == 1:
                    alike += [{**span, "line": rows[-1]["line"]} for span in _alike(own[0])]
                    named = ", ".join(filter(None, [data, design.describe(each.values, leave_out=leave_out)]))
                    told.append(f"{named}: {sentence(metric.label, _curve(own[0]), own[0]['excess_low'])}.")
            if rows:
                reference = published(metric) if is_the_papers(configurations) else ()
                about = f"{metric.label} as a function of θ on {data}"
                rug = evenly(sorted(set(cuts)), RUG)
                spec = charts.steps(
                    rows, colours_of, about, metric=metric.label, alike=alike, rug=rug, reference=reference
                )
                panels.append(Panel(f"{metric.label}, {data}", spec, data))
    note = (
        "Every θ of the interval, from one evaluation. Bands: 95 % bootstrap over objects"
        + (", and ± one standard deviation over seeds (inner). " if design.seeds else ". ")
        + "Thick: not distinguishable from the best θ. Ticks: where θ changes a click of some object. "
    )
    note += " ".join(told[:4])
    return figure(design, "theta-curve", "Number of clicks as a function of θ", note, lined, panels)


def best(design: Design, found: Curves) -> Table | None:
    """Say for each trial where its curve of NoC90 is lowest, and what of it is not distinguishable from that."""
    trials = [(each, trial) for each in design.configurations for trial in each.done]
    key = metrics.NOC_90.key
    rows = [(each, trial, found[trial["trial"], key]) for each, trial in trials if (trial["trial"], key) in found]
    lowest = [_widest(own, own["value"] == own["value"].min()) for _, _, own in rows]
    alike = [_widest(own, own["excess_low"] <= 0) for _, _, own in rows]
    values = [own["value"] for _, _, own in rows]
    seeds = [" · ".join(f"{seed} {trial.get(seed)}" for seed in design.seeds) for _, trial, _ in rows]
    columns = [
        texts("trials", "trials", [design.describe(each.values) or each.data for each, _, _ in rows]),
        *([texts("seeds", "seeds", seeds)] if design.seeds else []),
        amounts("lowest NoC90", "lowest", [float(each.min()) for each in values], ".2f"),
        amounts("for θ from", "theta_from", [start for start, _ in lowest], ".4g"),
        amounts("to", "theta_to", [end for _, end in lowest], ".4g"),
        amounts("highest NoC90", "highest", [float(each.max()) for each in values], ".2f"),
        amounts("like the lowest from", "alike_from", [start for start, _ in alike], ".4g"),
        amounts("to", "alike_to", [end for _, end in alike], ".4g"),
        amounts("pieces", "pieces", [len(each) for each in values], "d"),
    ]
    note = (
        "Like the lowest: not distinguishable from it by a paired bootstrap over objects (95 %); the widest interval. "
        "What an interval begins with, but the curve's own beginning, is not in it."
    )
    return plain("theta-curve-best", "Which θ is best", "Where NoC90 is lowest over θ.", columns, note=note)


def _of(
    configurations: Sequence[Configuration], metric: Metric, found: Curves
) -> Iterator[tuple[Configuration, list[Pieces]]]:
    """The configurations that have curves, each with those of its repetitions; once where θ alone is an axis."""
    seen = set()
    for each in configurations:
        own = [found[trial["trial"], metric.key] for trial in each.done if (trial["trial"], metric.key) in found]
        key = tuple(value for axis, value in each.values.items() if axis != THETA)
        if own and key not in seen:
            seen.add(key)
            yield each, own


def _joined(own: Sequence[Pieces]) -> Pieces:
    """The mean of the repetitions' curves, on the pieces of all of them; `spread`, their standard deviation."""
    ends = np.unique(np.concatenate([each["theta_to"] for each in own]))
    at = [np.searchsorted(each["theta_to"], ends).clip(max=len(each["theta_to"]) - 1) for each in own]
    joined = {
        name: np.mean([each[name][places] for each, places in zip(own, at, strict=True)], axis=0)
        for name in ("value", "low", "high")
    }
    values = [each["value"][places] for each, places in zip(own, at, strict=True)]
    spread = np.std(values, axis=0, ddof=1) if len(own) > 1 else np.zeros(len(ends))
    first = min(each["theta_from"][0] for each in own)
    return {**joined, "spread": spread, "theta_to": ends, "theta_from": np.concatenate([[first], ends[:-1]])}


def _drawn(joined: Pieces) -> dict[str, Any]:
    """The fields of a line: each point's value holds from the point before it up to this one."""
    shown = evenly(range(len(joined["theta_to"])), MAX_PIECES)
    value, low, high, spread = (joined[name][shown] for name in ("value", "low", "high", "spread"))
    lines = {"y": value, "low": low, "high": high, "seeds_low": value - spread, "seeds_high": value + spread}
    # One point more, where the first piece begins.
    made = {name: [float(line[0]), *line.tolist()] for name, line in lines.items()}
    return {"x": [float(joined["theta_from"][0]), *joined["theta_to"][shown].tolist()], **made}


def _alike(own: Pieces) -> list[dict[str, float]]:
    curve, lowest = _curve(own), float(own["value"].min())
    return [{"x": above, "x2": upto, "y": lowest} for above, upto in runs(curve, own["excess_low"] <= 0)]


def _widest(own: Pieces, holds: NDArray[np.bool_]) -> tuple[float, float]:
    return max(runs(_curve(own), holds), key=lambda run: run[1] - run[0])


def _curve(own: Pieces) -> Curve:
    return Curve(own["theta_from"], own["theta_to"], own["value"])
