"""samref.data.coco: keys that a file's author chose, entries that are wrong, and what is left out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from samref.data import DataError, Dataset, check, open_dataset

FOUR = [10, 10, 50, 10, 50, 50, 10, 50]


def box(identity: Any, image_id: Any, **more: Any) -> dict[str, Any]:
    return {"id": identity, "image_id": image_id, "area": 1600, "iscrowd": 0, "segmentation": [FOUR], **more}


def picture(identity: Any, name: Any, **more: Any) -> dict[str, Any]:
    return {"id": identity, "file_name": name, "width": 100, "height": 100, **more}


def tiny(root: Path, images: list[Any], annotations: list[Any]) -> Dataset:
    for number, entry in enumerate(images):
        if isinstance(entry, dict) and isinstance(entry.get("file_name"), str):
            name = entry["file_name"]
            path = root / "COCO_tiny" / (name if "/" in name else f"val2017/{name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), np.full((100, 100, 3), 10 * number, np.uint8))
    (root / "COCO_tiny" / "val2017").mkdir(parents=True, exist_ok=True)
    file = root / "COCO_tiny" / "annotations" / "instances_val2017.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"images": images, "annotations": annotations}))
    return open_dataset("coco_tiny", split="val", data_root=root)


def read_all(root: Path, images: list[Any], annotations: list[Any]) -> None:
    opened = tiny(root, images, annotations)
    opened.fingerprint()
    check(opened)


def test_images_of_one_stem_are_told_apart(tmp_path: Path) -> None:
    names = ["val2017/cam1/1.png", "val2017/cam2/1.png", "val2017/2.png", "val2017/cam1/1.bmp", "val2017/2.png"]
    opened = tiny(
        tmp_path,
        [picture(number, name) for number, name in enumerate(names)],
        [box(10 + number, number) for number in range(len(names))],
    )
    assert [sample.key for sample in opened.samples] == [
        "2#12",
        "2#14",
        "val2017/cam1/1.bmp#13",
        "val2017/cam1/1.png#10",
        "val2017/cam2/1#11",
    ]
    assert [int(opened.image(sample.image_key)[0, 0, 0]) for sample in opened.samples] == [40, 40, 30, 0, 10]


@pytest.mark.parametrize(
    ("images", "annotations", "message"),
    [
        (
            [picture(1, "a.png"), picture(1, "b.png")],
            [box(1, 1)],
            "image 1: its id is that of a.png too, and this is b.png;",
        ),
        (
            [picture(1, "a.png")],
            [box(5, 1), box(5, 1, area=1700)],
            "annotation id 5 is there twice for image a;",
        ),
        ([picture(1, "a.png")], [box(1, 1), box(2, 9), box(3, 8)], r"annotation 2: its image 9 .*and 1 more that are"),
        ([picture(1, "a.png")], [box(1, 1), 7, {"id": 3}], r"annotation 7: it is no object .*and 1 more"),
        ([picture(1, "a.png")], [box("one", 1)], "annotation 'one': its id is 'one', no whole number"),
        ([picture(1, "a.png")], [box(3, 1, iscrowd="maybe")], "annotation 3: its iscrowd is 'maybe', neither 0 nor 1"),
        ([picture(1, "a.png", width=0)], [box(3, 1)], "image 1: its size is 0×100"),
        ([picture(1, "a.png", height=10**9)], [box(3, 1)], "image 1: its size is 100×1000000000"),
        ([picture(1, "a.png"), picture(2, None)], [box(3, 1)], "image 2: its file_name is None"),
        ([picture(1, "a.png")], [box(3, 1, segmentation=FOUR)], "annotation 3: .*10 instead of a polygon"),
        ([picture(1, "a.png")], [box(3, 1, segmentation=[[1e12, 0, 1e12, 9, -1e12, 5]])], "a corner 1e.12 px from its"),
        ([picture(1, "a.png")], [box(3, 1, segmentation=[[np.nan, 0, 1, 1, 2, 2]])], "annotation 3: NaN among its"),
        ([picture(1, "a.png")], [box(3, 1, area=0, segmentation=[[np.inf, 0, 1, 1, 2, 2]])], "annotation 3: Infinity"),
        ([picture(1, "a.png")], [box(3, 1, segmentation={"size": [100, 100]})], "decoded .no 'counts'"),
        ([picture(1, "a.png")], [box(3, 1, segmentation={"size": [10**6] * 2, "counts": [10**12]})], "a size of 10000"),
        ([picture(1, "a.png")], [box(3, 1, segmentation=[[None] * 6])], "annotation 3: its segmentation cannot be"),
    ],
)
def test_wrong_entries_are_named(tmp_path: Path, images: list[Any], annotations: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as told:
        read_all(tmp_path, images, annotations)
    assert "\n" not in str(told.value)


def test_objects_with_a_wrong_area_stay_and_all_that_is_left_out_is_counted(tmp_path: Path) -> None:
    small = [10, 10, 20, 10, 20, 20, 10, 20]
    annotations = [
        box(1, 1, area=0),
        box(2, 1, area=12, bbox=[10, 10, 40, 40]),
        box(3, 1, area=None, segmentation={"size": [100, 100], "counts": [1000, 2000, 7000]}),
        box(4, 1, area=990, bbox=[10, 10, 40, 40]),
        box(5, 1, iscrowd="0"),
        box(6, 1, iscrowd="1"),
        box(7, 1, iscrowd=True),
        box(8, 1, area=100, segmentation=[small], bbox=[10, 10, 10, 10]),
        box(9, 1, area=0, segmentation=[small]),
    ]
    opened = tiny(tmp_path, [picture(1, "a.png")], annotations)
    assert [sample.key for sample in opened.samples] == ["a#1", "a#2", "a#3", "a#5"]
    assert opened.notes() == (
        "2 crowds are left out",
        "3 objects of under 1000 px are left out",
        "3 objects have no area or a wrong one (first: annotation 1); their outlines were measured",
    )


def test_names_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    # A lone surrogate is JSON, and no text.
    file = tmp_path / "COCO_tiny" / "val2017" / os.fsdecode(b"caf\xe9.png")
    file.parent.mkdir(parents=True)
    try:
        file.write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    (tmp_path / "COCO_tiny" / "annotations").mkdir()
    content = {"images": [picture(1, file.name)], "annotations": [box(1, 1)]}
    (tmp_path / "COCO_tiny" / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"the name 'caf\\udce9#1' is no text that can be written; rename"):
        open_dataset("coco_tiny", split="val", data_root=tmp_path)


@pytest.mark.parametrize("escaped", [True, False])
@pytest.mark.parametrize("name", ["caf\u00e9.png", "\u732b.png"])
def test_names_in_other_letters(tmp_path: Path, name: str, escaped: bool) -> None:
    tiny(tmp_path, [picture(1, name)], [box(1, 1)])
    file = tmp_path / "COCO_tiny" / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(content, ensure_ascii=escaped), encoding="utf-8")
    opened = open_dataset("coco_tiny", split="val", data_root=tmp_path)
    assert [sample.key for sample in opened.samples] == [f"{Path(name).stem}#1"]
    check(opened)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: b"\xef\xbb\xbf" + text + b"\n", ""),  # as Windows' programs write it
        (lambda text: text + b"\0" * 512, r"'.x00' behind its end at byte \d+"),  # a crash, or a bad download
        (lambda text: text * 2, "'{' behind its end"),
        (lambda text: text[:-1] + b', "annotations": []}', "'annotations' is there twice"),
        (lambda text: text[:-1], r"it ends at byte \d+"),
        (lambda text: b"", "it ends at byte 0"),
    ],
)
def test_what_is_around_the_objects(tmp_path: Path, change: Callable[[bytes], bytes], message: str) -> None:
    read_all(tmp_path, [picture(1, "a.png")], [box(3, 1)])
    file = tmp_path / "COCO_tiny" / "annotations" / "instances_val2017.json"
    file.write_bytes(change(file.read_bytes()))
    if message:
        with pytest.raises(DataError, match=message):
            open_dataset("coco_tiny", split="val", data_root=tmp_path)
    else:
        check(open_dataset("coco_tiny", split="val", data_root=tmp_path))
