"""What an evaluation keeps to be looked at: the last masks of its hardest samples, their photographs and truths.

    masks.npz        sample (index), height, width (px), counts (run lengths of all masks, one after the other;
                     samref.run_lengths), offsets (of each mask's first, and their end)
    photographs.npz  the same of the truths (1 object), and jpeg (bytes of all photographs, one after the other),
                     jpeg_offsets; a photograph is at most SIDE_PX wide and high. Where `evaluate.photographs` says so.

Knows nothing of the network.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from samref.clickloop import Trajectory
from samref.data import Dataset, Image
from samref.run_lengths import RunLengths, encode

KEPT = 16
"""A mask is about a kilobyte, a photograph 20; a page draws eight objects, and of two evaluations those of both."""
SIDE_PX = 400
"""The longer side of a photograph."""
QUALITY = 75


def hardest(path: Sequence[Trajectory], max_clicks: int) -> list[int]:
    """Find the KEPT samples that needed most clicks to IoU 0.9, by index; of equal ones those of lowest last IoU."""

    def ease(index: int) -> tuple[int, float]:
        ious = [record.iou for record in path[index].records]
        return -next((click for click, iou in enumerate(ious, start=1) if iou >= 0.9), max_clicks), ious[-1]

    return sorted((index for index, trajectory in enumerate(path) if trajectory.records), key=ease)[:KEPT]


def write(
    outs: Sequence[Path], paths: Sequence[Sequence[Trajectory]], max_clicks: int, dataset: Dataset | None
) -> None:
    """Write what each evaluation keeps into its folder; photographs and truths where the dataset is given.

    Evaluations that run in one go share samples, each of which is read once.
    """
    read: dict[int, tuple[NDArray[np.uint8], RunLengths]] = {}
    for out, path in zip(outs, paths, strict=True):
        chosen = [index for index in hardest(path, max_clicks) if path[index].mask is not None]
        masks = {index: mask for index in chosen if (mask := path[index].mask) is not None}
        arrays: dict[str, Any] = _packed(masks)
        np.savez_compressed(out / "masks.npz", **arrays)
        if dataset is not None:
            for index in (index for index in chosen if index not in read):
                sample = dataset.samples[index]
                read[index] = small_jpeg(dataset.image(sample.image_key)), encode(dataset.truth(sample.key) == 1)
            jpegs = [read[index][0] for index in chosen]
            arrays = {
                **_packed({index: read[index][1] for index in chosen}),
                "jpeg": np.concatenate([np.zeros(0, np.uint8), *jpegs]),
                "jpeg_offsets": np.cumsum([0, *map(len, jpegs)], dtype=np.int64),
            }
            np.savez(out / "photographs.npz", **arrays)  # a JPEG would not get smaller


def small_jpeg(image: Image) -> NDArray[np.uint8]:
    """Encode an image H×W×3, RGB, as the bytes of a JPEG of at most SIDE_PX; equal images give equal bytes."""
    scale = SIDE_PX / max(image.shape)
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return np.asarray(jpeg, np.uint8).ravel()


def _packed(masks: Mapping[int, RunLengths]) -> dict[str, NDArray[Any]]:
    """Masks by their samples' indices as flat arrays."""
    counts = [mask.counts for mask in masks.values()]
    return {
        "sample": np.array(list(masks), np.int32),
        "height": np.array([mask.height for mask in masks.values()], np.int32),
        "width": np.array([mask.width for mask in masks.values()], np.int32),
        "counts": np.concatenate([np.zeros(0, np.int32), *counts]),
        "offsets": np.cumsum([0, *map(len, counts)], dtype=np.int32),
    }
