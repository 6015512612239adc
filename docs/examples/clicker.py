"""A clicker: somewhere within the larger error, each of its pixels as likely as another.

evaluate: {clicker: "./clicker.py:anywhere"}
"""

import numpy as np


def anywhere(truth_HW, mask_HW, clicks, rng):
    """(x, y, positive) of the next click, or None where nothing is left to click.

    truth_HW: 1 object, 0 background, -1 ignored; mask_HW: bools; clicks: those made, (x, y, positive) each; rng depends
    on the seed, the sample and the number of clicks alone.
    """
    missing, extra = (truth_HW == 1) & ~mask_HW, (truth_HW == 0) & mask_HW
    positive = np.count_nonzero(missing) >= np.count_nonzero(extra)
    ys, xs = np.nonzero(missing if positive else extra)
    if not len(xs):
        return None
    chosen = rng.integers(len(xs))
    return xs[chosen], ys[chosen], positive
