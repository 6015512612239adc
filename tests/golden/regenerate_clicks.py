"""Write tests/golden/clicks.json: click sequences of the published rule, worked out without OpenCV.

`python tests/golden/regenerate_clicks.py` writes the file anew; the test compares samref.clicks with it
exactly. Each case is a truth, a mask that stays as it is, and the clicks placed on it one after another until
nothing is wrong or MOST_CLICKS are made. Distances are taken pair by pair and compared as whole squares, so
nothing is rounded.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

CASES = 24
MOST_CLICKS = 8
SIGNS = {1: "#", 0: ".", -1: "?"}


def squared_distances(inside: np.ndarray) -> np.ndarray:
    """For each pixel the squared distance to the nearest pixel outside, by looking at all of them."""
    rows, columns = np.nonzero(~inside)
    out = np.zeros(inside.shape, np.int64)
    for y, x in zip(*np.nonzero(inside), strict=True):
        out[y, x] = ((rows - y) ** 2 + (columns - x) ** 2).min()
    return out


def published_click(truth: np.ndarray, mask: np.ndarray, not_clicked: np.ndarray) -> tuple[int, int, bool] | None:
    """RITM's rule, step by step: (x, y, positive); None where it would click without an error."""
    false_negative = np.logical_and(np.logical_and(truth == 1, ~mask), truth != -1)
    false_positive = np.logical_and(np.logical_and(truth == 0, mask), truth != -1)
    negative_distance = squared_distances(np.pad(false_negative, 1))[1:-1, 1:-1] * not_clicked
    positive_distance = squared_distances(np.pad(false_positive, 1))[1:-1, 1:-1] * not_clicked
    is_positive = negative_distance.max() > positive_distance.max()
    distance = negative_distance if is_positive else positive_distance
    if distance.max() == 0:
        return None
    rows, columns = np.nonzero(distance == distance.max())
    return int(columns[0]), int(rows[0]), bool(is_positive)


def draw(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A few discs and boxes; at times they reach the border."""
    y, x = np.mgrid[:height, :width]
    out = np.zeros((height, width), bool)
    for _ in range(rng.integers(1, 4)):
        cy, cx, r = rng.integers(height), rng.integers(width), rng.integers(1, 9)
        out |= (
            (y - cy) ** 2 + (x - cx) ** 2 <= r * r
            if rng.random() < 0.5
            else (abs(y - cy) <= r) & (abs(x - cx) <= r // 2)
        )
    return out


def case(seed: int) -> dict[str, object]:
    """One case; some begin with an empty mask, some with ignored pixels."""
    rng = np.random.default_rng([2024, seed])
    height, width = rng.integers(5, 28, 2)
    truth = draw(rng, height, width).astype(np.int8)
    mask = np.zeros((height, width), bool) if seed % 4 == 0 else draw(rng, height, width)
    if seed % 3 == 0:
        truth[draw(rng, height, width) & (rng.random((height, width)) < 0.5)] = -1
    not_clicked = np.ones((height, width), bool)
    clicks = []
    while len(clicks) < MOST_CLICKS and (click := published_click(truth, mask, not_clicked)) is not None:
        clicks.append(click)
        not_clicked[click[1], click[0]] = False
    return {
        "truth": ["".join(SIGNS[int(value)] for value in row) for row in truth],
        "mask": ["".join("#" if value else "." for value in row) for row in mask],
        "clicks": [f"{x} {y} {'+' if positive else '-'}" for x, y, positive in clicks],
        "finished": len(clicks) < MOST_CLICKS,
    }


def main() -> None:
    """Write the file."""
    target = Path(__file__).with_name("clicks.json")
    target.write_text(json.dumps([case(seed) for seed in range(CASES)], indent=1) + "\n")


if __name__ == "__main__":
    main()
