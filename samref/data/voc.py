"""`pascal_voc`: the objects of PASCAL VOC 2012's segmentation (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/).

Expects JPEGImages/*.jpg, SegmentationObject/*.png and ImageSets/Segmentation/SPLIT.txt in DATA_ROOT/PascalVOC, or
deeper in it where the archive puts them. One sample is one object of a PNG; border pixels (255, "void") are ignored.
RITM's evaluation takes 3417 of val's objects from a list of its own, which VOC does not publish.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samref.data.archives import how_to_get
from samref.data.files import ObjectMask
from samref.data.listed import Listed
from samref.data.sample import DataError, Truth
from samref.image_files import read_image

SOURCE = how_to_get("pascal_voc")
PLACES = (".", "VOC2012", "VOCdevkit/VOC2012")
"""Where JPEGImages/ lies under PascalVOC/: as `samref-data download` unpacks it, or as the archive has it."""
VOID = 255
"""The border around objects, which counts for nothing."""

# VOC's palette: bit 0 of an index is red's highest bit, bit 1 green's, bit 2 blue's, bit 3 red's next one.
_SPREAD = np.array([sum((value >> (7 - bit) & 1) << (3 * bit) for bit in range(8)) for value in range(256)], np.int32)


class PaletteMask(ObjectMask):
    """One object of a SegmentationObject PNG, by its index of the palette."""

    kind, what = "SegmentationObject", "object"

    def read(self) -> Truth:
        indices = read_indices(self.file)
        return np.asarray(indices == self.number, np.int8) - np.asarray(indices == VOID, np.int8)


def read_indices(file: Path) -> NDArray[np.int32]:
    """Read a PNG in VOC's palette, H×W: 0 background, then the objects' numbers, 255 void.

    Raises DataError: it cannot be read, or has colours that are not of that palette.
    """
    colours = read_image(file)
    indices = _SPREAD[colours[..., 0]] | _SPREAD[colours[..., 1]] << 1 | _SPREAD[colours[..., 2]] << 2
    if (indices > VOID).any():
        y, x = np.argwhere(indices > VOID)[0]
        raise DataError(
            f"{file}: its colour {tuple(int(value) for value in colours[y, x])} at x {x}, y {y} is not of PASCAL VOC's "
            f"palette; get SegmentationObject/ as published ({SOURCE})"
        )
    return indices


def _objects(file: Path) -> list[int]:
    return [int(number) for number in np.flatnonzero(np.bincount(read_indices(file).ravel())) if 0 < number < VOID]


PASCAL_VOC = Listed(
    root="PascalVOC",
    places=PLACES,
    images="JPEGImages",
    objects="SegmentationObject",
    suffix=".png",
    list_file="ImageSets/Segmentation/{split}.txt",
    needs="JPEGImages/, SegmentationObject/ and ImageSets/Segmentation/{list}",
    elsewhere=f"{PLACES[-1]}/",
    source=SOURCE,
    numbers=_objects,
    mask=PaletteMask,
)
"""A few seconds to open, in which every PNG of the split is read."""
