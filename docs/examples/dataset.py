"""A dataset: discs and squares on a plane background, two objects an image.

evaluate: {data: "./dataset.py:open_pairs?images=4"}
"""

import numpy as np

from samref.data import Sample

SIDE_PX = 96


class Pairs:
    def __init__(self, images, samples):
        names = [f"{number:03d}" for number in range(images)]
        self.samples = [Sample(f"{name}-{kind}", name) for name in names for kind in ("disc", "square")]

    def image(self, image_key):
        image = np.full((SIDE_PX, SIDE_PX, 3), 40, np.uint8)
        image[self.truth(f"{image_key}-disc") == 1] = (200, 80, 80)
        image[self.truth(f"{image_key}-square") == 1] = (80, 80, 200)
        return image

    def truth(self, key):
        name, _, kind = key.partition("-")
        x, y, size = np.random.default_rng(int(name)).integers((20, 20, 8), (SIDE_PX - 20, SIDE_PX - 20, 16))
        rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX]
        if kind == "disc":
            inside = (columns - x) ** 2 + (rows - y) ** 2 < size**2
        else:  # in the opposite corner
            inside = np.maximum(abs(columns - (SIDE_PX - x)), abs(rows - (SIDE_PX - y))) < size / 2
        return inside.astype(np.int8)


def open_pairs(request, images=6):
    """`request` says which split is asked for, how many samples, and where data is: samref.data.Request."""
    return Pairs(images, request.samples)
