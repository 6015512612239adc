"""samref.data.hqseg: the released folders of all parts, in both splits."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from samref.data import DataError, Dataset, Split, check, open_dataset
from samref.data.hqseg import PUBLISHED, SUBSETS


def write_part(root: Path, images: str, masks: str, stems: tuple[str, ...]) -> None:
    for folder in (root / images, root / masks):
        folder.mkdir(parents=True, exist_ok=True)
    for seed, stem in enumerate(stems):
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8)
        mask = np.zeros((20, 30), np.uint8)
        mask[5:12, 8:20] = 255
        mask[5, 8] = 3  # an edge drawn with antialiasing
        assert cv2.imwrite(str(root / images / f"{stem}.jpg"), pixels)
        assert cv2.imwrite(str(root / masks / f"{stem}.png"), mask)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with two images in every part; the stems are the same in all of them."""
    for parts in SUBSETS.values():
        for part in parts:
            write_part(tmp_path / "HQSeg44K", part.images, part.masks, ("b", "a"))
    return tmp_path


def hqseg(root: Path, split: Split = "val") -> Dataset:
    return open_dataset("hqseg44k", split=split, data_root=root)


def test_the_parts_sum_to_the_published_sizes() -> None:
    assert PUBLISHED == {"train": 44320, "val": 1537}


@pytest.mark.parametrize("split", ["train", "val"])
def test_all_parts_are_read(root: Path, split: Split) -> None:
    dataset = hqseg(root, split)
    assert [s.key for s in dataset.samples] == [f"{part.name}/{stem}" for part in SUBSETS[split] for stem in "ab"]
    check(dataset)
    truth = dataset.truth(dataset.samples[0].key)
    assert truth[5, 8] == 1
    assert truth.sum() == 7 * 12


def test_a_lone_png_is_passed_over(root: Path) -> None:
    folder = root / "HQSeg44K" / "cascade_psp" / "fss_all"
    (folder / "c.png").write_bytes((folder / "a.png").read_bytes())
    (folder / "._a.jpg").write_bytes(b"x")
    assert len(hqseg(root, "train").samples) == 14


def test_what_is_missing_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"DIS-VD/im: no such folder; hqseg44k .val. needs all of .*https://"):
        hqseg(tmp_path / "empty")
    masks = root / "HQSeg44K" / "thin_object_detection" / "HRSOD" / "masks_max255"
    (masks / "b.png").unlink()
    with pytest.raises(
        DataError, match=r"masks_max255: 1 of 2 images without a mask \(first: b.png\); HRSOD"
    ) as caught:
        hqseg(root)
    assert "\n" not in str(caught.value)
    for file in (root / "HQSeg44K" / "DIS5K" / "DIS-TR" / "im").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"DIS-TR/im: holds no .jpg; get DIS5K-TR from https"):
        hqseg(root, "train")
