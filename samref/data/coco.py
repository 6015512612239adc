"""Datasets of COCO and LVIS annotations: polygons and run lengths, decoded here.

coco: FOLDER/annotations/instances_SPLIT2017.json. coco_lvis: FOLDER/annotations/lvis_v1_SPLIT.json on the same images.
The images are in FOLDER/train2017/ and FOLDER/val2017/. One sample is one annotated object; crowds (several objects in
one mask) are left out, and so are tiny objects.

COCO+LVIS is here LVIS v1's objects on COCO's images. RITM, whose name it is, merges both files and adds the COCO masks
that no LVIS mask covers; which ones only its published pickles tell (`coco_lvis_ritm`), so here they are left out.
LVIS's val split has images of both folders, most of them in train2017/: never evaluate on it what was trained on all of
`coco`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from samref import run_lengths
from samref.data.annotations import MAX_SIDE_PX, Index, read_index, read_object
from samref.data.archives import ARCHIVES, how_to_get
from samref.data.files import FileDataset
from samref.data.hashes import FileHashes, digest
from samref.data.layouts import hint
from samref.data.sample import DataError, Dataset, MissingDataError, Request, Sample, Truth, evenly_spaced

MIN_AREA_PX = 1000
"""Objects of fewer annotated pixels are left out, as RITM does in training on COCO+LVIS (`min_object_area`): below
about 32×32 px a polygon is wrong by a large share of its object, and a click hardly has room in it."""

SUPERSAMPLING = 4
"""Polygons are filled on a grid this much finer, a pixel being object where half of it is inside. OpenCV fills the
outline too: on the pixel grid areas come out 4.4 % too large on average (over COCO's own `area`), on this one 1.7 %."""

WRONG_AREA = 2
"""An object is larger than annotated if its outline has this many times the annotated area; rounding makes 2 %."""

MAX_REACH_PX = 1 << 17
"""A polygon's corner is at most this far from the image; OpenCV fills along every row that an edge crosses."""

SOURCE = how_to_get("coco")
LVIS_SOURCE = how_to_get("coco_lvis")
TINY_SOURCE = f"{ARCHIVES['coco'].page} (a cut of it that you make yourself, in DATA_ROOT/COCO_tiny)"


def open_annotated(request: Request, *, folder: str, file: str, source: str) -> Dataset:
    """The dataset of DATA_ROOT/`folder`/annotations/`file`, which is read and checked; no image is."""
    root = request.data_root / folder
    annotations = root / "annotations" / file.format(split=request.split)
    part = f"{request.split}2017"
    for needed in (annotations, root / part):
        if not needed.exists():
            raise MissingDataError(
                f"{needed}: does not exist; {request.name} ({request.split}) needs annotations/{annotations.name} and "
                f"{part}/ in {root}: get it from {source}, or set the data root{hint(root, request.name)}"
            )
    index = read_index(annotations)
    rows, notes = _wanted(annotations, index)
    if not rows:
        raise DataError(f"{annotations}: none of its {len(index.areas)} objects has {MIN_AREA_PX} pixels or more")
    # LVIS names an image by folder and file, COCO by file.
    wanted = dict.fromkeys(index.image_ids[row] for row in rows)
    names = {identity: index.images[identity]["name"] for identity in wanted}
    files = {identity: root / (name if "/" in name else f"{part}/{name}") for identity, name in names.items()}
    _require_images(set(files.values()), annotations, source)
    image_keys = _image_keys(files, root)
    keyed = _by_key(annotations, index, rows, image_keys)
    keys = evenly_spaced(sorted(keyed), request.samples, request.name)
    every = [
        (Sample(key, image_keys[image]), files[image], _mask(annotations, index, keyed[key]))
        for key in keys
        for image in [index.image_ids[keyed[key]]]
    ]
    return FileDataset.of(request, every, notes)


open_coco = partial(open_annotated, folder="COCO", file="instances_{split}2017.json", source=SOURCE)
open_coco_lvis = partial(open_annotated, folder="COCO", file="lvis_v1_{split}.json", source=LVIS_SOURCE)
open_coco_tiny = partial(open_annotated, folder="COCO_tiny", file="instances_{split}2017.json", source=TINY_SOURCE)
"""`coco_tiny` is any small cut of COCO in its published layout."""


def _wanted(annotations: Path, index: Index) -> tuple[list[int], tuple[str, ...]]:
    """Rows of the objects that are large enough, and what to say of the others."""
    rows: list[int] = []
    wrong: list[int] = []
    for row, (area, box) in enumerate(zip(index.areas, index.boxes, strict=True)):
        if area >= MIN_AREA_PX:
            rows.append(row)
        # Published areas are right, and their boxes too: few outlines are read for this.
        elif not (area > 0 and box > 0 and box < max(MIN_AREA_PX, WRONG_AREA * area)):
            measured = _mask(annotations, index, row).measure()
            if measured >= MIN_AREA_PX and not (area > 0 and measured < WRONG_AREA * area):
                rows.append(row)
                wrong.append(index.identities[row])
    small = len(index.areas) - len(rows)
    said = {
        f"{index.crowds} crowds are left out": index.crowds,
        f"{small} objects of under {MIN_AREA_PX} px are left out": small,
        f"{len(wrong)} objects have no area or a wrong one (first: annotation {(wrong or [0])[0]}); their outlines "
        "were measured": len(wrong),
    }
    return rows, tuple(text for text, count in said.items() if count)


def _image_keys(files: dict[int, Path], folder: Path) -> dict[int, str]:
    """Image id → its key: the file's stem; its path below `folder` where several images have one stem."""

    def place(path: Path) -> Path:
        return path.relative_to(folder) if path.is_relative_to(folder) else path

    def below(path: Path) -> str:
        return place(path).with_suffix("").as_posix()

    def whole(path: Path) -> str:
        return place(path).as_posix()

    keys: dict[int, str] = {}
    clashing = dict(files)
    for name in (lambda path: path.stem, below, whole):
        owners: dict[str, set[Path]] = {}
        for path in clashing.values():
            owners.setdefault(name(path), set()).add(path)
        keys |= {identity: name(path) for identity, path in clashing.items()}
        clashing = {identity: path for identity, path in clashing.items() if len(owners[name(path)]) > 1}
    return keys


def _by_key(annotations: Path, index: Index, rows: list[int], image_keys: dict[int, str]) -> dict[str, int]:
    """Sample key → row. Raises DataError where a file gives two objects of an image one id."""
    found: dict[str, int] = {}
    twice: list[str] = []
    for row in rows:
        key = f"{image_keys[index.image_ids[row]]}#{index.identities[row]}"
        if found.setdefault(key, row) != row:
            twice.append(key)
    if twice:
        identity, image = twice[0].rpartition("#")[2], twice[0].rpartition("#")[0]
        more = f" (and {len(twice) - 1} more)" if len(twice) > 1 else ""
        raise DataError(
            f"{annotations}: annotation id {identity} is there twice for image {image}{more}; number them anew"
        )
    return found


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
    place = index.identities[row], index.starts[row], index.lengths[row]
    return CocoMask(annotations, *place, image["height"], image["width"])


@dataclass(frozen=True, slots=True)
class CocoMask:
    """One annotation's segmentation, read from its place in the file when it is asked for."""

    file: Path
    identity: int
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
        except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
            raise self._undecodable(error) from error

    def measure(self) -> float:
        """The area in pixels, near enough to tell large from small; infinite where it cannot be decoded."""
        segmentation = self._segmentation()
        try:
            if isinstance(segmentation, list):
                rough = sum(cv2.contourArea(_corners(polygon).astype(np.float32)) for polygon in segmentation)
                if rough < MIN_AREA_PX:
                    return rough
            return float((self.read() == 1).sum())  # polygons may overlap
        except (ValueError, TypeError, KeyError, IndexError, OverflowError, cv2.error):
            return inf  # so that it is a sample, and told when it is read

    def content(self, hashes: FileHashes) -> str:
        try:
            return digest([self._segmentation(), self.height, self.width])
        except ValueError as error:  # infinity; RecursionError cannot be, as JSON's own reader goes less deep
            raise self._undecodable(error) from error

    def _undecodable(self, error: Exception) -> DataError:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        return DataError(f"{self.place}: its segmentation cannot be decoded ({reason}); correct or remove it")

    def _segmentation(self) -> Any:
        """List of polygons [x, y, x, y, …], or {"size": [H, W], "counts": list or compressed text}."""
        return read_object(self.file, self.start, self.length, self.identity)["segmentation"]


def fill_polygons(polygons: list[list[float]], height: int, width: int) -> Truth:
    """H×W int8: the union of the polygons, each x, y, x, y, … in pixels (0, 0 is the upper left corner's corner)."""
    truth = np.zeros((height, width), np.int8)
    outlines = [_corners(polygon) for polygon in polygons]
    if max(height, width) > 8 and outlines and all(c.min() >= 0 and c.max() <= 1 for c in outlines):
        raise ValueError("polygons within one pixel: they are in pixels, not in shares of the image's sides")
    for corners in outlines:
        reach = float(max(np.abs(corners).max(), np.abs(corners - (width, height)).max()))
        if reach > MAX_REACH_PX:
            raise ValueError(f"a corner {reach:g} px from its image of {width}×{height} px")
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


def _corners(polygon: list[float]) -> NDArray[np.float64]:
    """N×2 of x, y, x, y, …; ValueError where these are no corners of a polygon."""
    if not isinstance(polygon, list):
        raise ValueError(f"{polygon!r:.40} instead of a polygon: it is a list of lists of x, y, x, y, …")
    if len(polygon) < 6 or len(polygon) % 2:
        raise ValueError(f"a polygon of {len(polygon)} numbers")
    corners = np.asarray(polygon, np.float64)
    if corners.ndim != 1 or not np.isfinite(corners).all():
        raise ValueError("a polygon of other things than finite numbers")
    return corners.reshape(-1, 2)


def decode_run_lengths(encoded: dict[str, Any]) -> Truth:
    """H×W int8 of COCO's run lengths (samref.run_lengths), or of its text of them."""
    if not isinstance(encoded, dict):
        raise ValueError(f"{encoded!r:.40} instead of polygons or run lengths")
    height, width = encoded["size"]
    if not (0 <= height <= MAX_SIDE_PX and 0 <= width <= MAX_SIDE_PX):
        raise ValueError(f"a size of {width}×{height}")
    counts = encoded["counts"]
    runs = _uncompress(counts) if isinstance(counts, str) else counts
    return run_lengths.decode(height, width, runs).view(np.int8)


def _uncompress(text: str) -> list[int]:
    """Runs of COCO's compressed text: 6 bits a character from '0' (48), little end first, 5 of them data, bit 5 "more
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
