"""samref.data.shapes: drawn the same everywhere, exact, visible, and quick."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from samref.data import DataError, Dataset, open_dataset
from samref.data.sample import Split
from samref.data.shapes import SIZE, VISIBLE_PX, Shapes

NOWHERE = Path("/nowhere")


def shapes(split: Split = "train", samples: int | None = None) -> Dataset:
    return open_dataset("shapes", split=split, data_root=NOWHERE, samples=samples)


def pixels_digest(dataset: Dataset, index: int) -> str:
    sample = dataset.samples[index]
    return hashlib.sha256(dataset.image(sample.image_key).tobytes() + dataset.truth(sample.key).tobytes()).hexdigest()


def test_counts() -> None:
    assert len(shapes("train").samples) == 2000
    assert len(shapes("val").samples) == 100
    assert len(shapes("train", 3000).samples) == 3000  # drawn on the fly: there is no last one
    with pytest.raises(DataError, match="0 samples"):
        shapes("train", 0)


def test_images_and_truths_fit() -> None:
    dataset = shapes("val", 30)
    for sample in dataset.samples:
        image, truth = dataset.image(sample.image_key), dataset.truth(sample.key)
        assert image.shape == (SIZE, SIZE, 3)
        assert image.dtype == np.uint8
        assert truth.shape == (SIZE, SIZE)
        assert truth.dtype == np.int8
        assert set(np.unique(truth)) == {0, 1}
        assert VISIBLE_PX[0] <= truth.sum() <= VISIBLE_PX[1]


def test_targets_are_visible() -> None:
    """The target's mean colour differs from that of a band around it: 40 of 441, or one would not see it."""
    dataset = shapes("train", 40)
    for sample in dataset.samples:
        image, inside = dataset.image(sample.image_key).astype(float), dataset.truth(sample.key) == 1
        band = (cv2.dilate(inside.view(np.uint8), np.ones((15, 15), np.uint8)) > 0) & ~inside
        assert np.linalg.norm(image[inside].mean(axis=0) - image[band].mean(axis=0)) > 40, sample.key


def test_drawing_depends_on_the_index_only() -> None:
    few, many = shapes("train", 4), shapes("train", 50)
    forward = [pixels_digest(few, index) for index in range(4)]
    assert forward == [pixels_digest(many, index) for index in reversed(range(4))][::-1]
    assert len(set(forward)) == 4


def test_another_process_draws_the_same() -> None:
    dataset = shapes("val", 2)
    script = (
        "import hashlib; from pathlib import Path; from samref.data import open_dataset\n"
        "d = open_dataset('shapes', split='val', data_root=Path('/nowhere')); s = d.samples[1]\n"
        "print(hashlib.sha256(d.image(s.image_key).tobytes() + d.truth(s.key).tobytes()).hexdigest())"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == pixels_digest(dataset, 1)


def test_splits_share_nothing() -> None:
    train, val = shapes("train", 20), shapes("val", 20)
    assert not {pixels_digest(train, i) for i in range(20)} & {pixels_digest(val, i) for i in range(20)}
    assert not {sample.key for sample in train.samples} & {sample.key for sample in val.samples}
    with pytest.raises(KeyError):
        val.truth(train.samples[0].key)


def test_fingerprint_tells_split_count_and_version(monkeypatch: pytest.MonkeyPatch) -> None:
    prints = {shapes("train").fingerprint(), shapes("val").fingerprint(), shapes("val", 99).fingerprint()}
    assert shapes("val", 100).fingerprint() == shapes("val").fingerprint()
    monkeypatch.setattr("samref.data.shapes.VERSION", 10_000)
    prints.add(shapes("val").fingerprint())
    assert len(prints) == 4


def test_version_is_raised_when_masks_change() -> None:
    """The golden digest of 20 truths: where it changes, raise VERSION in samref/data/shapes.py with it."""
    dataset = Shapes("shapes", "val", 20)
    found = hashlib.sha256(b"".join(dataset.truth(sample.key).tobytes() for sample in dataset.samples))
    assert found.hexdigest()[:16] == "de024c9b1bc5431f"
