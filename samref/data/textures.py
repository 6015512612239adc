"""Colours for drawn layouts: every label gets a texture of two colours, then light, shadow, blur and noise.

Shapes: H×W is the image, h×w the box of one label.
"""

from math import ceil, cos, pi, sin

import cv2
import numpy as np
from numpy.typing import NDArray

from samref.data.sample import Image

Level = NDArray[np.float32]
"""A texture: each pixel's share of the second colour, 0..1; elsewhere a factor of brightness."""

CANDIDATES = 12
"""Colours drawn for each label, of which the one farthest from all others is taken: the labels of an image
are at least 70 of 441 (black to white) apart, yet no threshold of colour is right for two images."""


def paint(labels: NDArray[np.uint8], rng: np.random.Generator) -> Image:
    """Paint the image (H×W×3 uint8 RGB) of labels (H×W): 0 and 1 are ground, 2 and up objects, each textured."""
    height, width = labels.shape
    num_labels = int(labels.max()) + 1
    level = np.zeros((height, width), np.float32)
    for label in range(num_labels):
        inside = labels == label
        # Textures are drawn on the label's box alone: five objects would cost six images otherwise.
        x, y, box_width, box_height = cv2.boundingRect(inside.view(np.uint8))
        box = (slice(y, y + box_height), slice(x, x + box_width))
        if box_width:
            np.copyto(level[box], _texture(rng, box_height, box_width), where=inside[box])
    first = _distinct_colours(rng, num_labels)
    way = np.clip(first + _contrast(rng, num_labels), 0, 255) - first
    brightness = _light(rng, height, width) * _shadow(rng, labels)
    planes = [
        (np.take(one, labels) + np.take(other, labels) * level) * brightness
        for one, other in zip(first.astype(np.float32).T, way.astype(np.float32).T, strict=True)
    ]
    return _photograph(cv2.merge(planes).astype(np.float32, copy=False), rng)


def _distinct_colours(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """count×3 RGB."""
    chosen = rng.uniform(30, 225, (1, 3))
    while len(chosen) < count:
        candidates = rng.uniform(30, 225, (CANDIDATES, 3))
        nearest = np.linalg.norm(candidates[:, None] - chosen[None], axis=2).min(axis=1)
        chosen = np.concatenate([chosen, candidates[[int(nearest.argmax())]]])
    # The first ones drawn are the farthest apart; which labels get them is left to chance.
    return rng.permutation(chosen)


def _contrast(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """count×3: the way from a texture's first colour to its second, mostly in brightness."""
    tint = rng.normal(0, 0.35, (count, 3)) + 1
    amount: NDArray[np.float64] = rng.choice([-1, 1], count) * rng.uniform(18, 60, count)
    return tint * amount[:, None]


def _texture(rng: np.random.Generator, height: int, width: int) -> Level:
    family = int(rng.integers(6))
    if family < 4:
        return (_stripes, _checks, _gradient, _spots)[family](rng, height, width)
    cell_px = float(rng.uniform(8, 48)) if family == 4 else 4.0
    coarse, fine = _noise(rng, height, width, cell_px), _noise(rng, height, width, max(2.0, cell_px / 3))
    return np.float32(0.65) * coarse + np.float32(0.35) * fine


def _stripes(rng: np.random.Generator, height: int, width: int) -> Level:
    """Straight or bent, soft or hard."""
    phase = _ramp(rng, height, width) * np.float32(2 * pi / rng.uniform(6, 36))
    phase += _noise(rng, height, width, 64) * np.float32(rng.uniform(0, 6))
    wave = np.clip(np.sin(phase) * np.float32(rng.uniform(0.8, 4)), -1, 1)
    level: Level = np.float32(0.5) + np.float32(0.5) * wave
    return level


def _checks(rng: np.random.Generator, height: int, width: int) -> Level:
    angle, period = float(rng.uniform(0, 2 * pi)), np.float32(rng.uniform(8, 32))
    along, across = (np.floor(_slope(height, width, turn) / period) for turn in (angle, angle + pi / 2))
    level: Level = np.mod(along + across, np.float32(2))
    return level


def _gradient(rng: np.random.Generator, height: int, width: int) -> Level:
    """Linear, or at times about a point."""
    along = _ramp(rng, height, width)
    if rng.random() < 0.4:
        along = np.hypot(along - np.float32(rng.uniform(-100, 100)), _ramp(rng, height, width))
    low, high = float(along.min()), float(along.max())
    return (along - np.float32(low)) / np.float32(max(high - low, 1))


def _spots(rng: np.random.Generator, height: int, width: int) -> Level:
    noise = _noise(rng, height, width, float(rng.choice([10, 16, 24])))
    level: Level = np.clip((noise - np.float32(rng.uniform(0.45, 0.6))) * np.float32(12), 0, 1)
    return level


def _noise(rng: np.random.Generator, height: int, width: int, cell_px: float) -> Level:
    """Smooth noise, 0..1, of one independent value for each cell."""
    return _grown(rng.random((ceil(height / cell_px) + 1, ceil(width / cell_px) + 1), np.float32), height, width)


def _grown(grid: Level, height: int, width: int) -> Level:
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)


def _ramp(rng: np.random.Generator, height: int, width: int) -> Level:
    return _slope(height, width, float(rng.uniform(0, 2 * pi)))


def _slope(height: int, width: int, angle: float) -> Level:
    """Pixels along the direction `angle`, from the middle."""
    x = (np.arange(width, dtype=np.float32) - width / 2) * np.float32(cos(angle))
    y = (np.arange(height, dtype=np.float32) - height / 2) * np.float32(sin(angle))
    return (y[:, None] + x[None, :]).astype(np.float32, copy=False)


def _light(rng: np.random.Generator, height: int, width: int) -> Level:
    """Uneven light, a factor about 1."""
    return _grown(rng.uniform(0.72, 1.18, (3, 3)).astype(np.float32), height, width)


def _shadow(rng: np.random.Generator, labels: NDArray[np.uint8]) -> Level:
    """A soft shadow of the objects on the ground beside them, a factor up to 1."""
    height, width = labels.shape
    above = (labels >= 2).astype(np.uint8)
    shift_x, shift_y = int(rng.integers(-8, 9)), int(rng.integers(2, 12))
    cast = np.zeros_like(above)
    source = above[: height - shift_y, max(0, -shift_x) : width - max(0, shift_x)]
    cast[shift_y:, max(0, shift_x) : width - max(0, -shift_x)] = source * np.uint8(255)
    soft = cv2.blur(cv2.blur(cast, (9, 9)), (9, 9)) * np.float32(rng.uniform(0, 0.5) / 255)
    shadow: Level = 1 - soft * (1 - above).astype(np.float32)
    return shadow


def _photograph(image: Level, rng: np.random.Generator) -> Image:
    """Blur of the lens, and noise of the sensor (in brightness); H×W×3, from 0 up, to 0..255."""
    height, width, _ = image.shape
    # OpenCV's saturating arithmetic on whole numbers: a third of the time of numpy's clip, and exact everywhere.
    blurred = cv2.GaussianBlur(cv2.convertScaleAbs(image), (3, 3), float(rng.uniform(0.4, 0.8)))
    noise = rng.standard_normal((height, width), np.float32) * np.float32(rng.uniform(2, 7))
    whole = np.rint(noise).astype(np.int16)
    noisy = cv2.add(blurred, cv2.merge([whole, whole, whole]), dtype=cv2.CV_8U)
    return noisy.astype(np.uint8, copy=False)
