"""samref.device_clicks against OpenCV and samref.clicks, pixel for pixel; on CUDA as well where there is one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import draw_scene

from samref.clicks import next_click
from samref.device_clicks import judge, squared_distances
from samref.metrics import iou, iou_of_counts

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 50), st.integers(1, 50), st.sampled_from([0.05, 0.5, 0.9, 0.99, 1.0]))
def test_distances_equal_opencv(device: str, seed: int, height: int, width: int, share: float) -> None:
    wrong = np.random.default_rng(seed).random((3, height, width)) < share
    found = squared_distances(torch.from_numpy(wrong).to(device)).cpu().numpy()
    for map_HW, squared in zip(wrong, found, strict=True):
        padded = np.pad(map_HW, 1).astype(np.uint8)
        expected = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
        np.testing.assert_array_equal(squared, np.rint(expected.astype(np.float64) ** 2))


def test_distances_in_a_large_region_are_exact() -> None:
    wrong = np.zeros((1, 300, 420), np.uint8)
    cv2.ellipse(wrong[0], (200, 150), (180, 120), 20, 0, 360, 1, -1)
    wrong[0, 150, 210] = 0
    found = squared_distances(torch.from_numpy(wrong.astype(bool)))[0].numpy()
    expected = cv2.distanceTransform(wrong[0], cv2.DIST_L2, cv2.DIST_MASK_PRECISE).astype(np.float64)
    np.testing.assert_array_equal(found, np.rint(expected**2))


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=4))
def test_judges_many_sizes_at_once_as_one_at_a_time(device: str, drawn: list[tuple[int, int, int]]) -> None:
    scenes = [draw_scene(*each) for each in drawn]
    height, width = (max(truth.shape[axis] for truth, _, _ in scenes) for axis in (0, 1))
    truths = torch.full((len(scenes), height, width), -1, dtype=torch.int8)
    masks = torch.zeros(truths.shape, dtype=torch.bool)
    for i, (truth, mask, _) in enumerate(scenes):
        truths[i, : truth.shape[0], : truth.shape[1]] = torch.from_numpy(truth)
        masks[i, : mask.shape[0], : mask.shape[1]] = torch.from_numpy(mask)
    counts, clicks = judge(truths.to(device), masks.to(device), [each for _, _, each in scenes])
    assert clicks == [next_click(*scene) for scene in scenes]
    assert [iou_of_counts(*count) for count in counts] == [iou(truth, mask) for truth, mask, _ in scenes]
