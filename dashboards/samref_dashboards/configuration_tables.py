"""The first table, of all configurations with the datasets as columns, and what sweeps that are compared differ in."""

import math
from collections.abc import Sequence
from typing import Any

from samref_dashboards import metrics, paper
from samref_dashboards.comparisons import Comparisons
from samref_dashboards.design import DATA, PARTS, Configuration, Design, show
from samref_dashboards.load import Results
from samref_dashboards.tables import Block, Cell, Column, Row, Table, column, number, plain, reading, summaries, texts

FIELD = ("grabcut", "berkeley", "sbd", "davis")
"""The order of the datasets in this field's papers; others follow."""
ALONE = (metrics.NOC_85, metrics.NOC_90, metrics.NOC_95, metrics.NOF_90, metrics.MIOU_5)
"""The columns of one dataset."""
BESIDE = (metrics.NOC_90, metrics.NOC_95)
"""The columns of each of several datasets."""
MAX_ROWS = 100


def configurations(design: Design, comparisons: Comparisons) -> Table | None:
    """List every configuration once, with mean ± std on each dataset; None where nothing was measured."""
    if not any(each.done for each in design.configurations):
        return None
    datasets = sorted(design.datasets, key=lambda data: FIELD.index(data) if data in FIELD else len(FIELD))
    shown = metrics.described(ALONE if len(datasets) == 1 else BESIDE, design.fields)
    groups = [sorted(group, key=lambda each: datasets.index(each.data)) for group in design.split([DATA]).values()]
    rows = [{each.data: each for each in group} for group in groups]
    ranked = sorted(rows, key=_rank)[:MAX_ROWS]
    rows = [row for row in rows if row in ranked] if len(rows) > MAX_ROWS else rows
    blocks = [[row[data] for row in rows if data in row] for data in datasets]
    cells = [iter(made) for made in summaries(blocks, shown, comparisons)]
    made = []
    for row in rows:
        own = [next(each) if data in row else None for data, each in zip(datasets, cells, strict=True)]
        made.append(_row(design, row, own))
    head = [Column(label="configuration", key="configuration")]
    for data in datasets:
        head += [column(metric, data=design.counted(data)) for metric in shown]
    count = Column(label="n", key="n", title="seeds measured, of those planned", numeric=True)
    note = f"Fewer clicks are better. {reading(design, comparisons, made)}".strip()
    if len(groups) > len(rows):
        note += f" The {len(rows)} of lowest NoC90, of {len(groups)}."
    published = _published(design, datasets, shown)
    return Table(
        name="configurations",
        title="Results",
        caption="Number of clicks to an IoU, mean over objects, for each configuration and dataset.",
        columns=(*head, count),
        blocks=(Block(caption="", rows=tuple(made)), *published),
        note=note,
    )


def _rank(row: dict[str, Configuration]) -> float:
    means = [each.summary("noc_at_90").mean for each in row.values()]
    return math.fsum(mean if mean is not None else math.inf for mean in means) / len(means)


def _row(design: Design, row: dict[str, Configuration], cells: Sequence[Sequence[Cell] | None]) -> Row:
    first = next(iter(row.values()))
    width = max(len(made) for made in cells if made)
    counts = dict.fromkeys(each.summary("noc_at_90").count for each in row.values())
    name = design.describe(first.values, leave_out=[DATA]) or "the only configuration"
    numbers = [cell for made in cells for cell in (made or [Cell("")] * width)]
    return Row(
        cells=(Cell(name), *numbers, Cell(" / ".join(counts))),
        random_weights=first.random_weights,
        status="done" if any(each.done for each in row.values()) else str(first.trials[0]["status"]),
    )


def _published(design: Design, datasets: Sequence[str], shown: Sequence[metrics.Metric]) -> list[Block]:
    """SAM-REF's published NoC90, of the datasets on which ours is the same measurement."""
    known = {
        each.data
        for each in design.configurations
        if each.data in paper.NOC_90 and paper.comparable(each.trials[0], each.data)
    }
    cells = [
        number(metric, paper.NOC_90[data]) if data in known and metric.key == metrics.NOC_90.key else Cell("")
        for data in datasets
        for metric in shown
    ]
    row = Row(cells=(Cell(paper.NOC_90_SOURCE), *cells, Cell("")), paper=True)
    return [Block(caption="", rows=(row,))] if known else []


def sweeps(results: Results) -> Table | None:
    """List the settings in which sweeps differ, a column each; None for one sweep, or where none differs."""
    if len(results.sweeps) < 2:
        return None
    of = {
        each.name: [trial for trial in results.trials if each.name in trial["sweep"].split(" + ")]
        for each in results.sweeps
    }
    names = dict.fromkeys(key for trial in results.trials for key in trial if key.startswith(PARTS))
    values = {name: {sweep: _values(name, trials) for sweep, trials in of.items()} for name in names}
    differ = [name for name in names if len(set(values[name].values())) > 1]
    columns = [texts("setting", "setting", differ)]
    columns += [texts(sweep, sweep, (values[name][sweep] for name in differ)) for sweep in of]
    caption = "The settings in which the sweeps differ; all others have the same values in each."
    return plain("sweeps", "What the sweeps differ in", caption, columns, sortable=False)


def _values(name: str, trials: Sequence[dict[str, Any]]) -> str:
    """The values of a setting in a sweep, in their order; a dash where no trial has it."""
    found = dict.fromkeys(show(trial[name]) for trial in trials if name in trial)
    shown = list(found)
    return ", ".join(shown if len(shown) <= 6 else [*shown[:3], "…", *shown[-2:]]) or "–"
