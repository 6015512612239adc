"""`shapes`: images drawn on the fly, with exact masks; nothing on disk.

Textured objects with thin limbs, bars and holes before a textured ground, overlapping; one of them is the
target and its truth is what is visible of it. For tests, quick starts and measurements without a download: a
small network learns it in minutes, but neither colour nor position alone solves it.

Sample i depends on (SEED, split, i) only: any order, any process, any number of samples. Masks are drawn
without antialiasing, before colours are; the image is blurred slightly and gets a sensor's noise.
"""

from dataclasses import dataclass, field
from math import cos, pi, sin

import cv2
import numpy as np
from numpy.typing import NDArray

from samref.data.hashes import digest
from samref.data.sample import DataError, Dataset, Image, Request, Sample, Split, Truth
from samref.data.textures import paint

VERSION = 1
"""Raised with every change of what is drawn; it is in the fingerprint."""

SEED = 0x5A3F
SIZE = 256
SPLITS: tuple[Split, ...] = ("train", "val")
DEFAULT_SAMPLES = {"train": 2000, "val": 100}

OBJECTS = (2, 5)
"""Fewest and most objects of an image."""
RADIUS_PX = (28.0, 92.0)
VISIBLE_PX = (500, SIZE * SIZE // 2)
"""Fewest and most visible pixels of a target."""
VISIBLE_SHARE = 0.5
"""A target is hidden by less than half: its centre says which object is meant."""
MOST_ATTEMPTS = 100
"""Layouts are drawn again until one holds a target; of 600 all did at once."""

Label = NDArray[np.uint8]
Points = NDArray[np.float64]


def open_shapes(request: Request) -> Dataset:
    """Open the dataset; `samples` is how many are drawn, without limit."""
    count = DEFAULT_SAMPLES[request.split] if request.samples is None else request.samples
    if count < 1:
        raise DataError(f"{request.name}: {count} samples were asked for; set samples to 1 or more")
    return Shapes(request.name, request.split, count)


@dataclass(eq=False)
class Shapes:
    """A `Dataset` of `count` drawn samples."""

    name: str
    split: Split
    count: int
    samples: tuple[Sample, ...] = field(init=False)

    def __post_init__(self) -> None:
        keys = [f"{self.split}-{index:06d}" for index in range(self.count)]
        self.samples = tuple(Sample(key, key) for key in keys)

    def image(self, image_key: str) -> Image:
        geometry, colours = self._streams(image_key)
        labels, _ = draw_layout(geometry)
        return paint(labels, colours)

    def truth(self, key: str) -> Truth:
        geometry, _ = self._streams(key)
        labels, target = draw_layout(geometry)
        return np.asarray(labels == target, np.int8)

    def notes(self) -> tuple[str, ...]:
        return ()

    def fingerprint(self) -> str:
        return digest({"shapes": VERSION, "seed": SEED, "split": self.split, "count": self.count})

    def image_digests(self) -> frozenset[str]:
        return frozenset()  # its images are no files, and each split draws its own

    def _streams(self, key: str) -> tuple[np.random.Generator, np.random.Generator]:
        """The sample's random streams, one for the layout and one for colours: truths need no colours drawn."""
        split, _, index = key.partition("-")
        if split != self.split:
            raise KeyError(key)
        layout, colours = np.random.SeedSequence([SEED, SPLITS.index(self.split), int(index)]).spawn(2)
        return np.random.default_rng(layout), np.random.default_rng(colours)


def draw_layout(rng: np.random.Generator) -> tuple[Label, int]:
    """Draw SIZE×SIZE labels and name the target's: 0 and 1 are ground, 2 and up objects, later ones in front."""
    for _ in range(MOST_ATTEMPTS):
        labels = np.zeros((SIZE, SIZE), np.uint8)
        if rng.random() < 0.5:
            cv2.fillPoly(labels, [_horizon(rng)], 1)
        last = 2 + int(rng.integers(OBJECTS[0], OBJECTS[1] + 1))
        drawn = np.zeros(last, np.int64)
        for label in range(2, last):
            silhouette = _object(rng)
            drawn[label] = cv2.countNonZero(silhouette)
            np.copyto(labels, np.uint8(label), where=silhouette.view(np.bool_))
        visible = np.array([0, 0, *(cv2.countNonZero((labels == label).view(np.uint8)) for label in range(2, last))])
        fit = np.flatnonzero(
            (visible >= VISIBLE_PX[0]) & (visible <= VISIBLE_PX[1]) & (visible >= VISIBLE_SHARE * drawn)
        )
        if len(fit):
            return labels, int(rng.choice(fit))
    raise AssertionError(f"no target in {MOST_ATTEMPTS} layouts")


def _horizon(rng: np.random.Generator) -> NDArray[np.int32]:
    """The outline of the lower part of the ground."""
    x = np.linspace(0, SIZE, 17)
    level, slope, wave = rng.uniform(0.3, 0.75) * SIZE, rng.uniform(-0.3, 0.3), rng.uniform(0, 12)
    y = level + slope * (x - SIZE / 2) + wave * np.sin(x * rng.uniform(0.01, 0.06) + rng.uniform(0, 2 * pi))
    corners = [(SIZE, SIZE), (0, SIZE)]
    outline: NDArray[np.int32] = np.rint(np.concatenate([np.stack([x, y], axis=1), corners])).astype(np.int32)
    return outline


def _object(rng: np.random.Generator) -> Label:
    """One object's silhouette, SIZE×SIZE, 1 inside."""
    canvas = np.zeros((SIZE, SIZE), np.uint8)
    radius = float(rng.uniform(*RADIUS_PX))
    centre = rng.uniform(0.12 * SIZE, 0.88 * SIZE, 2)
    kinds = ((_blob, 1.0), (_polygon, 1.0), (_creature, 0.5), (_ring, 0.85), (_bars, 0.8), (_plant, 1.2))
    draw, share = kinds[rng.integers(len(kinds))]
    draw(canvas, rng, centre, share * radius)
    return canvas


def _blob(canvas: Label, rng: np.random.Generator, centre: Points, radius: float) -> None:
    """A smooth closed outline, at times with holes."""
    angle = np.linspace(0, 2 * pi, 64, endpoint=False)
    wave = np.zeros(64)
    for k in range(1, 6):
        wave += rng.uniform(-0.35, 0.35) / k * np.cos(k * angle + rng.uniform(0, 2 * pi))
    outline = (1 + wave)[:, None] * np.stack([np.cos(angle), np.sin(angle) * rng.uniform(0.5, 1)], axis=1)
    _fill(canvas, centre + radius * _turn(outline, rng))
    if rng.random() < 0.5:
        _holes(canvas, rng, centre, radius)


def _polygon(canvas: Label, rng: np.random.Generator, centre: Points, radius: float) -> None:
    """Straight edges and sharp corners, at times with holes."""
    corners = int(rng.integers(3, 8))
    angle = 2 * pi * (np.arange(corners) + rng.uniform(-0.25, 0.25, corners)) / corners
    reach = rng.uniform(0.55, 1.1, corners)[:, None]
    _fill(canvas, centre + radius * _turn(reach * np.stack([np.cos(angle), np.sin(angle)], axis=1), rng))
    if rng.random() < 0.35:
        _holes(canvas, rng, centre, radius)


def _creature(canvas: Label, rng: np.random.Generator, centre: Points, radius: float) -> None:
    """A body with thin limbs of two segments, and a head."""
    _blob(canvas, rng, centre, radius)
    direction = rng.uniform(0, 2 * pi)
    for limb in range(int(rng.integers(3, 8))):
        direction += rng.uniform(0.6, 1.3)
        knee = centre + radius * rng.uniform(1.1, 1.6) * _unit(direction)
        foot = knee + radius * rng.uniform(0.5, 1.2) * _unit(direction + rng.uniform(-1, 1))
        width = int(rng.integers(2, 8))
        _stroke(canvas, [centre, knee, foot], width)
        if limb == 0:
            cv2.circle(canvas, _pixel(foot), max(3, round(0.4 * radius)), 1, cv2.FILLED)


def _ring(canvas: Label, rng: np.random.Generator, centre: Points, radius: float) -> None:
    """An ellipse with a large opening; off centre it is a crescent."""
    axes = radius * np.array([1.0, rng.uniform(0.55, 1)])
    turn = rng.uniform(0, 180)
    _ellipse(canvas, centre, axes, turn, 1)
    inner = rng.uniform(0.45, 0.8)
    shift = radius * (1 - inner) * rng.uniform(0, 1.6) * _unit(rng.uniform(0, 2 * pi))
    _ellipse(canvas, centre + shift, inner * axes, turn, 0)


def _bars(canvas: Label, rng: np.random.Generator, centre: Points, radius: float) -> None:
    """A fence or ladder: two rails and thin rungs."""
    rungs = int(rng.integers(2, 6))
    height = rng.uniform(0.35, 0.8)
    ends = [((-1, side), (1, side)) for side in (-height, height)]
    ends += [((x, -height * 1.2), (x, height * 1.2)) for x in np.linspace(-0.85, 0.85, rungs)]
    turned = _turn(np.array(ends, np.float64).reshape(-1, 2), rng).reshape(-1, 2, 2)
    for number, (begin, end) in enumerate(turned):
        width = int(rng.integers(5, 13)) if number < 2 else int(rng.integers(3, 10))
        _stroke(canvas, [centre + radius * begin, centre + radius * end], width)


def _plant(canvas: Label, rng: np.random.Generator, centre: Points, radius: float) -> None:
    """A curved stem with leaves."""
    upward = rng.uniform(0, 2 * pi)
    at = centre - 0.6 * radius * _unit(upward)
    path = [at]
    for leaf in range(5):
        upward += rng.uniform(-0.5, 0.5)
        at = at + radius / 4 * _unit(upward)
        path.append(at)
        side = upward + (1 if leaf % 2 else -1) * rng.uniform(0.6, 1.2)
        length = radius * rng.uniform(0.18, 0.38)
        axes = np.array([length, length * rng.uniform(0.25, 0.6)])
        _ellipse(canvas, at + length * _unit(side), axes, float(np.degrees(side)), 1)
    _stroke(canvas, path, int(rng.integers(2, 6)))


def _holes(canvas: Label, rng: np.random.Generator, centre: Points, radius: float) -> None:
    for _ in range(int(rng.integers(1, 4))):
        at = centre + radius * rng.uniform(0, 0.5) * _unit(rng.uniform(0, 2 * pi))
        cv2.circle(canvas, _pixel(at), max(3, round(radius * rng.uniform(0.08, 0.24))), 0, cv2.FILLED)


def _unit(direction: float) -> Points:
    return np.array([cos(direction), sin(direction)])


def _turn(points: Points, rng: np.random.Generator) -> Points:
    """The points (N×2) turned by a random angle about the origin."""
    along = _unit(rng.uniform(0, 2 * pi))
    turned: Points = points @ np.array([along, [-along[1], along[0]]])
    return turned


def _pixel(point: Points) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


def _fill(canvas: Label, outline: Points) -> None:
    cv2.fillPoly(canvas, [np.rint(outline).astype(np.int32)], 1)


def _stroke(canvas: Label, path: list[Points], width_px: int) -> None:
    cv2.polylines(canvas, [np.rint(np.array(path)).astype(np.int32)], False, 1, width_px, cv2.LINE_8)


def _ellipse(canvas: Label, centre: Points, axes: Points, turn_degrees: float, value: int) -> None:
    size = (max(1, round(float(axes[0]))), max(1, round(float(axes[1]))))
    cv2.ellipse(canvas, _pixel(centre), size, turn_degrees, 0, 360, value, cv2.FILLED, cv2.LINE_8)
