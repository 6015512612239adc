"""`coco_lvis_ritm`: RITM's COCO+LVIS, the masks that it merged of both, as published in pickles.

Expects SPLIT/hannotation.pickle and SPLIT/masks/IMAGE.pickle in DATA_ROOT/COCO_LVIS, with the images beside them in
SPLIT/images/, or in DATA_ROOT/COCO's train2017/ and val2017/. One sample is one instance (no "stuff"). Objects under
1000 pixels, which RITM's training leaves out, are in it: how large one is only its mask tells.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from samref.data.archives import how_to_get
from samref.data.files import FileDataset, ObjectMask
from samref.data.layouts import hint
from samref.data.plain_pickle import read_plain
from samref.data.sample import DataError, Dataset, MissingDataError, Request, Sample, Truth

SOURCE = how_to_get("coco_lvis_ritm")


def open_coco_lvis_ritm(request: Request) -> Dataset:
    """Open the dataset: its list is read, no mask and no image is."""
    root = request.data_root / "COCO_LVIS"
    folder = root / request.split
    listed = folder / "hannotation.pickle"
    for needed in (listed, folder / "masks"):
        if not needed.exists():
            raise MissingDataError(
                f"{needed}: does not exist; {request.name} ({request.split}) needs {request.split}/{listed.name} and "
                f"{request.split}/masks/ in {root}: get it from {SOURCE}, or set the data "
                f"root{hint(root, request.name)}"
            )
    every = list(_instances(listed))
    if not every:
        raise DataError(f"{listed}: names no objects; get it again from {SOURCE}")
    stems = {sample.image_key for sample, _ in every}
    present = {path.name for path in (folder / "masks").iterdir()}
    lost = sorted(f"{stem}.pickle" for stem in stems if f"{stem}.pickle" not in present)
    if lost:
        raise MissingDataError(
            f"{folder / 'masks' / lost[0]}: this and {len(lost) - 1} more masks are not there; {SOURCE}"
        )
    images = _images(request.data_root, folder, stems)
    return FileDataset.of(
        request,
        [
            (sample, images[sample.image_key], LayeredMask(folder / "masks" / f"{sample.image_key}.pickle", number))
            for sample, number in every
        ],
    )


def _instances(listed: Path) -> Iterator[tuple[Sample, int]]:
    """Samples and their instances' numbers, from {image: {"num_instance_masks": N, "hierarchy": {instance: …}}}."""
    annotations = read_plain(listed)
    if not isinstance(annotations, dict):
        raise DataError(f"{listed}: holds a {type(annotations).__name__} instead of images by name; get it again")
    for stem in sorted(annotations, key=str):
        entry = annotations[stem]
        instances = entry.get("hierarchy") if isinstance(entry, dict) else None
        named = isinstance(stem, str) and stem not in ("", ".", "..") and "/" not in stem and "\\" not in stem
        if (
            not named
            or not isinstance(instances, dict)
            or not all(type(number) is int and number >= 0 for number in instances)
        ):
            raise DataError(f"{listed}: its entry {str(stem)[:60]!r} names no image with a hierarchy; get it again")
        for number in sorted(instances):
            yield Sample(f"{stem}#{number:03d}", stem), number


def _images(data_root: Path, folder: Path, stems: set[str]) -> dict[str, Path]:
    places = (folder / "images", data_root / "COCO" / "train2017", data_root / "COCO" / "val2017")
    found = {path.stem: path for place in reversed(places) if place.is_dir() for path in place.glob("*.jpg")}
    lost = sorted(stems - found.keys())
    if lost:
        raise MissingDataError(
            f"{places[0]}: {len(lost)} of {len(stems)} images are neither there nor in {data_root / 'COCO'} (first: "
            f"{lost[0]}.jpg); get COCO's, {how_to_get('coco')}"
        )
    return found


class LayeredMask(ObjectMask):
    """One instance of an image's pickle: PNGs of layers, and for each instance its layer and its value there."""

    kind, what = "layers", "instance"

    def read(self) -> Truth:
        content = read_plain(self.file)
        try:
            layers, places = content
            layer, value = places[self.number]
            pixels: Any = cv2.imdecode(layers[layer], cv2.IMREAD_UNCHANGED)
            if pixels is None or pixels.ndim != 2:
                raise ValueError("its layer is no grey PNG")
        except (ValueError, TypeError, KeyError, IndexError, cv2.error) as error:
            raise DataError(
                f"{self.place}: holds no such mask ({' '.join(str(error).split())}); get it again from {SOURCE}"
            ) from error
        return np.asarray(pixels == value, np.int8)
