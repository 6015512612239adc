"""Write tests/golden/clicks.json: click sequences of the published rule, worked out without OpenCV.

`python tests/golden/regenerate_clicks.py` writes the file anew; the test compares samref.clicks with it
exactly. Each case is a truth, a mask that stays as it is, and the clicks placed on it one after another until
nothing is wrong or MOST_CLICKS are made. Distances are taken pair by pair and compared as whole squares, so
nothing is rounded.

`clicks` are those of the RITM line. `interformer` are the pixels among which that clicker draws, at each click, if
the first of them is taken every time.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

CASES = 24
MOST_CLICKS = 8
SIGNS = {1: "#", 0: ".", -1: "?"}
DRAWN = {
    "a hole in the object": (["#########"] * 4 + ["####.####"] + ["#########"] * 4, ["........."] * 9),
    "a hole in the error": (["#########"] * 9, ["........."] * 4 + ["....#...."] + ["........."] * 4),
    "two equal errors of one kind": (["###...###"] * 3, ["........."] * 3),
    "equal errors of both kinds": (["###......"] * 3, ["......###"] * 3),
    "the extra one is deeper": (["##......."] * 3, ["......###"] * 3),
    "every border": (["#######"] * 5, ["......."] * 5),
    "a corner": (["##....."] * 2 + ["......."] * 3, ["......."] * 5),
    "one pixel of the object": (["....", "..#.", "...."], ["....", "....", "...."]),
    "one pixel of the background": (["....", "....", "...."], ["....", ".#..", "...."]),
    "an image of one pixel": (["#"], ["."]),
    "ignored pixels cut an error in two": (["####?####"] * 5, ["........."] * 5),
    "an error on ignored pixels alone": (["?????", "??#??", "?????"], ["#####", "#####", "#####"]),
    "nothing is wrong": (["##..", "##.?"], ["##..", "##.#"]),
    "two pixels, and then everything is clicked": (["#..#"], ["...."]),
}


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
    return play(truth, mask)


def drawn_case(truth_rows: list[str], mask_rows: list[str]) -> dict[str, object]:
    """The same from a picture."""
    values = {sign: value for value, sign in SIGNS.items()}
    truth = np.array([[values[sign] for sign in row] for row in truth_rows], np.int8)
    return play(truth, np.array([[sign == "#" for sign in row] for row in mask_rows]))


def interformer_choices(truth: np.ndarray, mask: np.ndarray, not_clicked: np.ndarray) -> list[tuple[int, int, bool]]:
    """InterFormer's rule: clicked pixels are cut out before distances are taken; all pixels of the largest one."""
    distances = [
        squared_distances(np.pad(wrong & not_clicked, 1))[1:-1, 1:-1]
        for wrong in ((truth == 1) & ~mask, (truth == 0) & mask)
    ]
    positive = bool(distances[0].max() > distances[1].max())
    distance = distances[0 if positive else 1]
    if distance.max() == 0:
        return []
    return [(int(x), int(y), positive) for y, x in zip(*np.nonzero(distance == distance.max()), strict=True)]


def play(truth: np.ndarray, mask: np.ndarray) -> dict[str, object]:
    """Click by click, until nothing is wrong or MOST_CLICKS are made."""
    not_clicked = np.ones(truth.shape, bool)
    clicks = []
    while len(clicks) < MOST_CLICKS and (click := published_click(truth, mask, not_clicked)) is not None:
        clicks.append(click)
        not_clicked[click[1], click[0]] = False
    not_clicked = np.ones(truth.shape, bool)
    drawn: list[list[tuple[int, int, bool]]] = []
    while len(drawn) < MOST_CLICKS and (choices := interformer_choices(truth, mask, not_clicked)):
        drawn.append(choices)
        not_clicked[choices[0][1], choices[0][0]] = False

    def written(click: tuple[int, int, bool]) -> str:
        return f"{click[0]} {click[1]} {'+' if click[2] else '-'}"

    return {
        "truth": ["".join(SIGNS[int(value)] for value in row) for row in truth],
        "mask": ["".join("#" if value else "." for value in row) for row in mask],
        "clicks": [written(click) for click in clicks],
        "finished": len(clicks) < MOST_CLICKS,
        "interformer": [", ".join(written(click) for click in choices) for choices in drawn],
    }


def main() -> None:
    """Write the file."""
    target = Path(__file__).with_name("clicks.json")
    cases = {name: drawn_case(*rows) for name, rows in DRAWN.items()}
    cases |= {f"random {seed}": case(seed) for seed in range(CASES)}
    target.write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
