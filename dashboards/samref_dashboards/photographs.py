"""Photographs and truths of objects, looked for below a data root by the names in clicks.parquet.

Files are read by the modules that the evaluation read them with, the only ones of `samref` that are imported here: a
page that turned a photograph, or took a mask's values otherwise, would show clicks where nobody made them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from samref.errors import DataError
from samref.image_files import IMAGE_SUFFIXES, read_image
from samref.mask_files import parse_folder, read_banded_mask, read_folder_mask, read_nonzero_mask

_MASKS = {"gt", "masks", "boundary_gt", "annotations", "inst", "cls", "masks_test", "masks_train", "masks_max255"}
"""Folders that hold no photographs."""
_BANDED = {"grabcut", "berkeley"}
"""Datasets whose masks have a band of ignored pixels, of value 128."""

Files = Mapping[str, Sequence[Path]]
"""Image files of a dataset by stem."""


def find(data_root: Path, dataset: str) -> Files:
    """Find a dataset's image files; its folder has its name in any case, or is that of `folder:NAME`."""
    name = _folder(dataset)
    wanted = name.replace("_", "").replace("-", "").lower()
    folders = [data_root / name] if (data_root / name).is_dir() else []
    if not folders and data_root.is_dir():
        folders = [
            path
            for path in sorted(data_root.iterdir())
            if path.is_dir() and path.name.replace("_", "").replace("-", "").lower() == wanted
        ]
    found: dict[str, list[Path]] = {}
    for folder in folders[:1]:
        for place, _, names in os.walk(folder):
            for each in names:
                file = Path(place, each)
                if file.suffix.lower() in IMAGE_SUFFIXES:
                    found.setdefault(normalize("NFC", file.stem), []).append(file)
    return found


def photograph(files: Files, dataset: str, sample: str) -> NDArray[np.uint8] | None:
    """Read a sample's image, H×W×3 RGB; None where it is not found, is not the only one of its name, or is broken."""
    for key in _keys(sample):
        images = [
            file
            for file in _of_stem(files, key)
            # HQSeg-44K has photographs, .jpg, and masks in one folder.
            if file.parent.name.lower() not in _MASKS and (dataset != "hqseg44k" or file.suffix == ".jpg")
        ]
        # Photographs of one stem in several folders have the folder in their key.
        exact = [file for file in images if file.as_posix().endswith((f"/{key}", f"/{key}{file.suffix}"))]
        if len(found := exact if len(exact) == 1 else images) == 1:
            try:
                return read_image(found[0])
            except DataError:
                return None
    return None


def truth(files: Files, dataset: str, sample: str) -> NDArray[np.bool_] | None:
    """Read which pixels are a sample's object, H×W; None where no one mask file is found, or it is broken."""
    for key in _keys(sample):
        masks = [file for file in _of_stem(files, key) if file.parent.name.lower() in _MASKS]
        if len(masks) == 1:
            number = sample[len(key) + 1 :]
            try:
                return _read_mask(masks[0], dataset, int(number) if number.isdecimal() else None)
            except DataError:
                return None
    return None


def _folder(dataset: str) -> str:
    name = dataset.partition(":")[2]
    return parse_folder(name)[0] if name else dataset


def _read_mask(file: Path, dataset: str, identity: int | None) -> NDArray[np.bool_]:
    if dataset in _BANDED:
        read = read_banded_mask(file)
    elif name := dataset.partition(":")[2]:
        read = read_folder_mask(file, parse_folder(name)[1]).truth(identity)
    else:
        read = read_nonzero_mask(file)
    inside: NDArray[np.bool_] = read == 1
    return inside


def _keys(sample: str) -> tuple[str, ...]:
    """What a sample's files may be called: `a#001` is a file's own name, or the first object of `a`."""
    before = sample.rpartition("#")[0]
    return (sample, before) if before else (sample,)


def _of_stem(files: Files, key: str) -> Sequence[Path]:
    # A dataset of several sets writes `SET/a`. A key may keep the file's suffix.
    last = normalize("NFC", key.rpartition("/")[2])
    return files.get(last) or files.get(Path(last).stem, ())
