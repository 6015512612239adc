"""What becomes of a sweep's settings and axes: its points, and the configuration of a trial at each of them."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from samref import plugins
from samref.config import TrialConfig
from samref.part import pydantic_message
from samref.stage import canonical
from samref_sweep.errors import SpecError
from samref_sweep.spec.axes import Condition, Dimension, copy_tree, matches, put, value_at
from samref_sweep.spec.settings import check_names, short_names

SEEDS = "seeds"
MISSES = 1000
"""Draws in succession that give nothing new, after which there is taken to be nothing."""

Point = Mapping[str, Any]
"""The value of every axis that applies to one trial: dotted setting → value."""


@dataclass(frozen=True)
class Space:
    """The settings that all trials share, the axes that they differ in, and the points that these span."""

    file: str
    """Named by errors about the whole."""
    base: Mapping[str, Any]
    """The settings of every trial, as nested mappings; what has its default is not there."""
    dimensions: Mapping[str, Dimension]
    """Key of the axis (`zip` for the coupled ones, `seeds` for the repetitions) → its values, in the file's order."""
    exclude: tuple[Condition, ...]
    """Points that fit one of these are left out."""
    places: Mapping[str, str]
    """Setting → where it was written."""
    fitted: set[int] = field(default_factory=set)
    """Which of the exclusions, counted from 1, a point that was asked for fits."""

    def described(self, points: Iterable[Point]) -> tuple[dict[str, tuple[Any, ...]], str]:
        """The axes that apply to some point: setting → its values (of a range the two ends); and all in words."""
        used = {key for point in points for key in point}
        # Seeds last, where they stand among the points' settings as well.
        ordered = sorted(self.dimensions.items(), key=lambda item: item[0] == SEEDS)
        applied = [dimension for _, dimension in ordered if used.intersection(dimension.keys)]
        axes = {key: values for dimension in applied for key, values in dimension.axes().items()}
        names = short_names(axes)
        return axes, " × ".join(dimension.text(names) for dimension in applied)

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
            try:
                text = canonical(point)
            except ValueError as error:  # NaN among an axis' values
                raise SpecError(f"{self.file}: {error}") from None
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
        tree = self.tree(point) if self.exclude else {}
        found = {number for number, entry in enumerate(self.exclude, start=1) if matches(entry, tree)}
        self.fitted.update(found)
        return bool(found)

    def tree(self, point: Point) -> dict[str, Any]:
        """The settings at a point, as nested mappings; what has its default is not there."""
        tree = copy_tree(self.base)
        for key, value in point.items():
            put(tree, key, value)
        return tree

    def expand(self, points: Iterable[Point]) -> tuple[TrialConfig, ...]:
        """The configuration of each point, checked. Raises SpecError: a value is wrong; says where it was written."""
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
                    config = TrialConfig.model_validate(self._found(self.tree(point)))
                    for part, key in keys.items():
                        parts.setdefault(key, getattr(config, part))
                configs.append(TrialConfig(**{part: parts[key] for part, key in keys.items()}))
            except ValidationError as error:
                raise self._explain(error, point) from None
        named = {tuple(getattr(each, part) for part in ("model", "train", "evaluate")): each for each in configs}
        for config in named.values():
            check_names(config, self.place)
        return tuple(configs)

    def place(self, key: str) -> str:
        """Where a setting was written; for one inside a value that was written whole, where that was."""
        parts = key.split(".")
        prefixes = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
        return next((self.places[prefix] for prefix in prefixes if prefix in self.places), self.file)

    def _found(self, tree: dict[str, Any], above: str = "") -> dict[str, Any]:
        """The settings with the files of plug-ins found, from the folder of the file that names them."""
        for name, value in tree.items():
            key = f"{above}{name}"
            if isinstance(value, dict):
                tree[name] = self._found(value, f"{key}.")
            elif isinstance(value, str) and (".py:" in value or plugins.is_hugging_face(value)):
                place = Path(self.place(key))
                try:
                    tree[name] = plugins.beside(value, place.parent if place.is_file() else Path.cwd())
                except plugins.PluginError as error:
                    raise SpecError(f"{place}: {key}: {error}") from None
        return tree

    def _explain(self, error: ValidationError, point: Point) -> SpecError:
        first = error.errors()[0]
        key = ".".join(part for part in first["loc"] if isinstance(part, str))
        place = self.place(key)
        at = "" if key in point or not point else f" (at {', '.join(f'{k}={v}' for k, v in point.items())})"
        if first["type"] == "value_error":  # our own words, about a whole part
            return SpecError(f"{place}: {f'{key}: ' if key else ''}{pydantic_message(first)}{at}")
        return SpecError(f"{place}: {key} is {first['input']!r}: {pydantic_message(first)}{at}")
