"""The hardest objects, pictured: the clicks and the mask that they led to, over the photograph and the truth's outline.

Predicted masks are in masks.parquet, of the objects that were hardest for their evaluation. Photographs and truths are
looked for below a data root, by the names in clicks.parquet.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import duckdb
import numpy as np
from numpy.typing import NDArray

from samref_dashboards.design import Configuration, Design
from samref_dashboards.load import ResultsError
from samref_dashboards.queries import HardObject

SHOWN = 8
"""Objects with a picture; each is about 10 kB."""
SIDE_PX = 360
"""The longer side of a picture."""
_IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_MASKS = {"gt", "masks", "boundary_gt", "annotations", "inst", "cls"}
"""Folders that hold no photographs."""
_BANDED = {"grabcut", "berkeley"}
"""Datasets whose masks have a band of ignored pixels, of value 128."""


class Mark(NamedTuple):
    """One click as a picture shows it."""

    number: int
    x: float
    y: float
    positive: bool
    iou: float


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One object with the clicks and the mask of one trial."""

    dataset: str
    sample: str
    trial: str
    configuration: str
    width: int
    height: int
    """px of the original image; of the smallest frame that holds every click where neither it nor a mask is known."""
    clicks: tuple[Mark, ...]
    image: str
    """Data URI of a JPEG; empty where no photograph was found."""
    outline: str
    """SVG path of the truth in px of the original image; empty where there is none."""
    prediction: str | None
    """SVG path of the mask after the last click, empty where nothing was predicted; None where none was kept."""

    @property
    def radius(self) -> float:
        """The radius of a click's mark, px."""
        return 0.022 * max(self.width, self.height)


def pictures(
    sql: duckdb.DuckDBPyConnection, design: Design, hardest: Sequence[HardObject], data_root: Path | None
) -> list[Picture]:
    """Picture each of the first hardest objects, under the best trial of its dataset."""
    found = []
    files: dict[str, dict[str, list[Path]]] = {}
    shown = [(hard, best) for hard in hardest[:SHOWN] if (best := _best(design, hard.dataset)) is not None]
    samples = {hard.sample for hard, _ in shown}
    clicks = _clicks(sql, {str(each.done[0]["trial"]) for _, each in shown}, samples)
    masks = _masks(sql, {str(each.done[0].get("stage_evaluate")) for _, each in shown}, samples)
    for hard, configuration in shown:
        trial, stage = (str(configuration.done[0].get(name)) for name in ("trial", "stage_evaluate"))
        marks = clicks.get((trial, hard.dataset, hard.sample), ())
        if not marks:
            continue
        if data_root is not None and hard.dataset not in files:
            files[hard.dataset] = _files(data_root, hard.dataset)
        image, outline, size = _read(files.get(hard.dataset, {}), hard.dataset, hard.sample)
        mask = masks.get((stage, hard.sample))
        if size is None and mask is not None:
            size = mask.shape[1], mask.shape[0]
        width, height = size or (int(max(m.x for m in marks)) + 20, int(max(m.y for m in marks)) + 20)
        found.append(
            Picture(
                dataset=hard.dataset,
                sample=hard.sample,
                trial=trial,
                configuration=design.describe(configuration.values, leave_out=["evaluate.data"]),
                width=width,
                height=height,
                clicks=tuple(marks),
                image=image,
                outline=outline,
                prediction=None if mask is None or mask.shape != (height, width) else _outline(mask),
            )
        )
    return found


def _clicks(
    sql: duckdb.DuckDBPyConnection, trials: set[str], samples: set[str]
) -> dict[tuple[str, str, str], list[Mark]]:
    """(trial, dataset, sample) -> its clicks in order."""
    rows = sql.execute(
        "SELECT trial, dataset, sample, click, x, y, positive, iou FROM clicks "
        "WHERE list_contains(?, trial) AND list_contains(?, sample) ORDER BY click",
        [sorted(trials), sorted(samples)],
    ).fetchall()
    found: dict[tuple[str, str, str], list[Mark]] = {}
    for trial, dataset, sample, *mark in rows:
        found.setdefault((trial, dataset, sample), []).append(Mark(*mark))
    return found


def _masks(
    sql: duckdb.DuckDBPyConnection, stages: set[str], samples: set[str]
) -> dict[tuple[str, str], NDArray[np.bool_]]:
    """(stage of the evaluation, sample) -> its last mask H×W."""
    rows = sql.execute(
        # IN, and not list_contains: the masks of the other evaluations are not decoded to rows first.
        "SELECT stage, sample, height, width, counts FROM masks WHERE stage IN ? AND sample IN ?",
        [sorted(stages), sorted(samples)],
    ).fetchall()
    found = {}
    for stage, sample, height, width, counts in rows:
        if min(counts, default=0) < 0 or sum(counts) != width * height:
            raise ResultsError(
                f"masks.parquet: the run lengths of {sample} ({stage}) are not those of {width}×{height} px; "
                "run the sweep's command again"
            )
        # Runs of 0 and 1 in turn, down the columns (COCO's).
        flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        found[stage, sample] = flat.reshape(width, height).T
    return found


def _best(design: Design, data: str) -> Configuration | None:
    """The configuration of lowest NoC90 on this dataset; random weights, or a missing seed, only if all have them."""
    measured = [
        (each.random_weights, summary.n < summary.planned, summary.mean, index)
        for index, each in enumerate(design.configurations)
        if each.data == data and (summary := each.summary("noc_at_90")).mean is not None
    ]
    return design.configurations[min(measured)[-1]] if measured else None


def _files(data_root: Path, dataset: str) -> dict[str, list[Path]]:
    """Image files of a dataset by stem; its folder has its name in any case, or is that of `folder:NAME`."""
    name = dataset.partition(":")[2] or dataset
    exact = [data_root / name] if (data_root / name).is_dir() else []
    plain = re.sub("[_-]", "", name.lower())
    alike = [path for path in sorted(data_root.glob("*/")) if re.sub("[_-]", "", path.name.lower()) == plain]
    found: dict[str, list[Path]] = {}
    for place, _, files in (part for folder in (*exact, *alike)[:1] for part in os.walk(folder)):
        for file in files:
            if file.lower().endswith(_IMAGES):
                found.setdefault(Path(file).stem, []).append(Path(place, file))
    return found


def _read(files: dict[str, list[Path]], dataset: str, sample: str) -> tuple[str, str, tuple[int, int] | None]:
    """(data URI, outline, (width, height)) of a sample; what is not found is empty."""
    # `a#001` is the first object of image `a`; a dataset of several sets writes `SET/a`.
    key = sample.rpartition("/")[2]
    stem = key if key in files else key.rpartition("#")[0]
    images = [file for file in files.get(stem, ()) if file.parent.name.lower() not in _MASKS]
    masks = [file for file in files.get(key, ()) if file.parent.name.lower() in _MASKS]
    pixels = _decode(images[0], cv2.IMREAD_COLOR) if images else None
    if pixels is None:
        return "", "", None
    height, width = pixels.shape[:2]
    scale = SIDE_PX / max(height, width)
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
    _, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 70])
    mask, outline = _decode(masks[0], cv2.IMREAD_UNCHANGED) if masks else None, ""
    if mask is not None and mask.shape[:2] == (height, width):
        first = mask if mask.ndim == 2 else mask.max(axis=2)
        outline = _outline(first > (128 if dataset in _BANDED else 0))
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode(), outline, (width, height)


def _decode(file: Path, how: int) -> Any:
    """Pixels, or None of a file that is no image. OpenCV itself cannot read every path."""
    try:
        data = np.fromfile(file, dtype=np.uint8)
    except OSError:
        return None
    return cv2.imdecode(data, how) if data.size else None


def _outline(inside: NDArray[np.bool_]) -> str:
    """The contours as an SVG path, holes too, to about a pixel of the picture."""
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    tolerance = max(inside.shape) / SIDE_PX
    path = []
    for contour in sorted(contours, key=len, reverse=True)[:20]:
        points = cv2.approxPolyDP(contour, tolerance, True)[:, 0]
        if len(points) > 2:
            path.append("M" + "L".join(f"{x} {y}" for x, y in points.tolist()) + "Z")
    return "".join(path)
