"""The click loop as public evaluators have it: one object, one click, one θ at a time."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch.nn.functional as F

from samref.clicks import Click
from samref.refiner import SamRef
from samref.refiner.selector import paste_on_global


def plain_object(network: SamRef, context: Any, truth: Any, theta: float, max_clicks: int) -> list[float]:
    """One object, click by click; the IoU after each."""
    mask, not_clicked = np.zeros(truth.shape, bool), np.ones(truth.shape, bool)
    clicks: list[Click] = []
    ious: list[float] = []
    coarse = result = area = None
    for _ in range(max_clicks):
        click = plain_click(truth, mask, not_clicked)
        if click is None:
            break
        clicks.append(click)
        not_clicked[click.y, click.x] = False
        found = network(context, [clicks], coarse, None if result is None else [result], [truth.shape])
        coarse = found.coarse_B1MM
        if found.patch is None:
            logits = F.interpolate(found.result_B1MM, truth.shape, mode="bilinear", align_corners=False)[0, 0]
        else:
            now = int(found.error_area_B[0])
            on_global = area is None or paste_on_global(now / max(1, area), theta)
            logits = result = network.paste(found, 0, None if on_global else result, truth.shape)
            area = now
        mask = (logits > network.backbone.threshold).cpu().numpy()
        valid = truth != -1
        union = np.logical_and(np.logical_or(mask, truth == 1), valid).sum()
        ious.append(float(np.logical_and(np.logical_and(mask, truth == 1), valid).sum() / union) if union else 1.0)
    return ious


def plain_click(truth: Any, mask: Any, not_clicked: Any) -> Click | None:
    """The published rule (docs/method.md), with distance transforms of the whole padded image."""
    depths = []
    for wrong in (
        np.logical_and(np.logical_and(truth == 1, ~mask), truth != -1),
        np.logical_and(np.logical_and(truth == 0, mask), truth != -1),
    ):
        padded = np.pad(wrong, 1, "constant").astype(np.uint8)
        depths.append(cv2.distanceTransform(padded, cv2.DIST_L2, 0)[1:-1, 1:-1] * not_clicked)
    positive = bool(depths[0].max() > depths[1].max())
    depth = depths[0] if positive else depths[1]
    if depth.max() == 0:
        return None
    rows, columns = np.where(depth == depth.max())
    return Click(int(columns[0]), int(rows[0]), positive)
