"""A sweep while it is put together: settings and axes, layer upon layer, until they are trials' configurations.

A layer is a file, or one `--set`; what it says of a setting replaces what the layers below it said. Knows nothing of
files, stages or Ray.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from samref.config import TrialConfig
from samref.stage import canonical
from samref_sweep.errors import SpecError
from samref_sweep.spec.axes import (
    SEED,
    Axis,
    Condition,
    Dimension,
    check_values,
    copy_tree,
    distinct,
    matches,
    overlap,
    put,
    range_of,
    value_at,
)
from samref_sweep.spec.settings import check_backbone, check_dataset, setting, takes_list

ZIP, SEEDS = "zip", "seeds"
MISSES = 1000
"""Draws in succession that give nothing new, after which there is taken to be nothing."""
Point = Mapping[str, Any]


class Draft:
    """Settings of every trial, axes, and where each was written."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.base: dict[str, Any] = {}
        self.dimensions: dict[str, Dimension] = {}
        """Key of the axis (`zip` for the coupled ones) → its values, in the order of the file."""
        self._exclude: list[Condition] = []
        self._places: dict[str, str] = {}

    # What layers say

    def set(self, key: str, value: Any, place: str) -> None:
        """Set one setting, or all that a mapping holds; an empty mapping is a value (`train: {}` is a training)."""
        setting(key, place)
        if isinstance(value, dict) and value:
            for name, entry in value.items():
                self.set(f"{key}.{name}", entry, place)
            return
        self.drop(key)
        put(self.base, key, value)
        self._places[key] = place

    def sweep(self, key: str, axis: Axis, place: str) -> None:
        """Make a setting an axis; where `when` is not named, the condition that a lower layer gave it stays."""
        setting(key, place)
        before = self.dimensions.get(key)
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
        for name in (name for dimension in self.dimensions.values() for name in dimension.keys):
            if key.startswith(f"{name}."):
                raise SpecError(f"{place}: {name} is an axis, whose values hold {key}; set {name}, or edit the file")
        lists = isinstance(value, list) and all(isinstance(entry, list) for entry in value)
        if isinstance(value, list) and (not takes_list(field) or lists):
            self.sweep(key, Axis(values=value), place)
        else:
            self.drop(key)
            self.set(key, value, place)

    def drop(self, key: str, but: str | None = None) -> None:
        """Forget the axes of a setting and of what is below it; a coupled axis goes on with its other settings."""
        for name, dimension in list(self.dimensions.items()):
            kept = [other for other in dimension.keys if other != key and not other.startswith(f"{key}.")]
            if name != but and not kept:
                del self.dimensions[name]
            elif name != but and len(kept) < len(dimension.keys):
                self.dimensions[name] = dimension.only(kept)

    # What becomes of it

    def described(self, points: Iterable[Point]) -> tuple[dict[str, tuple[Any, ...]], str]:
        """The axes that apply to some point: setting → its values (of a range the two ends); and all in words."""
        used = {key for point in points for key in point}
        # Seeds last, where they stand among the points' settings as well.
        ordered = sorted(self.dimensions.items(), key=lambda item: item[0] == SEEDS)
        applied = [dimension for _, dimension in ordered if used.intersection(dimension.keys)]
        axes = {key: values for dimension in applied for key, values in dimension.axes().items()}
        return axes, " × ".join(dimension.text for dimension in applied)

    def points(self) -> Iterator[Point]:
        """Every combination of the axes' values, the last axis fastest; an axis whose condition fails is left out."""
        ordered = self.ordered()

        def combine(number: int, point: Point) -> Iterator[Point]:
            if number == len(ordered):
                yield from self.repeats(point)
            elif self.applies(ordered[number], point):
                for row in ordered[number].rows:
                    yield from combine(number + 1, {**point, **row})
            else:
                yield from combine(number + 1, point)

        return combine(0, {})

    @property
    def seeds(self) -> Dimension | None:
        """The repetitions."""
        return self.dimensions.get(SEEDS)

    def sample(self, choose: Callable[[Dimension], Point]) -> Point:
        """One point: a row of each axis that applies. Seeds are no axis here, each point is repeated for all."""
        point: Point = {}
        for dimension in self.ordered():
            if self.applies(dimension, point):
                point = {**point, **choose(dimension)}
        return point

    def drawn(self, count: int, seed: int) -> list[Point]:
        """Different points drawn at random, fewer where there are no more; `count + 1` begin with the same ones."""
        generator = random.Random(seed)
        points: dict[str, Point] = {}
        misses = 0
        while len(points) < count and misses < MISSES:
            point = self.sample(lambda dimension: dimension.at(generator.random()))
            text = canonical(point)
            misses = misses + 1 if text in points or not self.repeats(point) else 0
            if not misses:
                points[text] = point
        return [each for point in points.values() for each in self.repeats(point)]

    def probes(self) -> list[Point]:
        """Points that show each value of each axis (of a range its ends), to check what a search may suggest."""
        ends = [(dimension, row) for dimension in self.ordered() for row in dimension.ends()]
        return [
            self.sample(lambda each, chosen=chosen, row=row: row if each is chosen else each.ends()[0])  # type: ignore[misc]
            for chosen, row in ends
        ]

    def repeats(self, point: Point) -> list[Point]:
        """The point for each seed, less what is excluded."""
        seeds = self.seeds
        # A trial that trains nothing has nothing to repeat, and a seed would make it a training.
        repeat = seeds is not None and value_at(self.tree(point), "train") is not None
        points = [{**point, **row} for row in seeds.rows] if seeds and repeat else [point]
        return [each for each in points if not self.excluded(each)]

    def ordered(self) -> list[Dimension]:
        """The axes, each after those that its condition looks at, else as in the file; not the seeds."""
        waiting = [dimension for name, dimension in self.dimensions.items() if name != SEEDS]
        ordered: list[Dimension] = []
        while waiting:
            free = [each for each in waiting if not any(other.decides(each.when) for other in waiting)]
            if not free:
                keys = " and ".join(key for dimension in waiting for key in dimension.keys)
                raise SpecError(f"{self.file}: the conditions (when) of {keys} depend on each other")
            ordered.append(free[0])
            waiting.remove(free[0])
        return ordered

    def applies(self, dimension: Dimension, point: Point) -> bool:
        """Whether an axis' condition holds at what is chosen of a point so far."""
        return not dimension.when or matches(dimension.when, self.tree(point))

    def excluded(self, point: Point) -> bool:
        """Whether the point is to be left out."""
        return bool(self._exclude) and any(matches(entry, self.tree(point)) for entry in self._exclude)

    def tree(self, point: Point) -> dict[str, Any]:
        """The settings at a point, as nested mappings; what has its default is not there."""
        tree = copy_tree(self.base)
        for key, value in point.items():
            put(tree, key, value)
        return tree

    def expand(self, points: Iterable[Point]) -> tuple[TrialConfig, ...]:
        """The configuration of each point, checked.

        Raises:
            SpecError: a value is wrong; says where it was written.
        """
        parts: dict[tuple[str, str], Any] = {}
        configs = []
        for point in points:
            # A grid's trials share most of their parts, and validating one takes longer than all else here.
            keys = {
                part: (part, repr([item for item in point.items() if item[0].partition(".")[0] == part]))
                for part in TrialConfig.model_fields
            }
            try:
                if not all(key in parts for key in keys.values()):
                    config = TrialConfig.model_validate(self.tree(point))
                    for part, key in keys.items():
                        parts.setdefault(key, getattr(config, part))
                configs.append(TrialConfig(**{part: parts[key] for part, key in keys.items()}))
            except ValidationError as error:
                raise self._explain(error, point) from None
        self._check_names(configs)
        return tuple(configs)

    def place(self, key: str) -> str:
        """Where a setting was written; for one inside a value that was written whole, where that was."""
        parts = key.split(".")
        prefixes = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
        return next((self._places[prefix] for prefix in prefixes if prefix in self._places), self.file)

    def _condition(self, written: Mapping[str, Any], place: str) -> Condition:
        """A condition with each setting's values as a tuple."""
        condition = {}
        for key, value in written.items():
            field = setting(key, place)
            lists = isinstance(value, list) and all(isinstance(entry, list) for entry in value)
            several = isinstance(value, list) and (not takes_list(field) or lists)
            condition[key] = tuple(value) if several else (value,)
        return condition

    def _add(self, name: str, made: Dimension) -> None:
        """Add an axis in place of lower layers' axes of its settings; two in one layer are a mistake."""
        for key in made.keys:
            for other_name, other in self.dimensions.items():
                clash = next((k for k in other.keys if other_name != name and overlap(k, key)), None)
                if name == SEEDS and clash and key.startswith(f"{clash}."):
                    continue  # seeds are set last, into whatever training an axis chose
                if clash == key and other.place == made.place:
                    raise SpecError(f"{made.place}: {key} is an axis twice, in {other_name} and in {name}")
                if clash and (other.place == made.place or key.startswith(f"{clash}.")):
                    raise SpecError(f"{made.place}: {key} and {clash} cannot both be axes, one is a part of the other")
            self.drop(key, but=name)
            self._places[key] = made.place
        self.dimensions[name] = made

    def _check_names(self, configs: Sequence[TrialConfig]) -> None:
        used: set[tuple[str, str]] = set()
        for config in configs:
            used |= {("model.backbone", config.model.backbone), ("evaluate.data", config.evaluate.data)}
            key, train = "train", config.train
            while train is not None:
                used.add((f"{key}.data", train.data))
                key, train = f"{key}.init", train.init
        for key, name in sorted(used):
            if key == "model.backbone":
                check_backbone(name, self.place(key))
            else:
                check_dataset(key, name, self.place(key))

    def _explain(self, error: ValidationError, point: Point) -> SpecError:
        first = error.errors()[0]
        key = ".".join(part for part in first["loc"] if isinstance(part, str))
        place = self.place(key)
        at = "" if key in point or not point else f" (at {', '.join(f'{k}={v}' for k, v in point.items())})"
        if first["type"] == "value_error":  # our own words, about a whole part
            return SpecError(f"{place}: {f'{key}: ' if key else ''}{message(first)}{at}")
        return SpecError(f"{place}: {key} is {first['input']!r}: {message(first)}{at}")


def message(error: ErrorDetails) -> str:
    """Pydantic's message as the rest of a sentence."""
    text: str = error["msg"].removeprefix("Value error, ")
    return text.replace("Input should be", "it should be")
