"""samref.device_clicks against samref.clicks, pixel for pixel; where there is no GPU, Triton interprets its kernels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import Scene, draw_scene

from samref.clicks import Click, errors, next_click

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def assert_judged_as_by_the_host(scenes: list[Scene]) -> None:
    """All scenes at once, their truths in another order than their masks."""
    from samref import device_clicks  # after conftest.py has told Triton to interpret

    height, width = (max(truth.shape[axis] for truth, _, _ in scenes) for axis in (0, 1))
    truths = torch.full((len(scenes), height, width), -1, dtype=torch.int8)
    masks = torch.zeros(truths.shape, dtype=torch.bool)
    clicked = torch.full((len(scenes), max(1, *(len(clicks) for _, _, clicks in scenes)), 2), -1, dtype=torch.int32)
    for i, (truth, mask, clicks) in enumerate(scenes):
        truths[len(scenes) - 1 - i, : truth.shape[0], : truth.shape[1]] = torch.from_numpy(truth)
        masks[i, : mask.shape[0], : mask.shape[1]] = torch.from_numpy(mask)
        for j, click in enumerate(clicks):
            clicked[i, j] = torch.tensor(click[:2])
    order = torch.arange(len(scenes)).flip(0)
    found = device_clicks.judge(*(each.to(DEVICE) for each in (truths, order, masks, clicked))).cpu()
    assert device_clicks.clicks(found[:, 0].tolist(), width) == [next_click(*scene) for scene in scenes]
    assert found[:, 1:].tolist() == [list(errors(truth, mask)[1:]) for truth, mask, _ in scenes]


@settings(max_examples=8)
@given(st.lists(st.tuples(st.integers(0, 2**32), st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=2))
def test_drawn_scenes(drawn: list[tuple[int, int, int]]) -> None:
    assert_judged_as_by_the_host([draw_scene(*each) for each in drawn])


@pytest.mark.parametrize("shape", [(40, 90), (50, 20), (1, 200), (70, 1)])
def test_everything_is_wrong(shape: tuple[int, int]) -> None:
    """Depths beyond what is looked at in one go, equal along a ridge, whose first pixels were clicked."""
    truth = np.ones(shape, np.int8)
    first = next_click(truth, truth == 0, ())
    assert first is not None
    second = next_click(truth, truth == 0, (first,))
    assert second is not None
    extra = np.zeros(shape, np.int8)
    assert_judged_as_by_the_host(
        [
            (truth, truth == 0, []),
            (truth, truth == 0, [first]),
            (extra, extra == 0, [first, second]),
            (truth, truth == 1, []),
        ]
    )


def test_missing_beside_extra() -> None:
    """What is wrong in the other way bounds a depth; of equal depths extra wins; ignored pixels are right."""
    truth = np.zeros((64, 96), np.int8)
    truth[:, :40] = 1
    mask = truth == 0
    mask[:, 80:] = False
    ignored = truth.copy()
    ignored[20:30, 10:30] = -1
    ellipse = np.zeros(truth.shape, np.uint8)
    cv2.ellipse(ellipse, (50, 30), (40, 25), 20, 0, 360, 1, -1)
    assert_judged_as_by_the_host(
        [
            (truth, mask, []),
            (ignored, mask, [Click(4, 4, True)]),
            (ignored, np.zeros(truth.shape, bool), []),
            (ellipse.astype(np.int8), ~ellipse.astype(bool), []),
        ]
    )


def test_images_beyond_the_kernels_numbers_are_refused() -> None:
    from samref import device_clicks

    side = device_clicks.LARGEST_IMAGE + 1
    long = torch.zeros(1, 1, side, dtype=torch.bool)
    with pytest.raises(ValueError, match="32769×1 px"):
        device_clicks.judge(long.to(torch.int8), torch.zeros(1), long, torch.zeros(1, 1, 2))
