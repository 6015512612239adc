"""samref.data on files: layouts, masks, and what a broken dataset is told."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from own_folder import Array, box_mask, fill, mine, photograph, write

from samref.data import DataError, check, names, open_dataset
from samref.data.sample import evenly_spaced


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fill(tmp_path)


def test_folder_pairs_by_stem_and_shares_images(root: Path) -> None:
    dataset = mine(root)
    assert [(s.key, s.image_key) for s in dataset.samples] == [
        ("a", "a"),
        ("b#001", "b"),
        ("b#002", "b"),
        ("c", "c"),
    ]
    image, truth = dataset.image("b"), dataset.truth("b#001")
    assert np.array_equal(image, photograph(seed=1)[:, :, ::-1])  # written BGR, read RGB
    assert image.dtype == np.uint8
    assert truth.dtype == np.int8
    assert np.array_equal(truth, box_mask(value=1))
    check(dataset)


def test_an_absolute_folder(root: Path, tmp_path: Path) -> None:
    dataset = open_dataset(f"folder:{root / 'mine'}", split="val", data_root=tmp_path / "elsewhere")
    assert dataset.fingerprint() == mine(root).fingerprint()
    with pytest.raises(DataError, match="folder:NAME"):
        open_dataset("folder:", split="val", data_root=root)


@pytest.mark.parametrize(
    "pixels",
    [
        box_mask(value=1),
        box_mask().astype(np.uint16) // 255,  # a 16-bit label 1
        np.stack([box_mask(value=0), box_mask(), box_mask(value=0)], axis=2),
        np.dstack([box_mask(value=3)] * 3 + [np.full((20, 30), 255, np.uint8)]),  # opaque alpha
    ],
    ids=["label", "16 bit", "one channel", "alpha"],
)
def test_any_mask_that_is_not_zero_is_object(root: Path, pixels: Array) -> None:
    write(root / "mine" / "masks" / "a.png", pixels)
    assert np.array_equal(mine(root).truth("a"), box_mask(value=1))


@pytest.mark.parametrize(
    ("name", "folders", "level", "expected"),
    [
        ("grabcut", ("GrabCut/data_GT/p.JPG", "GrabCut/boundary_GT/p.bmp"), 128, -1),
        ("berkeley", ("Berkeley/images/p.jpg", "Berkeley/masks/p#001.png"), 128, -1),
        ("berkeley", ("Berkeley/images/p.jpg", "Berkeley/masks/p.png"), 64, 0),
        ("davis", ("DAVIS/img/p.jpg", "DAVIS/gt/p.png"), 1, 1),
        ("ecssd", ("ECSSD/images/p.jpg", "ECSSD/masks/p.png"), 128, 1),
    ],
)
def test_published_layouts(tmp_path: Path, name: str, folders: tuple[str, str], level: int, expected: int) -> None:
    mask = box_mask()
    mask[0, :4] = level
    write(tmp_path / folders[0], photograph())
    write(tmp_path / folders[1], mask)
    dataset = open_dataset(name, split="val", data_root=tmp_path)
    truth = dataset.truth(dataset.samples[0].key)
    assert truth[0, 0] == expected
    assert truth[6, 9] == 1
    assert truth[19, 29] == 0
    with pytest.raises(DataError, match=rf"no such folder; {name} needs .*https://"):
        open_dataset(name, split="val", data_root=tmp_path / "empty")


def test_exif_orientation_is_ignored(root: Path) -> None:
    path = root / "mine" / "images" / "a.png"
    encoded = cv2.imencode(".jpg", photograph())[1].tobytes()
    orientation = bytes.fromhex("ffe10022457869660000 4d4d002a00000008 0001 0112 0003 00000001 00060000 00000000")
    path.unlink()
    path.with_suffix(".jpg").write_bytes(encoded[:2] + orientation + encoded[2:])
    turned = cv2.imread(str(path.with_suffix(".jpg")))
    assert turned is not None
    assert turned.shape == (30, 20, 3)
    assert mine(root).image("a").shape == (20, 30, 3)
    assert mine(root).truth("a").shape == (20, 30)


def test_other_files_are_passed_over(root: Path) -> None:
    (root / "mine" / "images" / "Thumbs.db").write_bytes(b"x")
    (root / "mine" / "masks" / ".DS_Store").write_bytes(b"x")
    (root / "mine" / "masks" / "._a.png").write_bytes(b"x")
    assert len(mine(root).samples) == 4


def test_names_that_look_alike_belong_together(root: Path) -> None:
    """macOS writes an accent as a character of its own, in file names of archives too."""
    composed, apart = "caf\u00e9", "cafe\u0301"
    write(root / "mine" / "images" / f"{composed}.png", photograph())
    write(root / "mine" / "masks" / f"{apart}.png", box_mask())
    write(root / "mine" / "masks" / f"{apart}#002.png", box_mask())
    keys = {sample.key: sample.image_key for sample in mine(root).samples}
    assert (keys[apart], keys[f"{apart}#002"]) == (composed, composed)
    check(mine(root))
    write(root / "mine" / "images" / f"{apart}.png", photograph())
    with pytest.raises(DataError, match=r"look alike: 'cafe\\u0301.png', 'caf\\xe9.png'\) are both the image"):
        mine(root)


def test_what_is_of_another_kind_is_said(root: Path) -> None:
    (root / "mine" / "images" / "x.heic").write_bytes(b"")
    (root / "mine" / "masks" / "x.gif").write_bytes(b"")
    (root / "mine" / "images" / "more").mkdir()
    os.mkfifo(root / "mine" / "images" / "pipe.png")  # whose reader waits for ever
    assert mine(root).notes() == (
        "4 files or folders of other kinds are left out (images/more/, images/pipe.png, images/x.heic, …)",
    )
    (root / "mine" / "images" / "c.png").rename(root / "mine" / "images" / "c.HEIC")
    with pytest.raises(DataError, match=r"1 of 4 masks without .* \(c.png\).*5 files .* left out \(images/c.HEIC"):
        mine(root)


def drop(path: str) -> Callable[[Path], None]:
    return lambda folder: (folder / path).unlink()


def put(path: str, pixels: Array) -> Callable[[Path], None]:
    return lambda folder: write(folder / path, pixels)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (drop("masks/c.png"), r"1 of 3 images without a mask \(c.png\).*same stems"),
        (drop("images/c.png"), r"1 of 4 masks without an image \(c.png\).*same stems"),
        (put("images/a.bmp", photograph()), "a.bmp and a.png are both the image a; keep one"),
        (put("masks/a.jpg", box_mask()), r"1 masks are of a lossy format \(a.jpg\).*\.png"),
        (lambda folder: shutil.rmtree(folder / "masks"), "masks: no such folder.*set the data root"),
        (lambda folder: [path.unlink() for path in folder.glob("*/*")], "hold no images"),
    ],
)
def test_a_wrong_layout_is_found_when_opened(root: Path, harm: Callable[[Path], None], message: str) -> None:
    harm(root / "mine")
    with pytest.raises(DataError, match=message) as caught:
        mine(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [*sorted({*names()} - {"folder:NAME", "shapes"}), "folder:x"])
def test_a_path_that_cannot_be_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError) as caught:
        open_dataset(name, split="train", data_root=tmp_path / ("x" * 600))
    assert "\n" not in str(caught.value)


def test_a_home_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^folder:~nobody-of-that-name/x: .*; write the whole path"):
        open_dataset("folder:~nobody-of-that-name/x", split="train", data_root=tmp_path)


def test_many_missing_masks_are_counted(root: Path) -> None:
    for number in range(9):
        write(root / "mine" / "images" / f"x{number}.png", photograph())
    with pytest.raises(DataError, match=r"9 of 12 images without a mask \(x0.png, x1.png, x2.png, …\)"):
        mine(root)


def truncate(path: str, share: float) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        content = (folder / path).read_bytes()
        (folder / path).write_bytes(content[: int(len(content) * share)])

    return harm


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (truncate("images/c.png", 0.5), "c.png: 9.. bytes that are no complete image; replace"),
        (truncate("images/c.png", 0), "c.png: 0 bytes that are no complete image"),
        (truncate("masks/c.png", 0.6), "masks/c.png: .*no complete image"),
        (drop("masks/c.png"), "masks/c.png: cannot be read"),
        (put("masks/c.png", box_mask(20, 31)), "the mask is 31×20, its image .* is 30×20; both"),
        (put("masks/c.png", box_mask(30, 20)), "EXIF orientation is ignored"),
        (put("masks/c.png", box_mask(value=0)), "masks/c.png: the mask has no object pixel; remove"),
    ],
)
def test_broken_content_is_found_when_read(
    root: Path, harm: Callable[[Path], None], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    dataset = mine(root)
    harm(root / "mine")
    with pytest.raises(DataError, match=message) as caught:
        check(dataset)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""  # OpenCV's own warnings are silenced


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_a_truncated_jpeg_is_no_image(root: Path, share: float) -> None:
    """OpenCV 4 filled the missing part with grey and said so on stderr only."""
    (root / "mine" / "images" / "c.png").unlink()
    write(root / "mine" / "images" / "c.jpg", photograph(200, 300))
    truncate("images/c.jpg", share)(root / "mine")
    with pytest.raises(DataError, match="no complete image"):
        mine(root).image("c")


def test_an_unknown_name_lists_all_and_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"davos is not a dataset. Did you mean davis\? There are: berkeley,"):
        open_dataset("davos", split="val", data_root=tmp_path)
    with pytest.raises(DataError, match="davis:2017 is not a dataset"):
        open_dataset("davis:2017", split="val", data_root=tmp_path)
    with pytest.raises(DataError, match="Did you mean folder:NAME"):
        open_dataset("folder", split="val", data_root=tmp_path)
    assert names() == sorted(names())
    assert {"berkeley", "coco_tiny", "davis", "ecssd", "folder:NAME", "grabcut", "shapes"} <= set(names())


@given(st.integers(1, 60), st.data())
def test_samples_are_evenly_spaced(total: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, total))
    picked = evenly_spaced(range(total), count, "x")
    gaps = np.diff([*picked, total])  # round the circle: the first is 0
    assert picked[0] == 0
    assert len(picked) == count
    assert gaps.max() - gaps.min() <= 1


def test_samples_are_at_most_so_many(root: Path) -> None:
    assert [sample.key for sample in mine(root, samples=2).samples] == ["a", "b#002"]
    assert mine(root, samples=400).fingerprint() == mine(root).fingerprint()
    with pytest.raises(DataError, match=r"0 samples were asked for; set samples to 1 or more"):
        mine(root, samples=0)


@pytest.mark.parametrize(
    ("name", "count", "size"),
    [("grabcut", 50, None), ("davis", 345, (480, 854)), ("ecssd", 874, None), ("coco_tiny", 228, None)],
)
def test_real_datasets(real_data: Path, name: str, count: int, size: tuple[int, int] | None) -> None:
    assert len(open_dataset(name, split="train", data_root=real_data).samples) == count
    dataset = open_dataset(name, split="train", data_root=real_data, samples=10)
    check(dataset)
    for sample in dataset.samples[:3]:
        image, truth = dataset.image(sample.image_key), dataset.truth(sample.key)
        assert image.shape[:2] == truth.shape == (size or truth.shape)
        assert set(np.unique(truth)) <= {-1, 0, 1}
    assert len(dataset.fingerprint()) == 64
