"""samref.data.coco on LVIS and COCO folders, and samref.data.annotations: the index that is read block by block."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samref.data import DataError, Split, annotations, check, open_dataset
from samref.data.annotations import read_index, read_object

SQUARE = [10.0, 10.0, 60.0, 10.0, 60.0, 50.0, 10.0, 50.0]


def write_image(root: Path, name: str) -> None:
    path = root / "COCO" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8))


def lvis(images: dict[int, str], objects: list[tuple[int, int, Any]]) -> dict[str, Any]:
    """LVIS v1's keys in its order: annotations before images, and no file names but links."""
    link = "http://images.cocodataset.org"
    return {
        "info": {"description": 'LVIS {v1} "é" [x]', "year": 2020},
        "annotations": [
            {"area": 2000.0, "id": i, "segmentation": outline, "image_id": image, "bbox": [10.0, 10.0, 50.0, 40.0]}
            for i, image, outline in objects
        ],
        "images": [
            {"id": i, "coco_url": f"{link}/{name}", "height": 80, "width": 100, "neg_category_ids": [3, 4]}
            for i, name in images.items()
        ],
        "licenses": [],
    }


def write_json(root: Path, file: str, content: dict[str, Any], **style: Any) -> Path:
    path = root / "COCO" / "annotations" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, **style), encoding="utf-8")
    return path


IMAGES = {7: "train2017/000000000007.jpg", 8: "val2017/000000000008.jpg"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in IMAGES.values():
        write_image(tmp_path, name)
    write_json(tmp_path, "lvis_v1_train.json", lvis({7: IMAGES[7]}, [(1, 7, [SQUARE])]))
    runs = {"size": [80, 100], "counts": [80, 2000, 5920]}
    write_json(tmp_path, "lvis_v1_val.json", lvis(IMAGES, [(5, 8, [SQUARE]), (4, 7, [SQUARE, SQUARE]), (6, 7, runs)]))
    return tmp_path


def test_lvis_images_lie_in_both_folders(root: Path) -> None:
    val = open_dataset("coco_lvis", split="val", data_root=root)
    assert [s.key for s in val.samples] == ["000000000007#4", "000000000007#6", "000000000008#5"]
    check(val)
    assert val.truth("000000000008#5")[10:50, 10:60].all()
    assert val.truth("000000000007#6").sum() == 2000
    train = open_dataset("coco_lvis", split="train", data_root=root)
    assert [s.key for s in train.samples] == ["000000000007#1"]
    check(train)
    assert train.fingerprint() != val.fingerprint()


def test_coco_is_the_same_folder_with_its_own_file(root: Path) -> None:
    content = lvis({8: "x/000000000008.jpg"}, [(3, 8, [SQUARE])])
    content["images"][0]["file_name"] = "000000000008.jpg"
    write_json(root, "instances_val2017.json", content)
    dataset = open_dataset("coco", split="val", data_root=root)
    assert [s.key for s in dataset.samples] == ["000000000008#3"]
    check(dataset)


@pytest.mark.parametrize(("name", "split"), [("coco", "train"), ("coco_lvis", "train"), ("coco_lvis", "val")])
def test_what_is_missing_is_named(root: Path, tmp_path: Path, name: str, split: Split) -> None:
    site = "lvisdataset.org" if name == "coco_lvis" else "cocodataset.org"
    with pytest.raises(
        DataError, match=rf"{split}.*\.json: does not exist; {name} \({split}\) needs .*{site}"
    ) as caught:
        open_dataset(name, split=split, data_root=tmp_path / "empty")
    assert "\n" not in str(caught.value)


def test_an_image_missing_in_the_other_folder_is_named(root: Path) -> None:
    (root / "COCO" / IMAGES[7]).unlink()
    with pytest.raises(DataError, match=r"COCO/train2017: 1 images that lvis_v1_val.json names .*000000000007.jpg"):
        open_dataset("coco_lvis", split="val", data_root=root)


def test_a_file_cut_short_is_named(root: Path) -> None:
    path = root / "COCO" / "annotations" / "lvis_v1_train.json"
    whole = path.read_bytes()
    for share in (0, 0.1, 0.5, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(DataError, match=r"lvis_v1_train.json: no COCO instances .* at byte \d+.*cut short"):
            open_dataset("coco_lvis", split="train", data_root=root)


def test_a_file_changed_behind_the_dataset_is_told(root: Path) -> None:
    dataset = open_dataset("coco_lvis", split="val", data_root=root)
    write_json(root, "lvis_v1_val.json", lvis(IMAGES, [(4, 7, [SQUARE]), (5, 8, [SQUARE])]))
    with pytest.raises(DataError, match=r"annotation 5 cannot be read from byte \d+ on; .*changed since it was opened"):
        dataset.truth("000000000008#5")


def test_an_outline_that_is_no_json_is_told(root: Path) -> None:
    """Outlines are passed over when the file is opened; reading one tells."""
    path = write_json(root, "lvis_v1_train.json", lvis({7: IMAGES[7]}, [(1, 7, [SQUARE])]))
    path.write_text(path.read_text().replace("60.0, 50.0", "60.0, , 50.0"))
    with pytest.raises(DataError, match=r"lvis_v1_train.json: annotation 1 cannot be read .* is broken"):
        check(open_dataset("coco_lvis", split="train", data_root=root))


NUMBER = st.one_of(st.integers(0, 10**6), st.floats(0, 1e6), st.sampled_from([1e-7, 2.5e10]))
TEXT = st.text(st.sampled_from('ab{}[]"\\é,: \n'), max_size=8)
OUTLINE = st.one_of(
    st.lists(st.lists(NUMBER, max_size=6), max_size=3),
    st.fixed_dictionaries({"size": st.just([80, 100]), "counts": TEXT}),
)


@given(
    st.lists(st.tuples(OUTLINE, TEXT, st.booleans()), max_size=6), TEXT, st.sampled_from([None, 1]), st.integers(1, 40)
)
def test_the_index_is_what_json_says(
    tmp_path_factory: pytest.TempPathFactory,
    objects: list[tuple[Any, str, bool]],
    note: str,
    indent: int | None,
    block: int,
) -> None:
    """Whatever braces, quotes and blocks fall on; outlines come before or behind the other fields."""
    entries = []
    for identity, (outline, name, last) in enumerate(objects):
        rest = {"id": identity, "area": 7.5, "image_id": 1, "name": name, "iscrowd": identity % 3 // 2}
        entries.append({**rest, "segmentation": outline} if last else {"segmentation": outline, **rest})
    image = {"id": 1, "file_name": f"é{note}", "height": 80, "width": 100}
    content = {"note": note, "annotations": entries, "n": 12345, "images": [image], "more": {"x": [note]}}
    file = tmp_path_factory.mktemp("index") / "file.json"
    file.write_text(json.dumps(content, indent=indent, ensure_ascii=False), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(annotations, "BLOCK_BYTES", block)
        index = read_index(file)
    kept = [entry for entry in entries if not entry["iscrowd"]]
    assert list(index.identities) == [entry["id"] for entry in kept]
    assert index.images == {1: {"name": f"é{note}", "height": 80, "width": 100}}
    for entry, start, length in zip(kept, index.starts, index.lengths, strict=True):
        assert read_object(file, start, length, entry["id"]) == entry
