"""The names of all dataset families. To add one: write its file, and its line here."""

import difflib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from samref import plugins
from samref.data import coco, davis585, hqseg, own, ritm_masks, sbd, voc
from samref.data.pairs import BERKELEY, COCO_MVAL, DAVIS, ECSSD, GRABCUT, open_folder
from samref.data.sample import DataError, Dataset, Family, Request, Sample, Split
from samref.data.shapes import open_shapes

BOTH: dict[Split, int | None] = {"train": None, "val": None}
"""Two splits without a published number: for COCO no paper tells how many objects `coco.MIN_AREA_PX` leaves."""

FAMILIES: dict[str, Family] = {
    "berkeley": Family(open=BERKELEY.open, source=BERKELEY.source, published={"val": 100}),
    "coco": Family(open=coco.open_coco, source=coco.SOURCE, published=BOTH),
    "coco_lvis": Family(open=coco.open_coco_lvis, source=coco.LVIS_SOURCE, published=BOTH),
    "coco_lvis_ritm": Family(open=ritm_masks.open_coco_lvis_ritm, source=ritm_masks.SOURCE, published={"train": None}),
    "coco_mval": Family(open=COCO_MVAL.open, source=COCO_MVAL.source, published={"val": 800}),
    "coco_tiny": Family(open=coco.open_coco_tiny, source=coco.TINY_SOURCE, published={"train": None}),
    "davis": Family(open=DAVIS.open, source=DAVIS.source, published={"val": 345}),
    "davis585": Family(open=davis585.open_davis585, source=davis585.SOURCE, published={"val": 585}),
    "ecssd": Family(open=ECSSD.open, source=ECSSD.source, published={"train": 1000}),
    "folder:NAME": Family(open=open_folder, source="your own images/ and masks/ in DATA_ROOT/NAME", published={}),
    "grabcut": Family(open=GRABCUT.open, source=GRABCUT.source, published={"val": 50}),
    "hqseg44k": Family(open=hqseg.open_hqseg44k, source=hqseg.SOURCE, published=hqseg.PUBLISHED),
    "pascal_voc": Family(open=voc.PASCAL_VOC.open, source=voc.SOURCE, published=BOTH),
    "sbd": Family(open=sbd.SBD.open, source=sbd.SOURCE, published=sbd.PUBLISHED),
    "shapes": Family(open=open_shapes, source="drawn on the fly, nothing to get", published=BOTH),
}
"""All families; a name with a colon takes an argument after it."""

CHECK_THREADS = 2


def names() -> list[str]:
    """The names that `open_dataset` knows, sorted; NAME stands for the user's own."""
    return sorted(FAMILIES)


def open_dataset(
    name: str, *, split: Split, data_root: Path, samples: int | None = None, cache: Path | None = None
) -> Dataset:
    """Open a dataset: list and pair its files, decode nothing.

    split: only families with published splits (shapes, COCO) differ in it, and folders with `?split=`. samples: at most
    that many, evenly spaced over the sorted dataset; None: all. cache: folder that keeps file hashes for `fingerprint`.
    Raises DataError for an unknown name and unpaired files, MissingDataError for missing ones.
    """
    argument = name.partition(":")[2]
    request = Request(name=name, argument=argument, split=split, data_root=data_root, samples=samples, cache=cache)
    try:
        return family_of(name).open(request)
    # Folders that may not be listed, names that no file can have, lists of names in another encoding.
    except (OSError, UnicodeError) as error:
        where = getattr(error, "filename", None) or name
        raise DataError(f"{where}: cannot be read ({getattr(error, 'strerror', None) or error}); restore it") from None


def check_name(name: str) -> None:
    """Refuse a dataset that there is not, or one of a person's own that cannot be called; nothing is opened."""
    if family_of(name).open is own.open_own:
        plugins.bind(name, Request(name=name, argument="", split="val", data_root=Path(), samples=None, cache=None))


def family_of(name: str) -> Family:
    """The family of a dataset's name; DataError, with the nearest name, where there is none."""
    family, colon, _ = name.partition(":")
    key = f"{family}:NAME" if colon else family
    if key not in FAMILIES and plugins.is_plugin(name):
        return Family(open=own.open_own, source="a plug-in", published={})
    if key not in FAMILIES:
        near = difflib.get_close_matches(key, FAMILIES, n=1)
        suggestion = f" Did you mean {near[0]}?" if near else ""
        raise DataError(f"{name} is not a dataset.{suggestion} There are: {', '.join(names())}.")
    return FAMILIES[key]


def check(dataset: Dataset, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
    """Read every image and mask, in two threads; DataError of the first broken one in the dataset's order.

    progress: told after each image how many were read, of how many.
    """

    def read(of_image: list[Sample]) -> None:
        dataset.image(of_image[0].image_key)
        for sample in of_image:
            dataset.truth(sample.key)

    by_image: dict[str, list[Sample]] = {}
    for sample in dataset.samples:
        by_image.setdefault(sample.image_key, []).append(sample)
    with ThreadPoolExecutor(CHECK_THREADS, thread_name_prefix="check") as pool:
        try:
            for done, _ in enumerate(pool.map(read, by_image.values()), start=1):
                progress(done, len(by_image))
        except DataError:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
