"""samref.data.coco: polygons and run lengths, which objects are samples, and what a broken file is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samref.data import DataError, Dataset, check, open_dataset
from samref.data.coco import MIN_AREA_PX, decode_run_lengths, fill_polygons

SQUARE = [10.0, 10.0, 60.0, 10.0, 60.0, 50.0, 10.0, 50.0]
SMALL = [10.0, 10.0, 30.0, 10.0, 30.0, 50.0, 10.0, 50.0]


def annotation(identity: int, segmentation: Any, area: float = 2000, **more: Any) -> dict[str, Any]:
    return {"id": identity, "image_id": 7, "segmentation": segmentation, "area": area, "iscrowd": 0, **more}


def write_coco(root: Path, annotations: list[dict[str, Any]]) -> None:
    image = root / "COCO_tiny" / "train2017" / "000000000007.jpg"
    image.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(image), np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8))
    file = root / "COCO_tiny" / "annotations" / "instances_train2017.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": 7, "file_name": "000000000007.jpg", "height": 80, "width": 100}]
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": []}))


def coco(root: Path) -> Dataset:
    return open_dataset("coco_tiny", split="train", data_root=root)


def compress(runs: list[int]) -> str:
    """COCO's published text encoding of run lengths (maskApi.c, rleToString)."""
    text = ""
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr((bits | 32 if more else bits) + 48)
    return text


def test_coco_samples_are_objects_of_some_size(tmp_path: Path) -> None:
    crowd = {"size": [80, 100], "counts": [8000]}
    write_coco(
        tmp_path,
        [
            annotation(30, [SQUARE]),
            annotation(4, [SMALL], area=MIN_AREA_PX - 1),
            annotation(5, crowd, iscrowd=1),
            annotation(6, {"size": [80, 100], "counts": [80, 2000, 5920]}, area=MIN_AREA_PX),
        ],
    )
    dataset = coco(tmp_path)
    assert [(s.key, s.image_key) for s in dataset.samples] == [
        ("000000000007#30", "000000000007"),
        ("000000000007#6", "000000000007"),
    ]
    check(dataset)
    truth = dataset.truth("000000000007#6")
    assert truth[:, 0].sum() == 0
    assert truth[:, 1:26].all()
    assert truth[:, 26:].sum() == 0


def test_polygons_cover_their_pixels() -> None:
    truth = fill_polygons([SQUARE, [70.0, 60.0, 99.0, 60.0, 99.0, 79.0, 70.0, 79.0]], 80, 100)
    expected = np.zeros((80, 100), np.int8)
    expected[10:50, 10:60] = 1
    expected[60:79, 70:99] = 1
    assert np.array_equal(truth, expected)
    # Two polygons of one object unite where they overlap; what lies outside the image is cut off.
    assert np.array_equal(fill_polygons([SQUARE, SQUARE], 80, 100)[:55], expected[:55])
    assert fill_polygons([[-30.0, -20.0, 300.0, -20.0, 300.0, 200.0, -30.0, 200.0]], 80, 100).all()
    assert not fill_polygons([[-30.0, -20.0, -5.0, -20.0, -5.0, -2.0]], 80, 100).any()


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=30))
def test_run_lengths_in_both_spellings(runs: list[int]) -> None:
    height = 7
    runs = [*runs, -sum(runs) % height]
    width = sum(runs) // height
    flat = np.concatenate([np.full(run, index % 2) for index, run in enumerate(runs)])
    expected = np.array([[flat[x * height + y] for x in range(width)] for y in range(height)]).reshape(height, width)
    for counts in (runs, compress(runs)):
        assert np.array_equal(decode_run_lengths({"size": [height, width], "counts": counts}), expected)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1.0, 2.0, 3.0]], "annotation 3: its segmentation cannot be decoded .a polygon of 3 numbers"),
        ([[0.1, 0.1, 0.9, 0.1, 0.5, 0.9]], "annotation 3: .*polygons within one pixel"),
        ({"size": [80, 100], "counts": [80, 20]}, "runs of 100 pixels in all for 100×80 px"),
        ({"size": [80, 100], "counts": "o"}, "cannot be decoded"),
        (None, "annotation 3: .* .None instead of polygons or run lengths"),
        ([[1000.0, 1000.0, 1100.0, 1000.0, 1100.0, 1100.0]], "annotation 3: the mask has no object pixel"),
        ({"size": [4, 2], "counts": [0, 8]}, "the mask is 2×4, its image"),
    ],
)
def test_broken_annotations_are_named(tmp_path: Path, segmentation: Any, message: str) -> None:
    write_coco(tmp_path, [annotation(3, segmentation)])
    with pytest.raises(DataError, match=message):
        check(coco(tmp_path))


def test_broken_coco_layouts_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"instances_train2017.json: does not exist; .*cocodataset.org"):
        coco(tmp_path)
    write_coco(tmp_path, [annotation(3, [SQUARE])])
    with pytest.raises(DataError, match=r"instances_val2017\.json: does not exist"):
        open_dataset("coco_tiny", split="val", data_root=tmp_path)
    (tmp_path / "COCO_tiny" / "train2017" / "000000000007.jpg").unlink()
    with pytest.raises(DataError, match=r"1 images that .* names are not there \(first: 000000000007.jpg\)"):
        coco(tmp_path)
    write_coco(tmp_path, [annotation(3, [SMALL], area=10)])
    with pytest.raises(DataError, match="none of its 1 objects has 1000 pixels"):
        coco(tmp_path)
    (tmp_path / "COCO_tiny" / "annotations" / "instances_train2017.json").write_text('{"images": []}')
    with pytest.raises(DataError, match=r"no COCO instances .KeyError: 'annotations'.*segmentation, area"):
        coco(tmp_path)


def test_coco_fingerprint_is_of_the_chosen_objects(tmp_path: Path) -> None:
    write_coco(tmp_path, [annotation(3, [SQUARE])])
    before = coco(tmp_path).fingerprint()
    write_coco(tmp_path, [annotation(3, [SQUARE], category_id=9), annotation(4, [SMALL], area=5)])
    assert coco(tmp_path).fingerprint() == before
    write_coco(tmp_path, [annotation(3, [[*SQUARE[:-1], 49.0]])])
    assert coco(tmp_path).fingerprint() != before


def test_real_polygons_have_their_annotated_area(real_data: Path) -> None:
    dataset = open_dataset("coco_tiny", split="train", data_root=real_data, samples=40)
    content = json.loads((real_data / "COCO_tiny" / "annotations" / "instances_train2017.json").read_text())
    areas = {str(entry["id"]): entry["area"] for entry in content["annotations"]}
    ratios = [
        float((dataset.truth(sample.key) == 1).sum()) / areas[sample.key.partition("#")[2]]
        for sample in dataset.samples
    ]
    assert 0.99 < np.mean(ratios) < 1.03
    assert max(ratios) < 1.1
