"""Sample and Dataset: what every dataset family gives, whatever its files look like."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from samref.errors import DataError as DataError

Image = NDArray[np.uint8]
Truth = NDArray[np.int8]
Split = Literal["train", "val"]
Item = TypeVar("Item")


class MissingDataError(DataError):
    """A dataset is not here, or not all of it; elsewhere it may be, so that a sweep can be planned without it."""


@dataclass(frozen=True)
class Sample:
    """One image with one object, by name; pixels are read by the dataset."""

    key: str
    """Unique in its dataset, stable across machines; e.g. the mask's stem."""
    image_key: str
    """Name of the image; samples of one image share it, and with it its embedding."""


class Pixels(NamedTuple):
    """The pixels of one sample."""

    image: Image  # H×W×3, RGB, 0..255
    truth: Truth  # H×W, 1 object, 0 background, -1 ignored


class Dataset(Protocol):
    """A named list of samples. Reading is thread-safe; every read checks what it reads (DataError)."""

    name: str
    samples: tuple[Sample, ...]

    def image(self, image_key: str) -> Image:
        """The image, H×W×3 uint8 RGB."""
        ...

    def truth(self, key: str) -> Truth:
        """The sample's mask, H×W int8: 1 object, 0 background, -1 ignored; of its image's size, with an object."""
        ...

    def notes(self) -> tuple[str, ...]:
        """What is odd about it, in words and counts: what was left out, and what was read by a rule of its own."""
        ...

    def fingerprint(self) -> str:
        """Hash of all that a result can depend on: the samples' names, order and file contents. No paths."""
        ...

    def image_digests(self) -> frozenset[str]:
        """The SHA-256 of each image's file, by which datasets tell what they share; empty where images are drawn."""
        ...


@dataclass(frozen=True, kw_only=True)
class Request:
    """What `open_dataset` was asked for, as a family's opener gets it."""

    name: str
    """The whole name, e.g. `davis` or `folder:mine`."""
    argument: str
    """What stands after the name's colon; empty without one."""
    split: Split
    data_root: Path
    samples: int | None
    cache: Path | None


@dataclass(frozen=True, kw_only=True)
class Family:
    """A line of the registry: how a dataset is opened, and what `samref-data` tells of it."""

    open: Callable[[Request], Dataset]
    source: str
    """Where to get the dataset."""
    published: Mapping[Split, int | None]
    """The family's splits and how many samples each has in the papers; None: no such number. Sets of one list name one
    split, though both open."""


def evenly_spaced(items: Sequence[Item], count: int | None, name: str) -> tuple[Item, ...]:
    """Take at most `count` of the items, evenly spaced over their order and beginning with the first; None: all.

    Datasets are sorted by file name and names tell the source (DAVIS: the video), so the first N would be one
    corner of the data. Raises DataError: the count is not 1 or more.
    """
    if count is None:
        return tuple(items)
    if count < 1:
        raise DataError(f"{name}: {count} samples were asked for; set samples to 1 or more, or to null for all")
    count = min(count, len(items))
    return tuple(items[index * len(items) // count] for index in range(count))
