"""The hardest objects, pictured: the clicks and the mask that they led to, over the photograph and the truth's outline.

Predicted masks are in masks.parquet, of the objects that were hardest for their evaluation.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import duckdb
import numpy as np
from numpy.typing import NDArray

from samref_dashboards.design import Configuration, Design
from samref_dashboards.load import ResultsError
from samref_dashboards.photographs import Files, find, photograph, truth
from samref_dashboards.queries import HardObject

SHOWN = 8
"""Objects with a picture; each is about 10 kB."""
SIDE_PX = 360
"""The longer side of a picture."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One click."""

    number: int
    x: float
    y: float
    positive: bool
    iou: float


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One object under one trial."""

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
    """A picture of each of the first hardest objects, under the best trial of its dataset."""
    found = []
    files: dict[str, Files] = {}
    shown = [
        (hard, configuration) for hard in hardest[:SHOWN] if (configuration := _best(design, hard.dataset)) is not None
    ]
    samples = {hard.sample for hard, _ in shown}
    clicks = _clicks(sql, {str(each.done[0]["trial"]) for _, each in shown}, samples)
    masks = _masks(sql, {str(each.done[0].get("stage_evaluate")) for _, each in shown}, samples)
    for hard, configuration in shown:
        trial, stage = (str(configuration.done[0].get(name)) for name in ("trial", "stage_evaluate"))
        marks = clicks.get((trial, hard.dataset, hard.sample), ())
        if not marks:
            continue
        if data_root is not None and hard.dataset not in files:
            files[hard.dataset] = find(data_root, hard.dataset)
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
    for trial, dataset, sample, number, x, y, positive, iou in rows:
        mark = Mark(number=number, x=x, y=y, positive=bool(positive), iou=iou)
        found.setdefault((trial, dataset, sample), []).append(mark)
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


def _read(files: Files, dataset: str, sample: str) -> tuple[str, str, tuple[int, int] | None]:
    """(data URI, outline, (width, height)) of a sample; what is not found is empty."""
    pixels = photograph(files, dataset, sample)
    if pixels is None:
        return "", "", None
    height, width = pixels.shape[:2]
    scale = SIDE_PX / max(height, width)
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 70])
    inside = truth(files, dataset, sample)
    outline = "" if inside is None or inside.shape != (height, width) else _outline(inside)
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode(), outline, (width, height)


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
