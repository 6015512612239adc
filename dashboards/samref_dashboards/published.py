"""Published numbers beside ours: which may stand side by side, and which keys keep others apart.

The numbers are in published.yaml, and in files of that form that a user names. Two rows are comparable where all keys
that the published one states are equal; what it does not state is not compared.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from samref_dashboards import entries, metrics
from samref_dashboards.load import Results, Trial
from samref_dashboards.tables import Block, Cell, Column, Row, Table, column, number

FILE = Path(__file__).with_name("published.yaml")
DIGITS = 12
"""Shown of a fingerprint."""


@dataclass(frozen=True)
class Published:
    """A published row."""

    method: str
    backbone: str
    source: str
    protocol: Mapping[str, Any]
    """The keys that its source states."""
    settings: Mapping[str, Any]
    """Settings of a trial that belong to the row, where it is one of a sweep."""
    numbers: Mapping[str, float]
    """Column of trials.parquet -> value, in the column's unit."""

    @property
    def name(self) -> str:
        """The method with its backbone, and the settings that it is one of."""
        said = [f"{key.rsplit('.', 1)[-1]} {value}" for key, value in self.settings.items()]
        return ", ".join([f"{self.method} {self.backbone}", *said])


@cache
def read(file: Path = FILE) -> tuple[Published, ...]:
    """Read the published rows of a file; ResultsError says what is wrong in which line."""
    found = []
    for entry in entries.read(file, ("method", "backbone", "source", "numbers"), ("protocol", "settings")):
        given = entries.mapping(entry, "numbers")
        numbers = {key: entries.number(entry.place, key, each) for key, each in given.items()}
        method, backbone, source = (str(entry.values[key]) for key in ("method", "backbone", "source"))
        protocol, settings = (entries.mapping(entry, key) for key in ("protocol", "settings"))
        found.append(Published(method, backbone, source, protocol, settings, numbers))
    return tuple(found)


def protocol_of(trial: Trial) -> dict[str, Any]:
    """Give the protocol that a trial's row holds; empty where an older version wrote it."""
    return dict(json.loads(trial.get("protocol_keys") or "{}"))


def differing(ours: Mapping[str, Any], stated: Mapping[str, Any]) -> list[str]:
    """Say which of the stated keys differ in a protocol of ours: `objects: 20, not 345`."""
    return [
        f"{key}: {_short(ours.get(key, 'not known'))}, not {_short(value)}"
        for key, value in stated.items()
        if ours.get(key) != value
    ]


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:DIGITS]}…" if len(text) > 2 * DIGITS and text.isalnum() else text


def twins(results: Results, more: Iterable[Path] = ()) -> Table | None:
    """List the published rows on each dataset that was evaluated, with what keeps them from standing beside ours."""
    rows = [each for file in (FILE, *more) for each in read(file)]
    protocols = {
        trial["protocol"]: protocol_of(trial)
        for trial in results.trials
        if trial["status"] == "done" and trial.get("protocol")
    }
    datasets = {keys.get("dataset") for keys in protocols.values()}
    there = {key for row in rows if row.protocol.get("dataset") in datasets for key in row.numbers}
    shown = [metric for metric in metrics.HEADLINE if metric.key in there]
    blocks = [block for name, keys in protocols.items() if (block := _block(name, keys, rows, shown)).rows]
    if not blocks:
        return None
    columns = (
        Column(label="published", key="published"),
        *(column(metric, paper="published") for metric in shown),
        Column(label="beside ours", key="beside", title="which keys of the protocol differ"),
        Column(label="source", key="source"),
    )
    return Table(
        name="published",
        title="Published numbers",
        caption="What was published on the same datasets. A row may stand beside ours where all that its source states "
        "of its protocol agrees with ours.",
        columns=columns,
        blocks=tuple(blocks),
    )


def _block(name: str, keys: Mapping[str, Any], rows: Sequence[Published], shown: Sequence[metrics.Metric]) -> Block:
    made = []
    for row in rows:
        if row.protocol.get("dataset") == keys.get("dataset"):
            differ = "; ".join(differing(keys, row.protocol))
            cells = [number(metric, row.numbers.get(metric.key)) for metric in shown]
            verdict = Cell(f"no: {differ}" if differ else "yes", differ or "yes")
            made.append(Row(cells=(Cell(row.name), *cells, verdict, Cell(row.source)), paper=True))
    made.sort(key=lambda row: row.cells[-2].value != "yes")
    said = " · ".join(f"{key} {_short(value)}" for key, value in keys.items())
    beside = any(row.cells[-2].value == "yes" for row in made)
    return Block(caption=f"{name}: {said}", rows=tuple(made), data=str(keys.get("dataset", "")), folded=not beside)
