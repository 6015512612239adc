"""What the layers of a sweep say: settings and axes, collected until they are the space of its trials.

A layer is a file, or one `--set`; what it says of a setting replaces what the layers below it said.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from samref_sweep.errors import SpecError
from samref_sweep.spec.axes import (
    SEED,
    Axis,
    Condition,
    Dimension,
    check_values,
    copy_tree,
    distinct,
    overlap,
    put,
    range_of,
)
from samref_sweep.spec.settings import setting, takes_several
from samref_sweep.spec.space import SEEDS, Space

ZIP = "zip"


class Layers:
    """The settings of every trial and the axes, and where each was written, while layers are added.

    Every method but `space` and `forget` takes the place (a file, or `--set …`) that errors name, and raises
    `SpecError` where something wrong was written there.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._base: dict[str, Any] = {}
        self._dimensions: dict[str, Dimension] = {}
        """Key of the axis (`zip` for the coupled ones) → its values, in the order of the file."""
        self._exclude: list[Condition] = []
        self._places: dict[str, str] = {}

    def space(self) -> Space:
        """All that was said, as it is now; layers that are added later do not change it."""
        base, exclude = copy_tree(self._base), tuple(self._exclude)
        return Space(self._file, base, dict(self._dimensions), exclude, dict(self._places))

    def set(self, key: str, value: Any, place: str) -> None:
        """Set one setting, or all that a mapping holds; an empty mapping is a value (`train: {}` is a training)."""
        setting(key, place)
        if isinstance(value, dict) and value:
            for name, entry in value.items():
                self.set(f"{key}.{name}", entry, place)
            return
        self.drop(key)
        put(self._base, key, value)
        self._places[key] = place

    def sweep(self, key: str, axis: Axis, place: str) -> None:
        """Make a setting an axis; where `when` is not named, the condition that a lower layer gave it stays."""
        setting(key, place)
        before = self._dimensions.get(key)
        when = before.when if before and axis.when is None else self._condition(axis.when or {}, place)
        if any(overlap(key, other) for other in when):
            raise SpecError(f"{place}: {key} has itself in its when; name another setting there")
        if axis.values is None:
            self._add(key, Dimension((key,), place, range=range_of(key, axis, place), when=when))
        else:
            check_values(key, axis.values, place)
            self._add(key, Dimension((key,), place, tuple({key: value} for value in axis.values), when=when))

    def zip(self, rows: Sequence[Mapping[str, Any]], place: str) -> None:
        """Couple axes: each row gives each of them a value; all rows together are one axis."""
        keys = tuple(rows[0])
        for number, row in enumerate(rows, start=1):
            if set(row) != set(keys) or not keys:
                raise SpecError(
                    f"{place}: zip's row {number} sets {', '.join(row) or 'nothing'}, its row 1 "
                    f"{', '.join(keys) or 'nothing'}; every row sets the same settings"
                )
        for key in keys:
            setting(key, place)
            if part := next((other for other in keys if other.startswith(f"{key}.")), None):
                raise SpecError(f"{place}: zip sets {key} and {part}, one is a part of the other")
        ordered = tuple({key: row[key] for key in keys} for row in rows)
        if len(distinct(ordered)) < len(ordered):
            raise SpecError(f"{place}: zip has two equal rows; every row is one value of the coupled axis")
        self._add(ZIP, Dimension(keys, place, ordered))

    def repeat(self, seeds: int | Sequence[int], place: str) -> None:
        """Repeat every trial that trains for each seed; a number stands for the seeds below it."""
        values = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
        check_values("seeds", values, place)
        self._add(SEEDS, Dimension((SEED,), place, tuple({SEED: value} for value in values)))

    def exclude(self, entries: Iterable[Mapping[str, Any]], place: str) -> None:
        """Leave out the trials that fit one of the entries; replaces what lower layers left out."""
        self._exclude = []
        for number, entry in enumerate(entries, start=1):
            if not entry:
                raise SpecError(f"{place}: exclude's entry {number} is empty, which fits every trial; name a setting")
            self._exclude.append(self._condition(entry, place))

    def override(self, key: str, value: Any, place: str) -> None:
        """What `--set` says of a setting: a list is an axis, unless one value of the setting is a list."""
        field = setting(key, place)
        for name in (name for dimension in self._dimensions.values() for name in dimension.keys):
            if key.startswith(f"{name}."):
                raise SpecError(f"{place}: {name} is an axis, whose values hold {key}; set {name}, or edit the file")
        if takes_several(field, value):
            self.sweep(key, Axis(values=value), place)
        else:
            self.drop(key)
            self.set(key, value, place)

    def drop(self, key: str, but: str | None = None) -> None:
        """Forget the axes of a setting and of what is below it; a coupled axis goes on with its other settings."""
        for name, dimension in list(self._dimensions.items()):
            kept = [other for other in dimension.keys if other != key and not other.startswith(f"{key}.")]
            if name != but and not kept:
                del self._dimensions[name]
            elif name != but and len(kept) < len(dimension.keys):
                self._dimensions[name] = dimension.only(kept)

    def forget(self, name: str) -> None:
        """Forget the coupled axes (`zip`) or the repetitions (`seeds`) of lower layers."""
        self._dimensions.pop(name, None)

    def _condition(self, written: Mapping[str, Any], place: str) -> Condition:
        """A condition with each setting's values as a tuple."""
        condition = {}
        for key, value in written.items():
            condition[key] = tuple(value) if takes_several(setting(key, place), value) else (value,)
        return condition

    def _add(self, name: str, made: Dimension) -> None:
        """Add an axis in place of lower layers' axes of its settings; two in one layer are a mistake."""
        for key in made.keys:
            for other_name, other in self._dimensions.items():
                clash = next((k for k in other.keys if other_name != name and overlap(k, key)), None)
                if name == SEEDS and clash and key.startswith(f"{clash}."):
                    continue  # seeds are set last, into whatever training an axis chose
                if clash == key and other.place == made.place:
                    raise SpecError(f"{made.place}: {key} is an axis twice, in {other_name} and in {name}")
                if clash and (other.place == made.place or key.startswith(f"{clash}.")):
                    raise SpecError(f"{made.place}: {key} and {clash} cannot both be axes, one is a part of the other")
            self.drop(key, but=name)
            self._places[key] = made.place
        self._dimensions[name] = made
