"""The pictures of the hardest objects: photograph, truth, mask and clicks, of two configurations side by side."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from samref_dashboards.content import gather
from samref_dashboards.load import load
from samref_dashboards.report import main

Writer = Callable[..., list[dict[str, Any]]]


def filled(path: str, shape: tuple[int, int]) -> np.ndarray:
    """What an SVG path of polygons encloses, by the even-odd rule."""
    polygons = [
        np.array([point.split() for point in part.lstrip("M").split("L")], dtype=np.int32)
        for part in path.split("Z")[:-1]
    ]
    return cv2.fillPoly(np.zeros(shape, np.uint8), polygons, 1).astype(bool)


def replace_masks(folder: Path, mask: np.ndarray | None) -> None:
    """Give every kept object this mask H×W; None deletes the table."""
    file = folder / "masks.parquet"
    if mask is None:
        return file.unlink()
    # Plainly: pixel by pixel down the columns.
    counts, value = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    table = pq.read_table(file)
    size = {"height": mask.shape[0], "width": mask.shape[1], "counts": counts}
    rows = [row | size for row in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)
    return None


def page_of(folder: Path) -> str:
    assert main([str(folder), "--no-open"]) == 0
    return (folder / "dashboard.html").read_text("utf-8")


def test_pictures_show_the_mask_with_its_holes(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path, axes={"evaluate.theta": (1.1,)}, num_samples=6)
    mask = np.zeros((480, 854), np.uint8)
    cv2.circle(mask, (300, 200), 150, 1, -1)
    cv2.circle(mask, (320, 220), 60, 0, -1)
    cv2.rectangle(mask, (700, 0), (853, 90), 1, -1)
    replace_masks(tmp_path, mask.astype(bool))
    pictures = gather(load([tmp_path])).pictures
    assert len(pictures) == 6
    for picture in pictures:
        (side,) = picture.sides
        assert (picture.width, picture.height) == (854, 480)
        assert side.prediction is not None
        drawn = filled(side.prediction, mask.shape)
        assert (drawn & (mask == 1)).sum() / (drawn | (mask == 1)).sum() > 0.98
        assert len(side.prediction) < 2_000
    html = page_of(tmp_path)
    assert html.count('<path class="prediction"') == 6
    assert html.count("with the predicted mask filled") == 6
    assert html.count("predicted mask after the last click") == 1


def test_an_empty_mask_is_said_and_a_full_one_fills_the_frame(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path, axes={"evaluate.theta": (1.1,)}, num_samples=3)
    (tmp_path / "photographs.parquet").unlink()
    replace_masks(tmp_path, np.zeros((40, 60), bool))
    assert {side.prediction for picture in gather(load([tmp_path])).pictures for side in picture.sides} == {""}
    html = page_of(tmp_path)
    assert html.count("with nothing predicted") == 3
    assert '<path class="prediction"' not in html
    replace_masks(tmp_path, np.ones((40, 60), bool))
    (whole,) = {side.prediction for picture in gather(load([tmp_path])).pictures for side in picture.sides}
    assert whole
    assert filled(whole, (40, 60)).all()


def test_results_without_masks_are_pages_that_say_so(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path, axes={"evaluate.theta": (1.1,)}, num_samples=3)
    replace_masks(tmp_path, None)
    assert {side.prediction for picture in gather(load([tmp_path])).pictures for side in picture.sides} == {None}
    html = page_of(tmp_path)
    assert '<path class="prediction"' not in html
    assert "predicted mask" not in html
    assert "a picture without one is of another, or of an older evaluation" in html


def test_the_same_object_stands_side_by_side_with_its_photograph_once(write_results: Writer, tmp_path: Path) -> None:
    grid = {"model.refiner": ("none", "gfr+lfr"), "evaluate.data": ("davis", "grabcut")}
    trials = write_results(tmp_path, axes=grid)
    noc = {(t["evaluate.data"], t["model.refiner"]): round(t["noc_at_90"], 2) for t in trials}
    pictures = gather(load([tmp_path])).pictures
    assert [picture.dataset for picture in pictures] == ["davis"] * 4 + ["grabcut"] * 4
    for picture in pictures:
        first, second = picture.sides
        assert first.role == "baseline"
        assert "refiner none" in first.configuration
        more = noc[picture.dataset, "gfr+lfr"] - noc[picture.dataset, "none"]
        assert second.role == ("best" if more < 0 else "next" if more else "alike")
        assert [mark.number for mark in first.clicks] == list(range(1, 21))
        assert filled(picture.outline, (480, 854)).sum() > 19_000  # of 200×100
    html = page_of(tmp_path)
    assert len(re.findall(r'<image id="photograph-\d" href="data:image/jpeg;base64,', html)) == 8
    assert len(re.findall(r'<use href="#photograph-\d"/>', html)) == 8


def test_an_object_whose_mask_both_kept_comes_before_a_harder_one(write_results: Writer, tmp_path: Path) -> None:
    trials = write_results(tmp_path, axes={"model.refiner": ("none", "gfr+lfr")}, num_samples=12)
    hardest = [picture.sample for picture in gather(load([tmp_path])).pictures]
    table = pq.read_table(tmp_path / "masks.parquet")
    kept = [r for r in table.to_pylist() if (r["stage"], r["sample"]) != (trials[0]["stage_evaluate"], hardest[0])]
    pq.write_table(pa.Table.from_pylist(kept, schema=table.schema), tmp_path / "masks.parquet")
    assert [picture.sample for picture in gather(load([tmp_path])).pictures[:7]] == hardest[1:]


def test_every_dataset_has_its_own_hardest_objects(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path, axes={"evaluate.data": ("davis", "grabcut", "sbd")})
    content = gather(load([tmp_path]))
    table = next(table for table in content.tables if table.name == "hardest")
    assert [row.cells[1].text for row in table.rows].count("sbd") == 6
    assert {picture.dataset for picture in content.pictures} == {"davis", "grabcut", "sbd"}
