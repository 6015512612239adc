"""The hardest objects, pictured: photograph, truth, clicks and mask, of the baseline and of the best side by side.

Masks, photographs and truths are those that evaluations keep of the objects that were hardest for them.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from samref_dashboards.comparisons import Comparisons
from samref_dashboards.design import DATA, Configuration, Design
from samref_dashboards.load import Database, ResultsError
from samref_dashboards.queries import HardObject

SHOWN = 8
"""Objects with a picture, of all datasets; each is about 30 kB."""
SIDE_PX = 400
"""The longer side of a picture; outlines need no more points."""

Key = tuple[str, str]


class Mark(NamedTuple):
    """One click as a picture shows it."""

    number: int
    x: float
    y: float
    positive: bool
    iou: float


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one trial made of an object."""

    role: str
    """`baseline` and `best`, or `next` and `alike` where the baseline is the best; empty where there is but one."""
    trial: str
    configuration: str
    clicks: tuple[Mark, ...]
    prediction: str | None
    """SVG path of the mask after the last click, empty where nothing was predicted; None where none was kept."""

    @property
    def reached(self) -> str:
        """How many clicks it took to IoU 0.9."""
        first = next((mark.number for mark in self.clicks if mark.iou >= 0.9), None)
        last = self.clicks[-1]
        return f"IoU 90 % at click {first}" if first else f"IoU {100 * last.iou:.0f} % after {last.number} clicks"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One object, under one or two configurations."""

    dataset: str
    sample: str
    width: int
    height: int
    """px of the original image; of the smallest frame that holds every click where neither it nor a mask is known."""
    image: str
    """Data URI of a JPEG; empty where no photograph was kept."""
    outline: str
    """SVG path of the truth in px of the original image; empty where none was kept."""
    sides: tuple[Side, ...]

    @property
    def radius(self) -> float:
        """The radius of a click's mark, px."""
        return 0.022 * max(self.width, self.height)


def pictures(sql: Database, design: Design, comparisons: Comparisons, hardest: Sequence[HardObject]) -> list[Picture]:
    """Picture the hardest objects of each dataset, those first whose masks both configurations have."""
    found: list[Picture] = []
    for data in design.datasets:
        sides = _sides(design, comparisons, data)
        trials = [each.done[0] for _, each in sides]
        samples = [hard.sample for hard in hardest if hard.dataset == data]
        clicks = _clicks(sql, [trial["trial"] for trial in trials], samples)
        masks = _masks(sql, [str(trial.get("stage_evaluate")) for trial in trials], samples)
        photographs = _photographs(sql, [str(trial.get("evaluate_data_fingerprint")) for trial in trials[:1]], samples)
        samples = [sample for sample in samples if all((trial["trial"], sample) in clicks for trial in trials)]
        samples.sort(key=lambda sample: sum((str(t.get("stage_evaluate")), sample) not in masks for t in trials))
        for sample in samples[: max(2, SHOWN // len(design.datasets))] if sides else ():
            about = [(role, each, clicks[each.done[0]["trial"], sample]) for role, each in sides]
            kept = [masks.get((str(trial.get("stage_evaluate")), sample)) for trial in trials]
            jpeg, truth = photographs.get(sample, (b"", None))
            known = [mask.shape for mask in (truth, *kept) if mask is not None]
            marks = [mark for *_, own in about for mark in own]
            frame = int(max(mark.y for mark in marks)) + 20, int(max(mark.x for mark in marks)) + 20
            height, width = known[0] if known else frame
            made = [
                Side(
                    role=role,
                    trial=each.done[0]["trial"],
                    configuration=design.describe(each.values, leave_out=[DATA]),
                    clicks=tuple(own),
                    prediction=None if mask is None or mask.shape != (height, width) else _outline(mask),
                )
                for (role, each, own), mask in zip(about, kept, strict=True)
            ]
            image = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" if jpeg else ""
            outline = "" if truth is None else _outline(truth)
            size = {"width": width, "height": height}
            found.append(Picture(dataset=data, sample=sample, image=image, outline=outline, sides=tuple(made), **size))
    return found


def _sides(design: Design, comparisons: Comparisons, data: str) -> list[tuple[str, Configuration]]:
    """(role, configuration) of a dataset's baseline and its best, or the next where the baseline is the best."""
    ranked = [
        (each.random_weights, summary.n < summary.planned, round(summary.mean, 2), index)
        for index, each in enumerate(design.configurations)
        if each.data == data and (summary := each.summary("noc_at_90")).mean is not None
    ]
    (random, *lowest, _), *others = sorted(ranked) or [(True, False, 0.0, 0)]
    order = [design.configurations[index] for *_, index in sorted(ranked)]
    own = [one for one in comparisons.differences if one.configuration.data == data]
    own.sort(key=lambda one: one.configuration is not order[0])  # the best's own baseline first
    if random or not others or not own:
        return [("", each) for each in order[:1]]
    base = own[0].baseline
    best = next(each for each in order if each is not base)
    alike = others[0][1:3] == tuple(lowest)
    return [("baseline", base), ("alike" if alike else "next" if order[0] is base else "best", best)]


def _clicks(sql: Database, trials: Sequence[str], samples: Sequence[str]) -> dict[Key, list[Mark]]:
    """(trial, sample) -> its clicks in order."""
    rows = sql.execute(
        "SELECT trial, sample, click, x, y, positive, iou FROM clicks "
        "WHERE list_contains(?, trial) AND list_contains(?, sample) ORDER BY click",
        [list(trials), list(samples)],
    ).fetchall()
    found: dict[Key, list[Mark]] = {}
    for trial, sample, *mark in rows:
        found.setdefault((trial, sample), []).append(Mark(*mark))
    return found


def _masks(sql: Database, stages: Sequence[str], samples: Sequence[str]) -> dict[Key, NDArray[np.bool_]]:
    """(stage of the evaluation, sample) -> its last mask H×W."""
    rows = sql.execute(
        # IN, and not list_contains: the masks of the other evaluations are not decoded to rows first.
        "SELECT stage, sample, height, width, counts FROM masks WHERE stage IN ? AND sample IN ?",
        [list(stages), list(samples)],
    ).fetchall()
    return {(stage, sample): _decoded("masks", f"{sample} ({stage})", *run) for stage, sample, *run in rows}


def _photographs(
    sql: Database, data: Sequence[str], samples: Sequence[str]
) -> dict[str, tuple[bytes, NDArray[np.bool_]]]:
    """Sample -> its photograph as JPEG, and its truth H×W."""
    rows = sql.execute(
        "SELECT sample, jpeg, height, width, counts FROM photographs WHERE data IN ? AND sample IN ?",
        [list(data), list(samples)],
    ).fetchall()
    return {sample: (jpeg, _decoded("photographs", sample, *run)) for sample, jpeg, *run in rows}


def _decoded(table: str, what: str, height: int, width: int, counts: Sequence[int]) -> NDArray[np.bool_]:
    """The mask of COCO's run lengths: runs of 0 and 1 in turn, down the columns; `what` they are of, for a message."""
    if min(counts, default=0) < 0 or sum(counts) != width * height:
        raise ResultsError(
            f"{table}.parquet: the run lengths of {what} are not those of {width}×{height} px; "
            "run the sweep's command again"
        )
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    mask: NDArray[np.bool_] = flat.reshape(width, height).T
    return mask


def _outline(inside: NDArray[np.bool_]) -> str:
    """The contours as an SVG path, holes too, to about a pixel of the picture."""
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    tolerance = max(inside.shape) / SIDE_PX
    path = []
    for contour in sorted(contours, key=len, reverse=True)[:20]:
        points: Any = cv2.approxPolyDP(contour, tolerance, True)[:, 0]
        if len(points) > 2:
            path.append("M" + "L".join(f"{x} {y}" for x, y in points.tolist()) + "Z")
    return "".join(path)
