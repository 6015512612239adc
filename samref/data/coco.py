"""Datasets of COCO annotations: polygons and run lengths, decoded here.

Expects FOLDER/annotations/instances_SPLIT2017.json and FOLDER/SPLIT2017/ with the images. One sample is one
annotated object; crowds (several objects in one mask) are left out, and so are tiny objects.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from samref.data.files import FileDataset
from samref.data.hashes import FileHashes, digest
from samref.data.sample import DataError, Dataset, Request, Sample, Truth, evenly_spaced

MIN_AREA_PX = 1000
"""Objects of fewer annotated pixels are left out, as RITM does in training on COCO+LVIS (`min_object_area`):
below
about 32×32 px a polygon is wrong by a large share of its object, and a click hardly has room in it."""

SUPERSAMPLING = 4
"""Polygons are filled on a grid this much finer, a pixel being object where half of it is inside. OpenCV
fills the
outline too: on the pixel grid areas come out 4.4 % too large on average (over COCO's own `area`), on this one
1.7 %."""

SOURCE = "get train2017 and its annotations from https://cocodataset.org/#download"


def open_coco_tiny(request: Request) -> Dataset:
    """`coco_tiny`: DATA_ROOT/COCO_tiny, any small cut of COCO in its published layout."""
    return open_coco(request, request.data_root / "COCO_tiny")


def open_coco(request: Request, folder: Path) -> Dataset:
    """The dataset in `folder`; its JSON is read and checked, no image is."""
    part = f"{request.split}2017"
    annotations, images = folder / "annotations" / f"instances_{part}.json", folder / part
    for needed in (annotations, images):
        if not needed.exists():
            raise DataError(
                f"{needed}: does not exist; {request.name} ({request.split}) needs "
                f"annotations/{annotations.name} and {part}/ in {folder}: {SOURCE}, or set the data root"
            )
    names, objects = _index(annotations)
    kept = {
        f"{Path(names[entry.image_id]).stem}#{entry.mask.identity}": entry
        for entry in objects
        if entry.area >= MIN_AREA_PX
    }
    if not kept:
        raise DataError(f"{annotations}: none of its {len(objects)} objects has {MIN_AREA_PX} pixels or more")
    image_files = {Path(name).stem: images / name for name in names.values()}
    every = [Sample(key, Path(names[kept[key].image_id]).stem) for key in sorted(kept)]
    missing = sorted({s.image_key for s in every if not image_files[s.image_key].is_file()})
    if missing:
        raise DataError(
            f"{images}: {len(missing)} images that {annotations.name} names are not there (first: "
            f"{image_files[missing[0]].name}); {SOURCE}"
        )
    samples = evenly_spaced(every, request.samples, request.name)
    return FileDataset(
        name=request.name,
        samples=samples,
        image_files={sample.image_key: image_files[sample.image_key] for sample in samples},
        masks={sample.key: kept[sample.key].mask for sample in samples},
        cache=request.cache,
    )


@dataclass(frozen=True)
class CocoMask:
    """One annotation's segmentation."""

    file: Path
    identity: int
    """The annotation's id."""
    segmentation: Any
    """List of polygons [x, y, x, y, …], or {"size": [H, W], "counts": list or compressed text}."""
    height: int
    width: int

    @property
    def place(self) -> str:
        return f"{self.file}: annotation {self.identity}"

    def read(self) -> Truth:
        try:
            if isinstance(self.segmentation, list):
                return fill_polygons(self.segmentation, self.height, self.width)
            return decode_run_lengths(self.segmentation)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise DataError(
                f"{self.place}: its segmentation cannot be decoded ({error}); correct or remove it"
            ) from error

    def content(self, hashes: FileHashes) -> str:
        return digest([self.segmentation, self.height, self.width])


@dataclass(frozen=True)
class _Object:
    image_id: int
    area: float
    mask: CocoMask


def _index(annotations: Path) -> tuple[dict[int, str], list[_Object]]:
    """File names by image id, and all objects that are no crowd."""
    try:
        content = json.loads(annotations.read_text(encoding="utf-8"))
        images = {image["id"]: image for image in content["images"]}
        objects = []
        for entry in content["annotations"]:
            if entry.get("iscrowd", 0):
                continue
            image = images[entry["image_id"]]
            size = (int(image["height"]), int(image["width"]))
            mask = CocoMask(annotations, int(entry["id"]), entry["segmentation"], *size)
            objects.append(_Object(entry["image_id"], float(entry["area"]), mask))
        return {identity: str(image["file_name"]) for identity, image in images.items()}, objects
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{annotations}: no COCO instances ({type(error).__name__}: {error}); it needs images "
            "(id, file_name, height, width) and annotations (id, image_id, segmentation, area)"
        ) from error


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
    """H×W int8 of COCO's run lengths: runs of 0 and 1 in turn, down the columns, beginning with 0."""
    height, width = encoded["size"]
    counts = encoded["counts"]
    runs = np.asarray(_uncompress(counts) if isinstance(counts, str) else counts, np.int64)
    if (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"runs of {runs.sum()} pixels in all for {width}×{height} px")
    values = np.arange(len(runs), dtype=np.int8) % 2
    flat: NDArray[np.int8] = np.repeat(values, runs)
    return np.ascontiguousarray(flat.reshape(width, height).T)


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
