"""Recognises the published layouts by their files' names, to say what a folder holds that is not the wanted one."""

import re
from pathlib import Path

LAYOUTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("GrabCut's layout (grabcut)", ("data_GT/", "boundary_GT/")),
    ("the layout of DAVIS and COCO_MVal in RITM's packaging (davis, coco_mval)", ("img/", "gt/")),
    ("DAVIS as its authors publish it, not RITM's 345 frames of it", ("JPEGImages/*/", "Annotations/*/")),
    ("DAVIS-585's layout (davis585)", ("*/init_sp_*.png",)),
    ("PASCAL VOC's layout (pascal_voc)", ("JPEGImages/", "SegmentationObject/")),
    ("PASCAL VOC's layout (pascal_voc)", ("VOC2012/JPEGImages/",)),
    ("SBD's layout (sbd)", ("img/", "inst/")),
    ("RITM's COCO+LVIS masks (coco_lvis_ritm)", ("*/hannotation.pickle",)),
    ("COCO's layout (coco, coco_tiny)", ("annotations/instances_*.json",)),
    ("LVIS's layout (coco_lvis)", ("annotations/lvis_v1_*.json",)),
    ("HQSeg-44K's layout (hqseg44k)", ("DIS5K/",)),
    ("BSDS500's layout, whose masks are not Berkeley's objects", ("images/train/", "images/val/", "images/test/")),
    ("a folder of images and masks (folder:NAME, berkeley, ecssd)", ("images/", "masks/")),
)
"""What a layout is called, and patterns that all have a file or (with a slash) a folder in it."""


def recognised(folder: Path) -> str | None:
    """Name the published layout that a folder has; None where it has none that is known."""
    for name, patterns in LAYOUTS:
        if all(_has(folder, pattern) for pattern in patterns):
            return name
    return None


def hint(folder: Path, dataset: str) -> str:
    """Say which layout was found instead of the dataset's, in the folder or one below it; empty where none is known.

    The text begins with a semicolon, so that it goes to the end of a message.
    """
    if not folder.is_dir():
        return ""
    if name := recognised(folder):  # the wanted layout, with something missing, is no news
        return "" if dataset.partition(":")[0] in re.findall(r"\w+", name) else f"; {folder} holds {name}"
    for below in sorted(path for path in folder.iterdir() if path.is_dir()):
        if name := recognised(below):
            return f"; {below} holds {name}: was it unpacked one folder too deep?"
    return ""


def _has(folder: Path, pattern: str) -> bool:
    return any(path.is_dir() for path in folder.glob(pattern)) if pattern[-1] == "/" else any(folder.glob(pattern))
