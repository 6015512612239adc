"""Drawn scenes for the tests of clicks: a truth, a mask and earlier clicks."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from samref.clicks import Click

Scene = tuple[NDArray[np.int8], NDArray[np.bool_], list[Click]]


def draw_scene(seed: int, height: int, width: int) -> Scene:
    """A truth with ignored pixels, a mask that is partly wrong, and clicks on arbitrary pixels."""
    rng = np.random.default_rng(seed)

    def region() -> NDArray[np.bool_]:
        canvas = np.zeros((height, width), np.uint8)
        for _ in range(rng.integers(0, 4)):
            centre = (int(rng.integers(width)), int(rng.integers(height)))
            axes = (int(rng.integers(1, width + 1)) // 2, int(rng.integers(1, height + 1)) // 2)
            cv2.ellipse(canvas, centre, axes, float(rng.uniform(0, 180)), 0, 360, int(rng.integers(2)), -1)
        return (canvas ^ (rng.random((height, width)) < rng.choice([0, 0.02, 0.5]))).astype(bool)

    truth = region().astype(np.int8)
    truth[region() & (rng.random((height, width)) < 0.2)] = -1
    clicks = [
        Click(int(rng.integers(width)), int(rng.integers(height)), bool(rng.integers(2)))
        for _ in range(rng.integers(0, 4))
    ]
    return truth, region(), clicks
