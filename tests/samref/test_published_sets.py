"""pascal_voc, davis585, coco_lvis_ritm and coco_mval in their published layouts, and pickles that would do more."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from samref.config import EvaluateConfig
from samref.data import DataError, MissingDataError, check, open_dataset
from samref.data.davis585 import Davis585
from samref.data.plain_pickle import read_plain
from samref.starts import Starts

Array = NDArray[Any]
PALETTE = [
    tuple(sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3))
    for index in range(256)
]
"""VOC's own rule, VOCdevkit/VOCcode/VOClabelcolormap.m."""


def write(path: Path, pixels: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def photograph() -> Array:
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def box(x: int, value: int = 255) -> Array:
    mask = np.zeros((20, 30), np.uint8)
    mask[5:12, x : x + 6] = value
    return mask


class TestPascalVoc:
    def folder(self, root: Path, below: str = "") -> Path:
        folder = root / "PascalVOC" / below
        indices = np.maximum(box(2, 1), box(14, 2))
        indices[4, :] = 255
        write(folder / "JPEGImages" / "2007_000032.jpg", photograph())
        write(folder / "SegmentationObject" / "2007_000032.png", np.array(PALETTE, np.uint8)[indices][..., ::-1])
        listed = folder / "ImageSets" / "Segmentation" / "val.txt"
        listed.parent.mkdir(parents=True)
        listed.write_text("2007_000032\n")
        return folder

    @pytest.mark.parametrize("below", ["", "VOC2012", "VOCdevkit/VOC2012"])
    def test_an_object_is_an_index_and_the_border_is_ignored(self, tmp_path: Path, below: str) -> None:
        self.folder(tmp_path, below)
        dataset = open_dataset("pascal_voc", split="val", data_root=tmp_path)
        assert [sample.key for sample in dataset.samples] == ["2007_000032#001", "2007_000032#002"]
        check(dataset)
        truth = dataset.truth("2007_000032#002")
        expected = box(14, 1).astype(np.int8)
        expected[4, :] = -1
        assert np.array_equal(truth, expected)

    def test_every_index_of_the_palette_is_known(self, tmp_path: Path) -> None:
        from samref.data.voc import read_indices

        write(tmp_path / "all.png", np.array(PALETTE, np.uint8).reshape(16, 16, 3)[..., ::-1])
        assert np.array_equal(read_indices(tmp_path / "all.png"), np.arange(256).reshape(16, 16))

    def test_another_palette_is_refused(self, tmp_path: Path) -> None:
        folder = self.folder(tmp_path)
        write(folder / "SegmentationObject" / "2007_000032.png", box(2, 1))
        with pytest.raises(DataError, match=r"its colour \(1, 1, 1\) at x 2, y 5 is not of PASCAL VOC's palette"):
            open_dataset("pascal_voc", split="val", data_root=tmp_path)

    def test_what_is_missing_is_said(self, tmp_path: Path) -> None:
        folder = self.folder(tmp_path)
        with pytest.raises(MissingDataError, match=r"train\.txt: does not exist; pascal_voc \(train\) needs"):
            open_dataset("pascal_voc", split="train", data_root=tmp_path)
        (folder / "JPEGImages" / "2007_000032.jpg").unlink()
        with pytest.raises(MissingDataError, match=r"2007_000032\.jpg: this and 0 more files"):
            open_dataset("pascal_voc", split="val", data_root=tmp_path)


class TestDavis585:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        video = tmp_path / "DAVIS585" / "bear"
        write(video / "00009.jpg", photograph())
        for number, x in ((1, 2), (2, 14)):
            write(video / f"object{number}_00009.png", box(x))
            write(video / f"init_sp_object{number}_00009.png", box(x + 1))
            write(video / f"init_stm_object{number}_00009.png", box(x + 2))
        return tmp_path

    def test_objects_share_their_frame_and_have_masks_to_start_from(self, root: Path) -> None:
        dataset = open_dataset("davis585", split="val", data_root=root)
        assert isinstance(dataset, Davis585)
        found = [(sample.key, sample.image_key) for sample in dataset.samples]
        assert found == [("bear/object1_00009", "bear/00009"), ("bear/object2_00009", "bear/00009")]
        check(dataset)
        assert np.array_equal(dataset.truth("bear/object2_00009"), box(14, 1))
        for kind, x in (("sp", 15), ("stm", 16)):
            starts = Starts.open(EvaluateConfig(data="davis585", start=kind), root)
            found = starts.of("bear/object2_00009", dataset.truth("bear/object2_00009"))
            assert np.array_equal(found.mask_HW, box(x, 1))

    def test_what_does_not_fit_is_said(self, root: Path) -> None:
        start = root / "DAVIS585" / "bear" / "init_sp_object1_00009.png"
        write(start, np.zeros((5, 6), np.uint8))
        dataset = open_dataset("davis585", split="val", data_root=root)
        starts = Starts.open(EvaluateConfig(data="davis585", start="sp"), root)
        with pytest.raises(DataError, match="is 6×5 px, its object's mask 30×20"):
            starts.of("bear/object1_00009", dataset.truth("bear/object1_00009"))
        start.unlink()
        with pytest.raises(MissingDataError, match=r"init_sp_object1_00009\.png: this and 0 more files"):
            open_dataset("davis585", split="val", data_root=root)
        shutil.rmtree(root / "DAVIS585")
        with pytest.raises(MissingDataError, match="holds no DAVIS-585"):
            open_dataset("davis585", split="val", data_root=root)


class TestRitmMasks:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        folder = tmp_path / "COCO_LVIS" / "train"
        (folder / "masks").mkdir(parents=True)
        hierarchy = {0: None, 1: {"children": [], "parent": 0, "node_level": 1}}
        listed = {"000000000007": {"num_instance_masks": 2, "hierarchy": hierarchy}}
        (folder / "hannotation.pickle").write_bytes(pickle.dumps(listed))
        layers = [cv2.imencode(".png", np.maximum(box(2, 1), box(14, 2)))[1], cv2.imencode(".png", box(3, 1))[1]]
        (folder / "masks" / "000000000007.pickle").write_bytes(pickle.dumps((layers, [(0, 2), (1, 1), (0, 1)])))
        write(folder / "images" / "000000000007.jpg", photograph())
        return tmp_path

    def test_an_instance_is_a_value_of_a_layer(self, root: Path) -> None:
        dataset = open_dataset("coco_lvis_ritm", split="train", data_root=root)
        assert [sample.key for sample in dataset.samples] == ["000000000007#000", "000000000007#001"]
        check(dataset)
        assert np.array_equal(dataset.truth("000000000007#000"), box(14, 1))
        assert np.array_equal(dataset.truth("000000000007#001"), box(3, 1))

    def test_images_may_be_cocos(self, root: Path) -> None:
        before = open_dataset("coco_lvis_ritm", split="train", data_root=root).fingerprint()
        (root / "COCO").mkdir()
        (root / "COCO_LVIS" / "train" / "images").rename(root / "COCO" / "train2017")
        assert open_dataset("coco_lvis_ritm", split="train", data_root=root).fingerprint() == before
        shutil.rmtree(root / "COCO")
        with pytest.raises(
            MissingDataError, match=r"1 of 1 images are neither there nor in .*samref-data download coco"
        ):
            open_dataset("coco_lvis_ritm", split="train", data_root=root)

    @pytest.mark.parametrize(
        "content",
        [[], {7: {"hierarchy": {}}}, {"../x": {"hierarchy": {0: None}}}, {"x": None}, {"x": {"hierarchy": {-1: None}}}],
        ids=str,
    )
    def test_a_list_of_something_else_is_refused(self, root: Path, content: Any) -> None:
        (root / "COCO_LVIS" / "train" / "hannotation.pickle").write_bytes(pickle.dumps(content))
        with pytest.raises(DataError, match="get it again"):
            open_dataset("coco_lvis_ritm", split="train", data_root=root)

    @pytest.mark.parametrize(
        "content",
        [7, ([], []), ([np.zeros(4, np.uint8)], [(0, 1)]), ([1], [(0, 1)]), ([], [(0,)]), ({}, {0: (0, 1)})],
        ids=str,
    )
    def test_masks_of_something_else_are_refused(self, root: Path, content: Any) -> None:
        (root / "COCO_LVIS" / "train" / "masks" / "000000000007.pickle").write_bytes(pickle.dumps(content))
        dataset = open_dataset("coco_lvis_ritm", split="train", data_root=root)
        with pytest.raises(DataError, match=r"instance 0: holds no such mask .*get it again") as caught:
            dataset.truth("000000000007#000")
        assert "\n" not in str(caught.value)


class Evil:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.arguments


class TestPlainPickle:
    def read(self, tmp_path: Path, content: bytes) -> Any:
        (tmp_path / "x.pickle").write_bytes(content)
        return read_plain(tmp_path / "x.pickle")

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_numbers_text_lists_and_arrays(self, tmp_path: Path, protocol: int) -> None:
        arrays = [
            np.arange(6, dtype="<i4").reshape(2, 3),
            np.asfortranarray(np.eye(3, dtype=">f8"))[:2],
            np.array([True]),
        ]
        value = {"a": [1, 2.5, None, True, "ü"], "b": (b"\xff\0", arrays), "c": np.int64(7), 3: np.float32(0.5)}
        read = self.read(tmp_path, pickle.dumps(value, protocol))
        assert {key: read[key] for key in ("a", "c", 3)} == {"a": value["a"], "c": 7, 3: 0.5}
        assert read["b"][0] == b"\xff\0"
        for one, other in zip(read["b"][1], arrays, strict=True):
            assert one.dtype == other.dtype.newbyteorder("=") or one.dtype == other.dtype
            assert np.array_equal(one, other)

    @pytest.mark.parametrize(
        "call",
        [
            (os.system, "touch EVIL"),
            (eval, "1"),
            (np.load, "x"),
            (getattr, 1, "real"),
            (Path, "x"),
            (bytearray, 10**12),
        ],
        ids=lambda call: call[0].__name__,
    )
    def test_nothing_else_is_made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Any) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(DataError, match=r"it wants .*, which is refused\); get it again"):
            self.read(tmp_path, pickle.dumps([Evil(*call)]))
        assert not (tmp_path / "EVIL").exists()

    @pytest.mark.parametrize(
        "name", ["numpy\nload", "numpy.core.multiarray\nfromfile", "builtins\nexec", "numpy\nndarray"]
    )
    def test_no_name_is_called_by_hand(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(DataError, match="is no pickle of plain data"):
            self.read(tmp_path, f"c{name}\n(I9\ntR.".encode())

    def test_arrays_of_objects_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="an array of 'O8', which are no numbers"):
            self.read(tmp_path, pickle.dumps(np.array([None]), 2))

    def test_a_damaged_pickle_is_one_line(self, tmp_path: Path) -> None:
        whole = pickle.dumps({"a": [np.arange(9), "text", 10**30], "b": (1.5, b"bytes")}, 4)
        random = np.random.default_rng(0)
        for _ in range(150):
            broken = bytearray(whole)
            for at in random.integers(0, len(whole), 3):
                broken[at] = random.integers(256)
            with contextlib.suppress(DataError):  # anything else would be a traceback
                self.read(tmp_path, bytes(broken[: random.integers(1, len(whole) + 1)]))


def test_coco_mval_is_read_as_davis(tmp_path: Path) -> None:
    write(tmp_path / "COCO_MVal" / "img" / "baseball bat00_000000057232.jpg", photograph())
    write(tmp_path / "COCO_MVal" / "gt" / "baseball bat00_000000057232.png", box(3, 1))
    dataset = open_dataset("coco_mval", split="val", data_root=tmp_path)
    assert np.array_equal(dataset.truth("baseball bat00_000000057232"), box(3, 1))


@pytest.mark.parametrize(
    ("name", "place", "found"),
    [
        (
            "davis",
            "DAVIS/JPEGImages/480p/bear/00000.jpg DAVIS/Annotations/480p/bear/00000.png",
            "as its authors publish",
        ),
        ("davis", "DAVIS/DAVIS/img/a.jpg DAVIS/DAVIS/gt/a.png", "unpacked one folder too deep"),
        ("berkeley", "Berkeley/images/train/a.jpg Berkeley/images/val/b Berkeley/images/test/c", "BSDS500's layout"),
        ("sbd", "SBD/JPEGImages/a.jpg SBD/SegmentationObject/a.png", "PASCAL VOC's layout (pascal_voc)"),
        ("coco", "COCO/train/hannotation.pickle", "RITM's COCO+LVIS masks (coco_lvis_ritm)"),
        ("coco_lvis_ritm", "COCO_LVIS/annotations/lvis_v1_train.json", "LVIS's layout (coco_lvis)"),
        ("davis585", "DAVIS585/img/a.jpg DAVIS585/gt/a.png", "RITM's packaging (davis, coco_mval)"),
        ("folder:own", "own/annotations/instances_train2017.json", "COCO's layout (coco, coco_tiny)"),
        ("pascal_voc", "PascalVOC/img/a.jpg PascalVOC/inst/a.mat", "SBD's layout (sbd)"),
        ("hqseg44k", "HQSeg44K/x/DIS5K/a", "unpacked one folder too deep"),
        ("grabcut", "GrabCut/images/a.jpg GrabCut/masks/a.png", "a folder of images and masks"),
    ],
)
def test_a_known_layout_that_is_not_the_wanted_one_is_named(tmp_path: Path, name: str, place: str, found: str) -> None:
    for file in place.split(" "):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    if name == "berkeley":
        (tmp_path / "Berkeley" / "images" / "val" / "b").unlink()
    with pytest.raises(MissingDataError) as caught:
        open_dataset(name, split="train", data_root=tmp_path)
    assert found in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_wanted_layout_with_something_missing_is_no_news(tmp_path: Path) -> None:
    (tmp_path / "COCO" / "annotations").mkdir(parents=True)
    (tmp_path / "COCO" / "annotations" / "instances_val2017.json").touch()
    with pytest.raises(MissingDataError) as caught:
        open_dataset("coco", split="train", data_root=tmp_path)
    assert str(caught.value).endswith("or set the data root")
