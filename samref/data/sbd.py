"""`sbd`: the Semantic Boundaries Dataset (http://home.bharathh.info/pubs/codes/SBD/download.html).

Expects img/*.jpg, inst/*.mat and SPLIT.txt (one image a line) in DATA_ROOT/SBD, or deeper in it where the archive puts
them. One sample is one instance, in both splits: as in RITM's evaluation nothing is filtered (its training leaves out
instances that fill less than 8 % of their box).
"""

from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from samref.data.archives import how_to_get
from samref.data.files import ObjectMask
from samref.data.listed import Listed
from samref.data.sample import DataError, Split, Truth

SOURCE = how_to_get("sbd")

PUBLISHED: dict[Split, int | None] = {"train": 20172, "val": 6671}
"""The objects of 8498 and 2857 images (RITM, https://arxiv.org/abs/2102.06583)."""

PLACES = (".", "dataset", "benchmark_RELEASE/dataset")
"""Where img/ and inst/ lie under SBD/: by hand, as RITM's instructions have it, as the archive has it."""


class InstanceMask(ObjectMask):
    """One instance of a .mat, by its value in `GTinst.Segmentation`."""

    kind, what = "GTinst", "instance"

    def read(self) -> Truth:
        return np.asarray(read_segmentation(self.file) == self.number, np.int8)


def _instances(file: Path) -> list[int]:
    # Three times as fast as np.unique, which sorts.
    return [int(value) for value in np.flatnonzero(np.bincount(read_segmentation(file).ravel())) if value]


def read_segmentation(file: Path) -> NDArray[np.uint8]:
    """H×W: 0 background, then the instances' numbers. DataError if unreadable."""
    # Imported here: SciPy takes a third of a second, which only who asks for SBD should pay.
    from scipy.io import loadmat  # type: ignore[import-untyped]

    try:
        segmentation = loadmat(file, variable_names=["GTinst"])["GTinst"]["Segmentation"][0, 0]
    # SciPy's reader lets whatever a broken byte leads to pass: OSError, ValueError, zlib.error, its own MatReadError.
    except Exception as error:
        raise DataError(
            f"{file}: no GTinst.Segmentation can be read ({type(error).__name__}: {error}); get it again from {SOURCE}"
        ) from error
    if segmentation.ndim != 2 or segmentation.dtype.kind not in "ui":
        raise DataError(
            f"{file}: GTinst.Segmentation is {segmentation.dtype} of {segmentation.ndim} dimensions instead of whole "
            f"numbers in two; get it again from {SOURCE}"
        )
    return cast("NDArray[np.uint8]", segmentation)


SBD = Listed(
    root="SBD",
    places=PLACES,
    images="img",
    objects="inst",
    suffix=".mat",
    list_file="{split}.txt",
    needs="img/, inst/ and {list}",
    elsewhere="dataset/, benchmark_RELEASE/dataset/",
    source=SOURCE,
    numbers=_instances,
    mask=InstanceMask,
)
"""2 to 3 s to open for val, in which every .mat of the split is read; zlib lets other threads work meanwhile."""
