"""Clicks that are drawn: beside the deepest pixel of the larger error, or anywhere in it.

Stress tests of a model, and no model of people: RClicks (Antonov et al., NeurIPS 2024) measured that clicks drawn
uniformly, or by distance, agree little with those that people make. The larger error is found by RITM's rule, which
also decides the sign of the click.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from samref import pixel_loops
from samref.clicks import Click, Errors, Rng
from samref.pixel_loops import MISSING

DRAWN = ("jitter", "uniform", "distance")
_TRIES = 100


def draw(
    wrong: Errors,
    clicks: Sequence[Click],
    clicker: str,
    rng: Rng,
    *,
    noise_px: float = 0.0,
    mass: tuple[float, float] = (0.0, 1.0),
) -> Click | None:
    """Draw the next click; None where nothing is wrong, or every wrong pixel has been clicked.

    Args:
        wrong: where the mask is wrong.
        clicks: those that were made, none of which is made again.
        clicker: `jitter` is the pixel that `ritm` clicks, moved by normal noise in x and in y, within the image; so it
            may lie outside of the error, and keeps its sign. `uniform` gives every pixel of the larger error the
            same chance, `distance` one in proportion to its depth, the distance to the nearest pixel that is not wrong.
        rng: what is drawn depends on it alone.
        noise_px: standard deviation of the noise.
        mass: of `distance`: the pixels are sorted by their chance, the smallest first, and only those between these two
            shares of the chances' sum are drawn, so (0.9, 1.0) are the deepest ones (RClicks' slices).
    """
    clicked = np.array([(click.x, click.y) for click in clicks], np.int64).reshape(-1, 2)
    kind, peak, place = pixel_loops.deepest(wrong.kind_HW, clicked)
    if not peak:
        return None
    if clicker != "jitter":
        x, y = _by_chance(wrong.kind_HW == kind, clicks, mass, rng, uniform=clicker == "uniform")
        return Click(x, y, kind == MISSING)
    height, width = wrong.kind_HW.shape
    y, x = divmod(place, width)
    made = {(click.x, click.y) for click in clicks}
    for _ in range(_TRIES):
        moved = np.rint(np.array([x, y]) + noise_px * rng.standard_normal(2)).clip(0, (width - 1, height - 1))
        if (at := (int(moved[0]), int(moved[1]))) not in made:
            return Click(*at, kind == MISSING)
    return Click(x, y, kind == MISSING)


def _by_chance(
    error_HW: NDArray[np.bool_], clicks: Sequence[Click], mass: tuple[float, float], rng: Rng, *, uniform: bool
) -> tuple[int, int]:
    x0, y0, width, height = cv2.boundingRect(error_HW.view(np.uint8))
    # Within a ring of zeros, as what is outside counts as right.
    ringed = cv2.copyMakeBorder(
        error_HW[y0 : y0 + height, x0 : x0 + width].view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT
    )
    depth_hw = cv2.distanceTransform(ringed, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    squared = np.rint(np.square(depth_hw, dtype=np.float64))  # whole, whatever the last bit of a root
    for click in clicks:
        if 0 <= click.x - x0 < width and 0 <= click.y - y0 < height:
            squared[click.y - y0, click.x - x0] = 0
    places = np.flatnonzero(squared)
    if not uniform:
        places = places[np.argsort(squared.flat[places], kind="stable")]
    chances = np.cumsum(np.ones(len(places)) if uniform else np.sqrt(squared.flat[places]))
    share = mass[0] + (mass[1] - mass[0]) * rng.random()
    index = min(int(np.searchsorted(chances, share * chances[-1], side="right")), len(places) - 1)
    y, x = divmod(int(places[index]), width)
    return x0 + x, y0 + y
