"""samref_dashboards.photographs: a sample's files, found by its name and read as the evaluation read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest

from samref.data import open_dataset
from samref_dashboards.photographs import find, photograph, truth


def box(value: int = 255, other: int = 0) -> np.ndarray:
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 10:40] = value
    mask[32:38, 45:58] = other
    return mask


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def colours(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8)


def make(root: Path) -> str:
    """A folder with what people have: turned photographs, palettes, opaque alpha, several objects, accents."""
    own = root / "own"
    for name in ("images", "masks"):
        (own / name).mkdir(parents=True)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.fromarray(colours(0)).save(own / "images" / "turned.jpg", exif=exif)
    write(own / "masks" / "turned.png", box())
    for stem in ("palette", "alpha", "two", "several", "caf\u00e9"):
        write(own / "images" / f"{stem}.png", colours(len(stem)))
    palette = PIL.Image.fromarray(box(1)).convert("P")
    palette.putpalette([255, 255, 255, 0, 0, 0])
    palette.save(own / "masks" / "palette.png")
    write(own / "masks" / "alpha.png", np.dstack([box(), box(), box(), np.full((40, 60), 255, np.uint8)]))
    write(own / "masks" / "two#001.png", box())
    write(own / "masks" / "two#002.png", box(0, 255))
    write(own / "masks" / "several.png", box(1, 2))
    write(own / "masks" / "cafe\u0301.png", box())
    return "folder:own?objects=each"


def test_pages_show_what_was_evaluated(tmp_path: Path) -> None:
    name = make(tmp_path)
    dataset = open_dataset(name, split="val", data_root=tmp_path)
    files = find(tmp_path, name)
    assert len(dataset.samples) == 8
    for sample in dataset.samples:
        pixels, inside = photograph(files, name, sample.key), truth(files, name, sample.key)
        assert pixels is not None, sample
        assert inside is not None, sample
        assert np.array_equal(pixels, dataset.image(sample.image_key)), sample
        assert np.array_equal(inside, dataset.truth(sample.key) == 1), sample


@pytest.mark.parametrize("name", ["grabcut", "davis", "ecssd", "coco_tiny"])
def test_published_datasets(real_data: Path, name: str) -> None:
    split: Any = "val" if name in ("grabcut", "davis") else "train"
    dataset = open_dataset(name, split=split, data_root=real_data, samples=5)
    files = find(real_data, name)
    for sample in dataset.samples:
        pixels, inside = photograph(files, name, sample.key), truth(files, name, sample.key)
        assert pixels is not None
        assert np.array_equal(pixels, dataset.image(sample.image_key))
        if name != "coco_tiny":  # whose masks are no files
            assert inside is not None
            assert np.array_equal(inside, dataset.truth(sample.key) == 1)


def test_photographs_of_one_stem_are_shown_only_if_it_is_certain_which(tmp_path: Path) -> None:
    for number, camera in enumerate(("cam1", "cam2")):
        write(tmp_path / "COCO_tiny" / "train2017" / camera / "1.png", colours(number))
    files = find(tmp_path, "coco_tiny")
    assert photograph(files, "coco_tiny", "1#7") is None
    for number, camera in enumerate(("cam1", "cam2")):
        shown = photograph(files, "coco_tiny", f"train2017/{camera}/1#7")
        assert shown is not None
        assert np.array_equal(shown[:, :, ::-1], colours(number))


def test_broken_files_are_not_shown(tmp_path: Path) -> None:
    make(tmp_path)
    for name in ("images", "masks"):
        (tmp_path / "own" / name / "alpha.png").write_bytes(b"\x89PNG")
    write(tmp_path / "own" / "masks" / "turned.png", box(100, 200))
    files = find(tmp_path, "folder:own")
    assert photograph(files, "folder:own", "alpha") is None
    assert truth(files, "folder:own", "alpha") is None
    assert truth(files, "folder:own", "turned") is None
    assert photograph(files, "folder:own", "nowhere") is None
    assert find(tmp_path, "nowhere") == {}
