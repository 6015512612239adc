"""`--watch`, and the pictures of the hardest objects."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from samref_dashboards.content import gather
from samref_dashboards.load import load
from samref_dashboards.report import main

Writer = Callable[..., list[dict[str, Any]]]


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


@pytest.mark.slow
def test_watch_rewrites_the_page_when_tables_change(write_results: Writer, tmp_path: Path) -> None:
    folder, page = tmp_path / "results", tmp_path / "page.html"
    folder.mkdir()
    # Whoever starts tests in a shell's background hands down SIGINT ignored.
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", f"{listen}; from samref_dashboards.report import main; raise SystemExit(main())"]
    options = [str(folder), "--watch", "--no-open", "--out", str(page)]
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True) as watching:
        try:
            assert watching.stderr is not None
            assert "no trials.parquet in it" in watching.stderr.readline()
            write_results(folder, not_run=range(4, 8))
            wait_for(lambda: page.exists() and "<b>4</b> of 8 trials done" in page.read_text("utf-8"))
            write_results(folder)
            wait_for(lambda: "<b>8</b> of 8 trials done" in page.read_text("utf-8"))
            assert '<meta http-equiv="refresh"' in page.read_text("utf-8")
        finally:
            watching.send_signal(signal.SIGINT)
        try:
            assert watching.wait(60) == 0
        finally:
            watching.kill()


def test_a_page_that_is_not_watched_does_not_reload(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path)
    assert main([str(tmp_path), "--no-open"]) == 0
    assert 'http-equiv="refresh"' not in (tmp_path / "dashboard.html").read_text("utf-8")


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
        assert (picture.width, picture.height, picture.outline) == (854, 480, "")
        assert picture.prediction is not None
        drawn = filled(picture.prediction, mask.shape)
        assert (drawn & (mask == 1)).sum() / (drawn | (mask == 1)).sum() > 0.98
        assert len(picture.prediction) < 2_000
    html = page_of(tmp_path)
    assert html.count('<path class="prediction"') == 6
    assert html.count("with the predicted mask filled") == 6
    assert html.count("predicted mask after the last click") == 1


def test_an_empty_mask_is_said_and_a_full_one_fills_the_frame(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path, axes={"evaluate.theta": (1.1,)}, num_samples=3)
    replace_masks(tmp_path, np.zeros((40, 60), bool))
    assert {picture.prediction for picture in gather(load([tmp_path])).pictures} == {""}
    html = page_of(tmp_path)
    assert html.count("with nothing predicted") == 3
    assert '<path class="prediction"' not in html
    replace_masks(tmp_path, np.ones((40, 60), bool))
    (whole,) = {picture.prediction for picture in gather(load([tmp_path])).pictures}
    assert whole
    assert filled(whole, (40, 60)).all()


def test_results_without_masks_are_pages_that_say_so(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path, axes={"evaluate.theta": (1.1,)}, num_samples=3)
    replace_masks(tmp_path, None)
    assert {picture.prediction for picture in gather(load([tmp_path])).pictures} == {None}
    html = page_of(tmp_path)
    assert '<path class="prediction"' not in html
    assert "predicted mask" not in html
    assert "a picture without one is of another, or of an older evaluation" in html


def test_pictures_show_photograph_outline_and_clicks(write_results: Writer, tmp_path: Path, real_data: Path) -> None:
    """A photograph of GrabCut, found by its sample's name, with the outline of its truth."""
    stem = sorted((real_data / "GrabCut" / "data_GT").iterdir())[0].stem
    write_results(tmp_path, axes={"evaluate.theta": (1.1,)}, settings={"evaluate.data": "grabcut"}, num_samples=6)
    for name in ("clicks", "masks"):
        table = pq.read_table(tmp_path / f"{name}.parquet")
        renamed = [
            row | {"sample": stem if row["sample"].startswith("goat") else row["sample"]} for row in table.to_pylist()
        ]
        pq.write_table(pa.Table.from_pylist(renamed, schema=table.schema), tmp_path / f"{name}.parquet")
    pictures = gather(load([tmp_path]), data_root=real_data).pictures
    first = pictures[0]
    image = cv2.imread(str(next((real_data / "GrabCut" / "data_GT").glob(f"{stem}.*"))))
    assert (first.sample, first.width, first.height) == (stem, image.shape[1], image.shape[0])
    assert first.image.startswith("data:image/jpeg;base64,")
    assert len(first.image) < 60_000
    truth = cv2.imread(str(real_data / "GrabCut" / "boundary_GT" / f"{stem}.bmp"), cv2.IMREAD_UNCHANGED)
    truth = (truth if truth.ndim == 2 else truth[..., 0]) > 128
    drawn = filled(first.outline, truth.shape)
    assert (drawn & truth).sum() / (drawn | truth).sum() > 0.9
    assert first.prediction is None  # of another size than the photograph
    assert [mark.number for mark in first.clicks] == list(range(1, 21))
    assert [picture.image for picture in pictures[1:]] == [""] * (len(pictures) - 1)
    assert main([str(tmp_path), "--no-open", "--data-root", str(real_data)]) == 0
    html = (tmp_path / "dashboard.html").read_text("utf-8")
    assert len(re.findall(r'<image href="data:image/jpeg', html)) == 1
    assert html.count('<path class="truth"') == 1


def test_a_broken_photograph_is_no_photograph(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path / "results", axes={"evaluate.theta": (1.1,)}, num_samples=6)
    images = tmp_path / "data" / "DAVIS" / "img"
    images.mkdir(parents=True)
    sample = pq.read_table(tmp_path / "results" / "clicks.parquet")["sample"][0].as_py()
    (images / f"{sample}.jpg").write_bytes(b"not a photograph")
    pictures = gather(load([tmp_path / "results"]), data_root=tmp_path / "data").pictures
    assert pictures
    assert {picture.image for picture in pictures} == {""}
