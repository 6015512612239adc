"""`pascal_voc`: the objects of PASCAL VOC 2012's segmentation (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/).

Expects JPEGImages/*.jpg, SegmentationObject/*.png and ImageSets/Segmentation/SPLIT.txt in DATA_ROOT/PascalVOC, or
deeper in it where the archive puts them. One sample is one object of a PNG; border pixels (255, "void") are ignored.
RITM's evaluation takes 3417 of val's objects from a list of its own, which VOC does not publish.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samref.data.archives import how_to_get
from samref.data.files import FileDataset
from samref.data.hashes import FileHashes
from samref.data.layouts import hint
from samref.data.sample import DataError, Dataset, MissingDataError, Request, Sample, Truth, evenly_spaced
from samref.image_files import read_image

SOURCE = how_to_get("pascal_voc")
PLACES = (".", "VOC2012", "VOCdevkit/VOC2012")
"""Where JPEGImages/ lies under PascalVOC/: as `samref-data download` unpacks it, or as the archive has it."""
VOID = 255
"""The border around objects, which counts for nothing."""

# VOC's palette: bit 0 of an index is red's highest bit, bit 1 green's, bit 2 blue's, bit 3 red's next one.
_SPREAD = np.array([sum((value >> (7 - bit) & 1) << (3 * bit) for bit in range(8)) for value in range(256)], np.int32)


def open_pascal_voc(request: Request) -> Dataset:
    """Open the dataset. Every PNG of the split is read, for only they tell the objects: a few seconds."""
    root = request.data_root / "PascalVOC"
    folder = next((root / place for place in PLACES if (root / place / "SegmentationObject").is_dir()), root)
    listed = folder / "ImageSets" / "Segmentation" / f"{request.split}.txt"
    for needed in (folder / "JPEGImages", folder / "SegmentationObject", listed):
        if not needed.exists():
            raise MissingDataError(
                f"{needed}: does not exist; {request.name} ({request.split}) needs JPEGImages/, SegmentationObject/ "
                f"and ImageSets/Segmentation/{listed.name} in {root} (or its {PLACES[-1]}/): get it from {SOURCE}, "
                f"or set the data root{hint(root, request.name)}"
            )
    stems = sorted(set(listed.read_text(encoding="utf-8", errors="replace").split()))
    if not stems:
        raise DataError(f"{listed}: names no images; get it from {SOURCE}")
    files = {stem: (folder / "JPEGImages" / f"{stem}.jpg", _mask_file(folder, stem)) for stem in stems}
    present = {path for kind in ("JPEGImages", "SegmentationObject") for path in (folder / kind).iterdir()}
    lost = [path for pair in files.values() for path in pair if path not in present]
    if lost:
        raise MissingDataError(
            f"{lost[0]}: this and {len(lost) - 1} more files that {listed.name} names are not there; {SOURCE}"
        )
    with ThreadPoolExecutor(2, thread_name_prefix="voc") as pool:
        objects = dict(zip(stems, pool.map(lambda stem: _objects(files[stem][1]), stems), strict=True))
    every = [(Sample(f"{stem}#{number:03d}", stem), number) for stem in stems for number in objects[stem]]
    chosen = evenly_spaced(every, request.samples, request.name)
    return FileDataset(
        name=request.name,
        samples=tuple(sample for sample, _ in chosen),
        image_files={sample.image_key: files[sample.image_key][0] for sample, _ in chosen},
        masks={sample.key: ObjectMask(files[sample.image_key][1], number) for sample, number in chosen},
        cache=request.cache,
    )


@dataclass(frozen=True, slots=True)
class ObjectMask:
    """One object of a SegmentationObject PNG."""

    file: Path
    number: int
    """Its index of the palette."""

    @property
    def place(self) -> str:
        """The file and the object, for messages."""
        return f"{self.file}: object {self.number}"

    def read(self) -> Truth:
        """Read the mask, H×W int8: 1 object, 0 background and other objects, -1 void."""
        indices = read_indices(self.file)
        truth: Truth = (indices == self.number).astype(np.int8) - (indices == VOID).astype(np.int8)
        return truth

    def content(self, hashes: FileHashes) -> str:
        """Hash all that `read` depends on."""
        return f"SegmentationObject:{self.number}:{hashes.of(self.file)}"


def read_indices(file: Path) -> NDArray[np.int32]:
    """Read a PNG in VOC's palette, H×W: 0 background, then the objects' numbers, 255 void.

    Raises:
        DataError: it cannot be read, or has colours that are not of that palette.
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


def _mask_file(folder: Path, stem: str) -> Path:
    return folder / "SegmentationObject" / f"{stem}.png"


def _objects(file: Path) -> list[int]:
    return [int(number) for number in np.flatnonzero(np.bincount(read_indices(file).ravel())) if 0 < number < VOID]
