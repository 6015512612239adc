"""samref.refiner.windows: FocalClick's windows, and the components of masks that they are made of."""

import cv2
import numpy as np
import pytest

from samref.clicks import Click
from samref.refiner.windows import component, focus_window, focus_windows


def square(size, left, top, right, bottom):
    mask = np.zeros((size, size), np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


@pytest.mark.parametrize(
    ("refined", "previous", "click", "window"),
    [
        # First click: the object's box, 20 px expanded by 1.4 to 28.
        (square(100, 40, 40, 60, 60), square(100, 0, 0, 0, 0), Click(50, 50, True), (36, 36, 64, 64)),
        # The change that holds the click, though another one is larger.
        (
            square(100, 0, 0, 40, 40) | square(100, 50, 50, 100, 100),
            square(100, 60, 60, 61, 61),
            Click(10, 10, True),
            (0, 0, 48, 48),
        ),
        # No change: the object's box.
        (square(100, 40, 40, 60, 60), square(100, 40, 40, 60, 60), Click(5, 5, False), (36, 36, 64, 64)),
        # A small change: a square of 2·0.2·60 + 1 px around the click, expanded.
        (
            square(100, 20, 20, 80, 80),
            square(100, 20, 20, 80, 80) - square(100, 50, 50, 52, 52),
            Click(50, 50, True),
            (33, 33, 68, 68),
        ),
        # Under 10 px there is no object to frame: the whole image.
        (square(100, 0, 0, 3, 3), square(100, 0, 0, 0, 0), Click(1, 1, True), (0, 0, 100, 100)),
    ],
)
def test_focus_window(refined, previous, click, window):
    assert focus_window(refined, previous, click.x, click.y) == window


def test_the_component_of_a_pixel_is_opencvs_flood() -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        height, width = rng.integers(1, 70, 2)
        image = (rng.random((height, width)) < rng.choice([0.02, 0.3, 0.45, 0.6, 1])).astype(np.uint8)
        for y, x in rng.permutation(np.argwhere(image))[:3]:
            left, top, width, height = cv2.floodFill(image.copy(), None, (int(x), int(y)), 2, flags=8)[3]
            assert component(image, int(x), int(y)) == (left, top, left + width, top + height)


def test_the_largest_component_is_opencvs_among_equals_too() -> None:
    rng = np.random.default_rng(0)
    for trial in range(600):
        height, width = rng.integers(1, 70, 2)
        image = (rng.random((height, width)) < rng.choice([0.003, 0.02, 0.1, 0.3, 0.5, 0.7])).astype(np.uint8)
        if trial % 3 == 0:
            image = cv2.resize(image, (int(3 * width), int(3 * height)), interpolation=cv2.INTER_NEAREST)
        outside = np.argwhere(image.T == 0)
        if image.any() and len(outside):
            outside = outside[rng.integers(len(outside))]
            stats = cv2.connectedComponentsWithStats(image, connectivity=8)[2]
            left, top, width, height, _ = stats[1 + stats[1:, cv2.CC_STAT_AREA].argmax()]
            assert component(image, *map(int, outside)) == (left, top, left + width, top + height)


def test_the_windows_of_a_batch_are_scaled_to_each_frame() -> None:
    refined = np.stack([square(64, 10, 20, 30, 50), square(64, 5, 5, 60, 40)])
    previous = np.stack([square(64, 0, 0, 0, 0), square(64, 5, 5, 60, 30)])
    batch = refined, previous, np.array([[100, 200], [300, 350]]), np.array([[640, 320], [600, 500]])
    found = focus_windows(*batch)
    assert np.array_equal(focus_windows(*(np.concatenate([each] * 20) for each in batch)), np.concatenate([found] * 20))
    first = focus_window(refined[0], previous[0], 20, 20)
    second = focus_window(refined[1], previous[1], 38, 37)
    assert found[0].tolist() == [side * scale for side, scale in zip(first, (5, 10, 5, 10), strict=True)]
    left, top, right, bottom = second
    assert found[1].tolist() == [
        int(left * 500 / 64), int(top * 600 / 64), -int(-right * 500 // 64), min(600, -int(-bottom * 600 // 64))
    ]  # fmt: skip
