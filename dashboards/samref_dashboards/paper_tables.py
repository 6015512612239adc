"""The paper's Tables 1, 2 and 3, in their own layout, with the published numbers beside."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from samref_dashboards import metrics, paper
from samref_dashboards.comparisons import Comparisons
from samref_dashboards.design import DATA, THETA, UNSTEADY, Configuration, Design, show
from samref_dashboards.load import Results
from samref_dashboards.metrics import Metric
from samref_dashboards.tables import (
    BUSY,
    BUSY_NOTE,
    Block,
    Cell,
    Column,
    Row,
    Table,
    column,
    number,
    plain,
    reading,
    summaries,
)

Profiles = Mapping[str, Mapping[str, Any]]
"""Stage of a profile -> its row of profile.parquet."""

METHOD_AXES = ("model.backbone", "model.refiner", "model.freeze_backbone")
_SIZES = {"b": "B", "l": "L", "h": "H", "t": "T", "s": "S", "b+": "B+"}
_WHO = (Column(label="method", key="method"), Column(label="backbone", key="backbone"))
_N = Column(label="n", key="n", title="seeds measured, of those planned", numeric=True)


def theta(design: Design, comparisons: Comparisons) -> Table | None:
    """Make Table 1, one block per combination of the other axes; None when θ is not swept."""
    # Without the local refiner nothing is pasted, and θ does not act.
    acting = [each for each in design.split([THETA]).values() if each[0].trials[0]["model.refiner"] == "gfr+lfr"]
    if THETA not in design.axes or not acting:
        return None
    ours = metrics.described(paper.THETA_METRICS, design.fields)
    known = any(level in paper.THETA for level in design.levels(THETA))
    beside = [known and paper.comparable(each[0].trials[0], "davis") for each in acting]
    theirs = [column(metric, paper=paper.THETA_SOURCE) for metric in ours if any(beside)]
    levels = [[each.values[THETA] for each in inside] for inside in acting]
    before = [[[Cell(design.show(THETA, value), value)] for value in inside] for inside in levels]
    after = [
        [_numbers(ours, paper.THETA[v]) if is_so and v in paper.THETA else [Cell("")] * len(theirs) for v in inside]
        for is_so, inside in zip(beside, levels, strict=True)
    ]
    blocks = _blocks(design, comparisons, acting, [THETA], before=before, ours=ours, after=after)
    note = reading(design, comparisons, (row for block in blocks for row in block.rows))
    if known and not any(beside):
        rows = {(f"{theta:.2f}",): row for theta, row in paper.THETA.items()}
        blocks += [_published(paper.THETA_SOURCE, rows, ours, Cell(""), folded=True)]
    return Table(
        name="table1-theta",
        title="Threshold θ",
        caption="Threshold θ of the dynamic selector: mean clicks pasted on the global result and on the previous "
        "mask, and number of clicks to IoU 90 % and 95 % (the paper’s Table 1).",
        columns=(Column(label="θ", key=THETA, title=THETA, numeric=True), *map(column, ours), _N, *theirs),
        blocks=tuple(blocks),
        note=note,
    )


def methods(design: Design, comparisons: Comparisons) -> Table | None:
    """Make Table 2, one block per dataset and combination of the other axes; None when one method is evaluated."""
    several = any(axis in METHOD_AXES and len(design.levels(axis)) > 1 for axis in design.axes)
    if not several or not any(each.done for each in design.configurations):
        return None
    ours = metrics.described(paper.METHODS_METRICS, design.fields)
    grouped = [sorted(each, key=lambda one: _rank(one.trials[0])) for each in design.split(METHOD_AXES).values()]
    before = []
    for ordered in grouped:
        names = [method(each.trials[0]) for each in ordered]
        # Two models that the paper's words do not tell apart have their own names beside.
        full = [
            f"{name[1]} ({each.trials[0]['model.backbone']})" if names.count(name) > 1 else name[1]
            for each, name in zip(ordered, names, strict=True)
        ]
        before.append([(Cell(name[0]), Cell(backbone)) for name, backbone in zip(names, full, strict=True)])
    blocks = _blocks(design, comparisons, grouped, METHOD_AXES, before=before, ours=ours)
    clicks = metrics.latency_clicks(trial for each in design.configurations for trial in each.done)
    note = reading(design, comparisons, (row for block in blocks for row in block.rows))
    if any("*" in row.cells[1].text for block in blocks for row in block.rows):
        note = f"ViT-H*, with a star after the backbone: frozen in training. {note}"
    if clicks != str(metrics.PAPER_CLICKS):
        note = f"The paper’s latency is of {metrics.PAPER_CLICKS} clicks. {note}"
    folded = not any(paper.comparable(each.trials[0], "hqseg44k") for each in design.configurations)
    return Table(
        name="table2-methods",
        title="Methods",
        caption=f"Latency (one encode and {clicks} single clicks), mean IoU after 5 clicks, and clicks to IoU 90 % "
        "and 95 % (the paper’s Table 2).",
        columns=(*_WHO, *map(column, ours), _N),
        blocks=(*blocks, _published(paper.METHODS_SOURCE, paper.METHODS, ours, Cell(""), folded=folded)),
        note=note,
    )


def cost(results: Results, profiles: Profiles) -> Table | None:
    """Make Table 3; None when nothing was profiled."""
    ours = metrics.described(paper.COST_METRICS, results.fields)
    if all(row.get(metric.key) is None for row in profiles.values() for metric in ours):
        return None
    by_device: dict[str, list[Row]] = {}
    ranked = _ranked(profiles)
    for row, who in zip(ranked, _who(results, ranked), strict=True):
        cells = (*map(Cell, who), *(_cost(metric, row) for metric in ours))
        by_device.setdefault(_device(row), []).append(Row(cells=cells))
    return Table(
        name="table3-cost",
        title="Cost",
        caption="Parameters, speed and memory for one encode and one click (the paper’s Table 3, which counts "
        "parameters on leaf modules).",
        columns=(*_WHO, *map(column, ours)),
        note=BUSY_NOTE if any(cell.mark for rows in by_device.values() for row in rows for cell in row.cells) else "",
        blocks=(
            *(Block(caption=f"Measured here, {device}", rows=tuple(rows)) for device, rows in by_device.items()),
            _published(paper.COST_SOURCE, paper.COST, ours, folded=True),
        ),
    )


def cost_detail(results: Results, profiles: Profiles) -> Table | None:
    """List whatever else profiles hold, a row each and a column per model; None when they hold nothing else."""
    about = {"stage", "model", "refiner", "device", *(metric.key for metric in paper.COST_METRICS)}
    known = {metric.key: metric for metric in metrics.COST_DETAIL}
    there = {key for row in profiles.values() for key, value in row.items() if _float(value) is not None} - about
    shown = [known.get(key) or metrics.named(key) for key in (*known, *sorted(there - known.keys())) if key in there]
    ranked = _ranked(profiles)
    names = [" ".join(dict.fromkeys(who)) for who in _who(results, ranked)]
    columns = [(Column(label="measure", key="measure"), [Cell(metric.label, metric.key) for metric in shown])]
    for name, row in zip(names, ranked, strict=True):
        label = f"{name}, {_device(row)}" if names.count(name) > 1 else name
        cells = [_cost(metric, row) for metric in shown]
        columns.append((Column(label=label, key=label, numeric=True), cells))
    caption = f"Where a model’s time and parameters go, on {', '.join(dict.fromkeys(map(_device, ranked)))}."
    if metrics.LATENCY in shown:
        caption += f" Latency is of {metrics.latency_clicks(results.trials)} single clicks."
    return plain("cost-detail", "Cost in detail", caption, columns, sortable=False)


def method(trial: Mapping[str, Any]) -> tuple[str, str]:
    """Name method and backbone as the paper writes them: `sam_vit_h` with the refiner is SAM-REF, ViT-H*."""
    name, refiner = str(trial["model.backbone"]), trial["model.refiner"]
    family, _, rest = name.partition("_")
    found = re.fullmatch(r"(vit|hiera)_(b\+|[blhts])(_sax\d)?", rest)
    titles = {"sam": "SAM", "sam2": "SAM2", "sam2.1": "SAM2.1", "segnext": "SegNext"}
    title = titles.get(family, name) if found else name
    backbone = f"{'ViT' if found[1] == 'vit' else 'Hiera'}-{_SIZES[found[2]]}" if found else name
    suffix = {"gfr+lfr": "-REF", "gfr": "-REF (GFR only)"}.get(str(refiner), "")
    trained = trial.get("stage_train") is not None
    frozen = trial.get("model.freeze_backbone") is True and "encoder" not in str(trial.get("train.modules"))
    star = "*" if trained and frozen else ""
    return title + suffix, backbone + star


def _rank(trial: Mapping[str, Any]) -> tuple[int, int, str, bool]:
    """The paper's order: SegNext, SAM, SAM2; small to large; without the refiner first."""
    name = str(trial["model.backbone"])
    family = next((i for i, known in enumerate(("segnext_", "sam_", "sam2_", "sam2.1_")) if name.startswith(known)), 9)
    size = next((i for i, end in enumerate(("_t", "_s", "_b", "_b+", "_l", "_h")) if name.endswith(end)), 9)
    return family, size, name, trial["model.refiner"] != "none"


def _ranked(profiles: Profiles) -> list[Mapping[str, Any]]:
    return sorted(
        profiles.values(), key=lambda row: _rank({"model.backbone": row["model"], "model.refiner": row["refiner"]})
    )


def _device(profile: Mapping[str, Any]) -> str:
    """Where a profile was measured, and in what arithmetic where that is not the paper's."""
    precision = profile.get("precision")
    return str(profile["device"]) if precision in (None, "fp32") else f"{profile['device']}, {precision}"


def _who(results: Results, profiles: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Every profile's method and backbone; where two read alike, with the settings that tell the models apart.

    There is no star, because what was trained changes no cost.
    """
    names = [method({"model.backbone": row["model"], "model.refiner": row["refiner"]}) for row in profiles]
    models = [next((t for t in results.trials if t["stage_profile"] == row["stage"]), {}) for row in profiles]
    found = []
    for name, model in zip(names, models, strict=True):
        alike = [other for same, other in zip(names, models, strict=True) if same == name]
        differ = [key for key in model if key.startswith("model.") and len({other.get(key) for other in alike}) > 1]
        beside = ", ".join(f"{key.removeprefix('model.').replace('_', ' ')} {show(model[key])}" for key in differ)
        found.append((name[0], f"{name[1]} ({beside})" if beside else name[1]))
    return found


def _numbers(ours: Sequence[Metric], values: Sequence[float | None]) -> list[Cell]:
    return [number(metric, value) for metric, value in zip(ours, values, strict=True)]


def _published(
    source: str, rows: Mapping[Any, Sequence[float]], ours: Sequence[Metric], *after: Cell, folded: bool
) -> Block:
    made = (Row(cells=(*map(Cell, who), *_numbers(ours, row), *after), paper=True) for who, row in rows.items())
    return Block(caption=source, rows=tuple(made), folded=folded)


def _blocks(
    design: Design,
    comparisons: Comparisons,
    grouped: Sequence[Sequence[Configuration]],
    leave_out: Sequence[str],
    *,
    before: Sequence[Sequence[Sequence[Cell]]],
    ours: Sequence[Metric],
    after: Sequence[Sequence[Sequence[Cell]]] = (),
) -> list[Block]:
    """Rows of what was measured, with the cells `before` and `after`; the captions say what all rows share."""
    blocks = []
    every = zip(grouped, before, summaries(grouped, ours, comparisons), after or [()] * len(grouped), strict=True)
    for configurations, first, measured, last in every:
        rows = tuple(
            Row(
                cells=(*names, *cells, Cell(each.summary("noc_at_90").count), *more),
                random_weights=each.random_weights,
                status="done" if each.done else str(each.trials[0]["status"]),
            )
            for each, names, cells, more in zip(configurations, first, measured, last or [()] * len(first), strict=True)
        )
        names = {each.data for each in configurations}
        data = names.pop() if len(names) == 1 else ""
        caption = design.describe(configurations[0].values, leave_out=[*leave_out, DATA])
        shown = design.counted(data) if data else ""
        blocks.append(Block(caption=" · ".join(filter(None, [shown, caption])), rows=rows, data=data))
    return blocks


def _cost(metric: Metric, profile: Mapping[str, Any]) -> Cell:
    """The cell of what a profile measured, marked where its times are unsteady."""
    cell, spread, fps = number(metric, _float(profile.get(metric.key))), profile.get("fps_spread"), profile.get("fps")
    busy = metric.timed and cell.value is not None and spread and fps and spread / fps > UNSTEADY
    return replace(cell, text=cell.text + BUSY, mark=BUSY) if busy else cell


def _float(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
