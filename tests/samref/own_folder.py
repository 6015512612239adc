"""A dataset in a folder of one's own, mine/images and mine/masks, as the tests of datasets write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from samref.data import Dataset, open_dataset

Array = NDArray[Any]


def write(path: Path, pixels: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def photograph(height: int = 20, width: int = 30, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def box_mask(height: int = 20, width: int = 30, value: int = 255) -> Array:
    mask = np.zeros((height, width), np.uint8)
    mask[5:12, 8:20] = value
    return mask


def fill(root: Path) -> Path:
    """Write the folder `mine` of three images below a data root, which is given back; `b` has two objects."""
    for seed, stem in enumerate("abc"):
        write(root / "mine" / "images" / f"{stem}.png", photograph(seed=seed))
    for stem in ("a", "b#001", "b#002", "c"):
        write(root / "mine" / "masks" / f"{stem}.png", box_mask())
    return root


def mine(root: Path, **options: Any) -> Dataset:
    return open_dataset("folder:mine", split="train", data_root=root, **options)
