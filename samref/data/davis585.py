"""`davis585`: DAVIS-585 of FocalClick (https://github.com/alibaba/ClickSEG), objects with masks to start from.

Expects a folder for each video in DATA_ROOT/DAVIS585: FRAME.jpg, a mask OBJECT_FRAME.png for each object of it, and
beside each init_sp_OBJECT_FRAME.png and init_stm_OBJECT_FRAME.png, two masks to be corrected: made of superpixels, and
by STM's tracking; `evaluate.start` names them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from samref.data.files import FileDataset, MaskFile
from samref.data.layouts import hint
from samref.data.sample import MissingDataError, Request, Sample, Truth
from samref.image_files import read_image

PAGE = "https://drive.google.com/drive/folders/1XzUlpPqbzAyMt009HVpEeW31ln1FeXfX"
SOURCE = f"{PAGE} (by hand: it is a folder of Google Drive, which the README of alibaba/ClickSEG names)"

KINDS = ("sp", "stm")
"""Kinds of masks to start from. `sp`: superpixels around the object's border added and removed; `stm`: a tracker's mask
(FocalClick, section 5)."""


@dataclass(eq=False)
class Davis585(FileDataset):
    """A `FileDataset` whose samples have masks to start from."""

    def start(self, key: str, kind: str) -> MaskFile:
        """The mask that a sample's correction starts from, of one of KINDS."""
        mask = self.masks[key]
        assert isinstance(mask, MaskFile)
        return MaskFile(_start(mask.path, kind), read_over_half)


def open_davis585(request: Request) -> Davis585:
    """Open the dataset, its files paired; nothing is decoded."""
    root = request.data_root / "DAVIS585"
    videos = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    files = [file for video in videos for file in sorted(video.iterdir()) if not file.name.startswith(".")]
    present = set(files)
    masks = [file for file in files if file.suffix == ".png" and "init" not in file.name]
    if not any(file.name.startswith("init_") for file in files) or not masks:
        raise MissingDataError(
            f"{root}: holds no DAVIS-585; {request.name} needs a folder for each video with FRAME.jpg, "
            f"OBJECT_FRAME.png and init_sp_OBJECT_FRAME.png in it: get it from {SOURCE}, or set the data "
            f"root{hint(root, request.name)}"
        )
    needed = [file for mask in masks for file in (_image(mask), *(_start(mask, kind) for kind in KINDS))]
    lost = [file for file in needed if file not in present]
    if lost:
        raise MissingDataError(f"{lost[0]}: this and {len(lost) - 1} more files are not there; get them from {SOURCE}")
    samples = [Sample(f"{mask.parent.name}/{mask.stem}", f"{mask.parent.name}/{_image(mask).stem}") for mask in masks]
    truths = [MaskFile(mask, read_over_half) for mask in masks]
    every = list(zip(samples, map(_image, masks), truths, strict=True))
    return Davis585.of(request, every)


def read_over_half(path: Path) -> Truth:
    """Read a mask, H×W int8: 1 where its first channel (OpenCV's, blue) is over 128, else 0, as ClickSEG does."""
    return np.asarray(read_image(path)[..., 2] > 128, np.int8)


def _image(mask: Path) -> Path:
    """`bear/object1_00009.png` is of `bear/00009.jpg`."""
    return mask.with_name(f"{mask.stem.rpartition('_')[2]}.jpg")


def _start(mask: Path, kind: str) -> Path:
    return mask.with_name(f"init_{kind}_{mask.name}")
