"""A metric: how many of the clicks are on background, of all samples.

metrics: [./metric.py:negative_share, noc_at_80]
"""

import numpy as np


def negative_share(clicks):
    """A number of all clicks, which come as columns with one entry a click.

    sample (index), sample_key, click (from 1), x, y, positive, iou, boundary_iou, pasted_on, error_ratio.
    """
    return np.mean(~clicks["positive"])
