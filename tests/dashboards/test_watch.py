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


def test_pictures_show_photograph_outline_and_clicks(write_results: Writer, tmp_path: Path, real_data: Path) -> None:
    """A photograph of GrabCut, found by its sample's name, with the outline of its truth."""
    stem = sorted((real_data / "GrabCut" / "data_GT").iterdir())[0].stem
    write_results(tmp_path, axes={"evaluate.theta": (1.1,)}, settings={"evaluate.data": "grabcut"}, num_samples=6)
    clicks = pq.read_table(tmp_path / "clicks.parquet")
    renamed = [
        row | {"sample": stem if row["sample"].startswith("goat") else row["sample"]} for row in clicks.to_pylist()
    ]
    pq.write_table(pa.Table.from_pylist(renamed, schema=clicks.schema), tmp_path / "clicks.parquet")
    pictures = gather(load([tmp_path]), data_root=real_data).pictures
    first = pictures[0]
    image = cv2.imread(str(next((real_data / "GrabCut" / "data_GT").glob(f"{stem}.*"))))
    assert (first.sample, first.width, first.height) == (stem, image.shape[1], image.shape[0])
    assert first.image.startswith("data:image/jpeg;base64,")
    assert len(first.image) < 60_000
    truth = cv2.imread(str(real_data / "GrabCut" / "boundary_GT" / f"{stem}.bmp"), cv2.IMREAD_UNCHANGED)
    truth = (truth if truth.ndim == 2 else truth[..., 0]) > 128
    drawn = np.zeros(truth.shape, np.uint8)
    for part in first.outline.split("Z")[:-1]:
        points = np.array([point.split() for point in part.lstrip("M").split("L")], dtype=np.int32)
        cv2.fillPoly(drawn, [points], 1)
    assert (drawn.astype(bool) & truth).sum() / (drawn.astype(bool) | truth).sum() > 0.9
    assert [mark.number for mark in first.clicks] == list(range(1, 21))
    assert [picture.image for picture in pictures[1:]] == [""] * (len(pictures) - 1)
    assert main([str(tmp_path), "--no-open", "--data-root", str(real_data)]) == 0
    html = (tmp_path / "dashboard.html").read_text("utf-8")
    assert len(re.findall(r'<image href="data:image/jpeg', html)) == 1
    assert html.count('class="truth"') == 1


def test_a_broken_photograph_is_no_photograph(write_results: Writer, tmp_path: Path) -> None:
    write_results(tmp_path / "results", axes={"evaluate.theta": (1.1,)}, num_samples=6)
    images = tmp_path / "data" / "DAVIS" / "img"
    images.mkdir(parents=True)
    sample = pq.read_table(tmp_path / "results" / "clicks.parquet")["sample"][0].as_py()
    (images / f"{sample}.jpg").write_bytes(b"not a photograph")
    pictures = gather(load([tmp_path / "results"]), data_root=tmp_path / "data").pictures
    assert pictures
    assert {picture.image for picture in pictures} == {""}
