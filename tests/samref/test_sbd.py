"""samref.data.sbd: one sample an instance, the folders of the archive, and what a broken .mat is told."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import savemat

from samref.data import DataError, Dataset, check, open_dataset


def segmentation(*instances: int) -> NDArray[np.uint8]:
    """20×30: each instance a column of its own, six pixels wide."""
    values = np.zeros((20, 30), np.uint8)
    for place, instance in enumerate(instances):
        values[2:18, 1 + 7 * place : 7 + 7 * place] = instance
    return values


def write_sbd(folder: Path, images: dict[str, tuple[int, ...]], split: str = "val") -> None:
    for kind in ("img", "inst"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for seed, (stem, instances) in enumerate(images.items()):
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8)
        assert cv2.imwrite(str(folder / "img" / f"{stem}.jpg"), pixels)
        # As published: a struct with the boundaries and classes of each instance beside.
        truth = {
            "Segmentation": segmentation(*instances),
            "Boundaries": np.zeros((len(instances), 1), object),
            "Categories": np.full((len(instances), 1), 7, np.uint8),
        }
        savemat(folder / "inst" / f"{stem}.mat", {"GTinst": truth}, do_compression=True)
    (folder / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in images))


def sbd(root: Path, split: str = "val", samples: int | None = None) -> Dataset:
    return open_dataset("sbd", split=split, data_root=root, samples=samples)  # type: ignore[arg-type]


@pytest.mark.parametrize("place", ["SBD", "SBD/dataset", "SBD/benchmark_RELEASE/dataset"])
def test_every_instance_is_a_sample(tmp_path: Path, place: str) -> None:
    write_sbd(tmp_path / place, {"2008_000009": (1,)}, split="train")
    write_sbd(tmp_path / place, {"2008_000002": (1, 3), "2008_000001": (2,)})
    dataset = sbd(tmp_path)
    assert [(s.key, s.image_key) for s in dataset.samples] == [
        ("2008_000001#002", "2008_000001"),
        ("2008_000002#001", "2008_000002"),
        ("2008_000002#003", "2008_000002"),
    ]
    assert np.array_equal(dataset.truth("2008_000002#003"), (segmentation(1, 3) == 3).astype(np.int8))
    check(dataset)
    assert [s.key for s in sbd(tmp_path, samples=2).samples] == ["2008_000001#002", "2008_000002#001"]
    assert [s.key for s in sbd(tmp_path, "train").samples] == ["2008_000009#001"]


def test_fingerprint_is_of_the_instance_too(tmp_path: Path) -> None:
    write_sbd(tmp_path / "SBD", {"a": (1, 2)})
    first = sbd(tmp_path, samples=1).fingerprint()
    assert first != sbd(tmp_path).fingerprint()
    write_sbd(tmp_path / "SBD", {"a": (1, 3)})
    assert first != sbd(tmp_path, samples=1).fingerprint()  # the file holds both


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"SBD/img: does not exist; sbd \(val\) needs img/, inst/ and val.txt.*https://"
    ):
        sbd(tmp_path)
    write_sbd(tmp_path / "SBD", {"a": (1,), "b": (1,)})
    with pytest.raises(DataError, match=r"train.txt: does not exist; .*https://"):
        sbd(tmp_path, "train")
    (tmp_path / "SBD" / "inst" / "b.mat").unlink()
    with pytest.raises(DataError, match=r"inst/b.mat: this and 0 more files that val.txt names .*https://") as caught:
        sbd(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "SBD" / "val.txt").write_text("\n")
    with pytest.raises(DataError, match=r"val.txt: names no images"):
        sbd(tmp_path)


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_a_truncated_mat_is_named(tmp_path: Path, share: float) -> None:
    write_sbd(tmp_path / "SBD", {"a": (1,)})
    file = tmp_path / "SBD" / "inst" / "a.mat"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(
        DataError, match=r"a.mat: no GTinst.Segmentation can be read .*get it again from https"
    ) as caught:
        sbd(tmp_path)
    assert "\n" not in str(caught.value)


def test_other_mats_are_refused(tmp_path: Path) -> None:
    write_sbd(tmp_path / "SBD", {"a": (1,)})
    file = tmp_path / "SBD" / "inst" / "a.mat"
    savemat(file, {"GTcls": {"Segmentation": segmentation(1)}})
    with pytest.raises(DataError, match=r"a.mat: no GTinst.Segmentation can be read"):
        sbd(tmp_path)
    savemat(file, {"GTinst": {"Segmentation": segmentation(1).astype(float)}})
    with pytest.raises(DataError, match=r"float64 of 2 dimensions"):
        sbd(tmp_path)
    savemat(file, {"GTinst": {"Segmentation": segmentation(1)[:, :-1]}})
    with pytest.raises(DataError, match=r"a.mat: instance 1: the mask is 29×20, its image .* is 30×20"):
        check(sbd(tmp_path))
