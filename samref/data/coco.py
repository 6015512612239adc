"""Datasets of COCO and LVIS annotations: polygons and run lengths, decoded here.

coco: FOLDER/annotations/instances_SPLIT2017.json. coco_lvis: FOLDER/annotations/lvis_v1_SPLIT.json on the same images.
The images are in FOLDER/train2017/ and FOLDER/val2017/. One sample is one annotated object; crowds (several objects in
one mask) are left out, and so are tiny objects.

COCO+LVIS is here LVIS v1's objects on COCO's images. RITM, whose name it is, merges both files and adds the COCO masks
that no LVIS mask covers; which ones only its published pickle tells, so they are left out. LVIS's val split has images
of both folders, most of them in train2017/: never evaluate on it what was trained on all of `coco`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from samref import run_lengths
from samref.data.annotations import Index, read_index, read_object
from samref.data.archives import ARCHIVES, how_to_get
from samref.data.files import FileDataset
from samref.data.hashes import FileHashes, digest
from samref.data.layouts import hint
from samref.data.sample import DataError, Dataset, MissingDataError, Request, Sample, Truth, evenly_spaced

MIN_AREA_PX = 1000
"""Objects of fewer annotated pixels are left out, as RITM does in training on COCO+LVIS (`min_object_area`):
below
about 32×32 px a polygon is wrong by a large share of its object, and a click hardly has room in it."""

SUPERSAMPLING = 4
"""Polygons are filled on a grid this much finer, a pixel being object where half of it is inside. OpenCV
fills the
outline too: on the pixel grid areas come out 4.4 % too large on average (over COCO's own `area`), on this one
1.7 %."""

SOURCE = how_to_get("coco")
LVIS_SOURCE = how_to_get("coco_lvis")
TINY_SOURCE = f"{ARCHIVES['coco'].page} (a cut of it that you make yourself, in DATA_ROOT/COCO_tiny)"


def open_coco_tiny(request: Request) -> Dataset:
    """`coco_tiny`: DATA_ROOT/COCO_tiny, any small cut of COCO in its published layout."""
    return _open(request, request.data_root / "COCO_tiny", f"instances_{request.split}2017.json", TINY_SOURCE)


def open_coco(request: Request) -> Dataset:
    """`coco`: DATA_ROOT/COCO, the whole of it."""
    return _open(request, request.data_root / "COCO", f"instances_{request.split}2017.json", SOURCE)


def open_coco_lvis(request: Request) -> Dataset:
    """`coco_lvis`: LVIS v1's objects on the images of DATA_ROOT/COCO."""
    return _open(request, request.data_root / "COCO", f"lvis_v1_{request.split}.json", LVIS_SOURCE)


def _open(request: Request, folder: Path, file: str, source: str) -> Dataset:
    """The dataset of `folder`/annotations/`file`, which is read and checked; no image is."""
    annotations = folder / "annotations" / file
    part = f"{request.split}2017"
    for needed in (annotations, folder / part):
        if not needed.exists():
            raise MissingDataError(
                f"{needed}: does not exist; {request.name} ({request.split}) needs annotations/{file} and {part}/ in "
                f"{folder}: get it from {source}, or set the data root{hint(folder, request.name)}"
            )
    index = read_index(annotations)
    # LVIS names an image by folder and file, COCO by file.
    image_files = {identity: _image_file(folder, part, image["name"]) for identity, image in index.images.items()}
    stems = {identity: path.stem for identity, path in image_files.items()}
    rows = {
        f"{stems[index.image_ids[row]]}#{index.identities[row]}": row
        for row, area in enumerate(index.areas)
        if area >= MIN_AREA_PX
    }
    if not rows:
        raise DataError(f"{annotations}: none of its {len(index.areas)} objects has {MIN_AREA_PX} pixels or more")
    _require_images({image_files[index.image_ids[row]] for row in rows.values()}, annotations, source)
    keys = evenly_spaced(sorted(rows), request.samples, request.name)
    samples = tuple(Sample(key, key.rpartition("#")[0]) for key in keys)
    chosen = [rows[key] for key in keys]
    return FileDataset(
        name=request.name,
        samples=samples,
        image_files={
            sample.image_key: image_files[index.image_ids[row]] for sample, row in zip(samples, chosen, strict=True)
        },
        masks={key: _mask(annotations, index, row) for key, row in zip(keys, chosen, strict=True)},
        cache=request.cache,
    )


def _image_file(folder: Path, part: str, name: str) -> Path:
    return folder / name if "/" in name else folder / part / name


def _require_images(files: set[Path], annotations: Path, source: str) -> None:
    # A folder is listed once: a hundred thousand single questions take minutes on a network disk.
    folders = {file.parent for file in files}
    present = {path for folder in folders if folder.is_dir() for path in folder.iterdir()}
    missing = sorted(files - present)
    if missing:
        raise MissingDataError(
            f"{missing[0].parent}: {len(missing)} images that {annotations.name} names are not there (first: "
            f"{missing[0].name}); get them from {source}"
        )


def _mask(annotations: Path, index: Index, row: int) -> CocoMask:
    image = index.images[index.image_ids[row]]
    return CocoMask(
        file=annotations,
        identity=index.identities[row],
        start=index.starts[row],
        length=index.lengths[row],
        height=image["height"],
        width=image["width"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoMask:
    """One annotation's segmentation, read from its place in the file when it is asked for."""

    file: Path
    identity: int
    """The annotation's id."""
    start: int
    length: int
    """Where its JSON lies in the file, in bytes."""
    height: int
    width: int

    @property
    def place(self) -> str:
        return f"{self.file}: annotation {self.identity}"

    def read(self) -> Truth:
        segmentation = self._segmentation()
        try:
            if isinstance(segmentation, list):
                return fill_polygons(segmentation, self.height, self.width)
            return decode_run_lengths(segmentation)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise DataError(
                f"{self.place}: its segmentation cannot be decoded ({error}); correct or remove it"
            ) from error

    def content(self, hashes: FileHashes) -> str:
        return digest([self._segmentation(), self.height, self.width])

    def _segmentation(self) -> Any:
        """List of polygons [x, y, x, y, …], or {"size": [H, W], "counts": list or compressed text}."""
        return read_object(self.file, self.start, self.length, self.identity)["segmentation"]


def fill_polygons(polygons: list[list[float]], height: int, width: int) -> Truth:
    """H×W int8: the union of the polygons, each x, y, x, y, … in pixels (0, 0 is the upper left corner's
    corner)."""
    truth = np.zeros((height, width), np.int8)
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"a polygon of {len(polygon)} numbers")
        corners = np.asarray(polygon, np.float64).reshape(-1, 2)
        # Only the polygon's own box is supersampled.
        x0, y0 = np.clip(np.floor(corners.min(axis=0)), 0, (width, height)).astype(int)
        x1, y1 = np.clip(np.ceil(corners.max(axis=0)), 0, (width, height)).astype(int)
        if x1 <= x0 or y1 <= y0:
            continue
        fine = np.zeros(((y1 - y0) * SUPERSAMPLING, (x1 - x0) * SUPERSAMPLING), np.uint8)
        # OpenCV's integers are pixel centres, COCO's are pixel corners: hence the half.
        cv2.fillPoly(fine, [np.rint((corners - (x0, y0)) * SUPERSAMPLING - 0.5).astype(np.int32)], 1)
        share = fine.reshape(y1 - y0, SUPERSAMPLING, x1 - x0, SUPERSAMPLING).sum(axis=(1, 3))
        truth[y0:y1, x0:x1] |= (2 * share >= SUPERSAMPLING**2).astype(np.int8)
    return truth


def decode_run_lengths(encoded: dict[str, Any]) -> Truth:
    """H×W int8 of COCO's run lengths (samref.run_lengths), or of its text of them."""
    height, width = encoded["size"]
    counts = encoded["counts"]
    runs = _uncompress(counts) if isinstance(counts, str) else counts
    return run_lengths.decode(height, width, runs).view(np.int8)


def _uncompress(text: str) -> list[int]:
    """Runs of COCO's compressed text: 6 bits a character from '0' (48), little end first, 5 of them data, bit
    5 "more
    follows", bit 4 of the last the sign; from the fourth on a run is a difference to the one two before."""
    runs: list[int] = []
    at = 0
    while at < len(text):
        value = shift = 0
        more = True
        while more:
            bits = ord(text[at]) - 48
            value |= (bits & 31) << shift
            more, shift, at = bool(bits & 32), shift + 5, at + 1
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs
