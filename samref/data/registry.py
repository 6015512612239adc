"""The names of all dataset families. To add one: write its file, and its line here."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from samref.data.coco import open_coco_tiny
from samref.data.pairs import BERKELEY, DAVIS, ECSSD, GRABCUT, open_folder
from samref.data.sample import DataError, Dataset, Request, Sample, Split
from samref.data.shapes import open_shapes

FAMILIES: dict[str, Callable[[Request], Dataset]] = {
    "berkeley": BERKELEY.open,
    "coco_tiny": open_coco_tiny,
    "davis": DAVIS.open,
    "ecssd": ECSSD.open,
    "folder:NAME": open_folder,
    "grabcut": GRABCUT.open,
    "shapes": open_shapes,
}
"""Opener of each family; a name with a colon takes an argument after it."""

CHECK_THREADS = 2


def names() -> list[str]:
    """The names that `open_dataset` knows, sorted; NAME stands for the user's own."""
    return sorted(FAMILIES)


def open_dataset(
    name: str, *, split: Split, data_root: Path, samples: int | None = None, cache: Path | None = None
) -> Dataset:
    """Open a dataset: list and pair its files, decode nothing.

    split: only families with published splits (shapes, COCO) differ in it. samples: that many, evenly spaced
    over the sorted dataset; None: all. cache: folder that keeps file hashes for `fingerprint`.
    Raises DataError for an unknown name, missing or unpaired files, and more samples than there are.
    """
    family, colon, argument = name.partition(":")
    key = f"{family}:NAME" if colon else family
    if key not in FAMILIES:
        near = difflib.get_close_matches(key, FAMILIES, n=1)
        suggestion = f" Did you mean {near[0]}?" if near else ""
        raise DataError(f"{name} is not a dataset.{suggestion} There are: {', '.join(names())}.")
    return FAMILIES[key](
        Request(name=name, argument=argument, split=split, data_root=data_root, samples=samples, cache=cache)
    )


def check(dataset: Dataset) -> None:
    """Read every image and mask, in two threads; DataError of the first broken one in the dataset's order."""

    def read(of_image: list[Sample]) -> None:
        dataset.image(of_image[0].image_key)
        for sample in of_image:
            dataset.truth(sample.key)

    by_image: dict[str, list[Sample]] = {}
    for sample in dataset.samples:
        by_image.setdefault(sample.image_key, []).append(sample)
    with ThreadPoolExecutor(CHECK_THREADS, thread_name_prefix="check") as pool:
        try:
            for _ in pool.map(read, by_image.values()):
                pass
        except DataError:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
