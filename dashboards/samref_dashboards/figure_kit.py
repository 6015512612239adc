"""What every figure of a report is made of: charts side by side under one legend, and who is which colour.

Colours are names (theme.py); the legend is plain data, because one legend serves all charts of a figure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from samref.repetitions import Repetitions
from samref_dashboards.charts import Spec
from samref_dashboards.design import DATA, Configuration, Design, is_number
from samref_dashboards.tables import RANDOM
from samref_dashboards.theme import DISTINCT, colours

Item = TypeVar("Item")

MAX_CHARTS = 12
"""Charts of one figure; a page with more is not looked at."""


@dataclass(frozen=True)
class Panel:
    """One chart of a figure, with its title."""

    title: str
    spec: Spec
    data: str = ""
    """The dataset that it shows; empty where it shows several."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Charts that share a legend."""

    name: str
    """The name of its section and of its files."""
    title: str
    note: str
    legend_title: str
    legend: Mapping[str, str]
    """label -> colour."""
    panels: tuple[Panel, ...]
    dashed: str
    """What a dashed line means; empty where there is none."""
    widest: int = 4
    """Charts side by side on a wide page."""
    ramp: bool = False
    """Whether colours run from worse to better, which a bar above the charts says."""

    @property
    def columns(self) -> int:
        """Charts side by side here, in full rows where that is possible."""
        count = len(self.panels)
        if count <= self.widest:
            return count
        return 3 if self.widest > 3 and count % 3 == 0 else self.widest


def figure(
    design: Design,
    name: str,
    title: str,
    note: str,
    lined: Sequence[str],
    panels: Sequence[Panel],
    *,
    found: int = 0,
    dashed: bool = True,
    widest: int = 4,
) -> Figure | None:
    """Make a figure of the first MAX_CHARTS panels; None without any, a note where there are more (or `found` are)."""
    if not panels:
        return None
    if (more := max(found, len(panels)) - MAX_CHARTS) > 0:
        note += f" {more} more charts are left out."
    return Figure(
        name=f"figure-{name}",
        title=title,
        note=note,
        legend_title=" · ".join(map(design.label, lined)),
        legend=legend(design, lined),
        panels=tuple(panels[:MAX_CHARTS]),
        dashed=RANDOM if dashed and any(each.random_weights for each in design.configurations) else "",
        widest=widest,
    )


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """Pick so many items, evenly spaced, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(index * (len(items) - 1) / (count - 1))] for index in range(count)]


def lined_axes(design: Design, leave_out: Sequence[str] = ()) -> tuple[str, ...]:
    """Choose the axes whose values colours stand for: all that vary if there are colours enough, else the first.

    The dataset comes last.
    """
    several = [axis for axis in design.axes if axis not in leave_out and len(design.levels(axis)) > 1]
    several.sort(key=lambda axis: axis == DATA)
    return tuple(several if len(_combinations(design, several)) <= DISTINCT else several[:1])


def _combinations(design: Design, axes: Sequence[str]) -> list[tuple[Any, ...]]:
    """The axes' values that occur together, in order."""
    levels = {axis: design.levels(axis) for axis in axes}
    found = {tuple(each.values[axis] for axis in axes) for each in design.configurations}
    return sorted(found, key=lambda values: [levels[axis].index(v) for axis, v in zip(axes, values, strict=True)])


def legend(design: Design, axes: Sequence[str]) -> dict[str, str]:
    """Give a colour to each label that colours stand for."""
    if not axes:
        return {}
    found = _combinations(design, axes)
    ordered = len(axes) == 1 and len(found) > 2 and all(is_number(level) for (level,) in found)
    return dict(zip((_line(design, axes, values) for values in found), colours(len(found), ordered), strict=True))


def _line(design: Design, axes: Sequence[str], values: Sequence[Any]) -> str:
    return " · ".join(design.show(axis, value) for axis, value in zip(axes, values, strict=True))


def who(design: Design, configuration: Configuration, lined: Sequence[str]) -> dict[str, Any]:
    """Make the fields that tell a chart's rows apart."""
    name = design.describe(configuration.values) or configuration.data
    if configuration.lacking:
        name += f", {len(configuration.done)} of {len(configuration.trials)} seeds"
    return {
        "line": _line(design, lined, [configuration.values[axis] for axis in lined]),
        "configuration": f"{name} ({RANDOM})" if configuration.random_weights else name,
        "random": configuration.random_weights,
        "lacking": configuration.lacking,
    }


def points(
    design: Design, configuration: Configuration, lined: Sequence[str], found: Repetitions, x: Any, rest: str
) -> list[dict[str, Any]]:
    """Make the row of a mean at `x` in the band of its deviation, on the line `rest`; none where none was measured."""
    if found.mean is None:
        return []
    ends = {"low": found.mean - (found.std or 0.0), "high": found.mean + (found.std or 0.0)}
    point = {"x": x, "y": found.mean, **ends, "n": found.count, "rest": rest}
    return [point | who(design, configuration, lined)]


def hollow(design: Design) -> str:
    """Say what hollow points mean, for a figure's note; empty where there are none."""
    return " Hollow: a seed is missing." if any(each.done and each.lacking for each in design.configurations) else ""
