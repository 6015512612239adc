"""samref.metrics: definitions, edge cases, and what a stopped trajectory must not tell."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from samref.metrics import boundary, boundary_iou, iou, mean_iou_at, noc, nof

small = hnp.array_shapes(min_dims=2, max_dims=2, max_side=8)
trajectories = st.lists(st.lists(st.floats(0, 1), min_size=5, max_size=5), min_size=1, max_size=6)


@given(st.data())
def test_iou_is_the_definition(data: st.DataObject) -> None:
    shape = data.draw(small)
    truth = data.draw(hnp.arrays(np.int8, shape, elements=st.integers(-1, 1)))
    mask = data.draw(hnp.arrays(np.bool_, shape))
    kept = [(t == 1, bool(m)) for t, m in zip(truth.ravel(), mask.ravel(), strict=True) if t >= 0]
    union = sum(t or m for t, m in kept)
    expected = sum(t and m for t, m in kept) / union if union else 1.0
    assert iou(truth, mask) == iou(truth, mask.astype(np.uint8) * 255) == expected


def test_iou_of_a_view_and_of_nothing() -> None:
    truth = np.zeros((6, 6), np.int8)
    assert iou(truth, truth.astype(bool)) == 1.0
    truth[1:4, 1:4] = 1
    assert iou(truth[::2, ::2], np.ones((6, 6), bool)[::2, ::2]) == pytest.approx(1 / 9)
    with pytest.raises(ValueError, match="one size"):
        iou(truth, np.ones((6, 5), bool))


def plain_boundary(region: np.ndarray, distance: int) -> np.ndarray:
    """Cheng et al.: the mask without its erosion, `distance` times by 3×3, zeros around the image."""
    eroded = np.pad(region, 1).astype(np.uint8)
    eroded = cv2.erode(eroded, np.ones((3, 3), np.uint8), iterations=distance)[1:-1, 1:-1]
    return region & (eroded == 0)


@given(st.integers(0, 2**32), st.integers(2, 90), st.integers(2, 90), st.sampled_from([0.02, 0.1]))
def test_boundary_iou_is_the_definition(seed: int, height: int, width: int, dilation: float) -> None:
    rng = np.random.default_rng(seed)
    coarse = rng.random((2, -(-height // 9), -(-width // 9))) < 0.7
    truth, mask = (np.kron(each, np.ones((9, 9), bool))[:height, :width] for each in coarse)
    distance = max(1, round(dilation * np.hypot(height, width)))
    a, b = plain_boundary(truth, distance), plain_boundary(mask, distance)
    expected = (a & b).sum() / (a | b).sum() if (a | b).any() else 1.0
    assert boundary_iou(truth.astype(np.int8), mask, dilation=dilation) == expected


@given(st.data())
def test_ignored_pixels_change_no_boundary_iou(data: st.DataObject) -> None:
    shape = data.draw(small)
    truth = data.draw(hnp.arrays(np.int8, shape, elements=st.integers(-1, 1)))
    mask, other = (data.draw(hnp.arrays(np.bool_, shape)) for _ in range(2))
    assert boundary_iou(truth, mask) == boundary_iou(truth, np.where(truth < 0, other, mask))
    assert boundary_iou(truth, truth == 1) == 1.0
    assert boundary_iou(truth, mask, true_boundary_HW=boundary(truth == 1)) == boundary_iou(truth, mask)


def test_boundary_iou_feels_a_contour_that_iou_hardly_does() -> None:
    truth = np.zeros((300, 400), np.int8)
    truth[50:250, 50:350] = 1
    mask = truth == 1
    mask[50:60, 50:350] = False  # one edge ten pixels off; the boundary is 10 px wide
    assert iou(truth, mask) == 0.95
    # Each ring is 10 px wide: 300·200 - 280·180 = 9600 px and 300·190 - 280·170 = 9400. Two columns of 10·190 and the
    # lower edge's 280·10 are shared: 6600.
    assert boundary_iou(truth, mask) == 6600 / (9600 + 9400 - 6600)


def test_noc_and_nof_as_ritm_counts() -> None:
    ious = [[0.5, 0.9, 0.8], [0.1, 0.2, 0.9], [0.1, 0.2, 0.3]]
    assert noc(ious, 0.9, max_clicks=3).tolist() == [2, 3, 3]
    # The second sample succeeds at the last click; RITM's code counts it as failed.
    assert nof(ious, 0.9, max_clicks=3) == 2
    assert noc([], 0.9).tolist() == []


def test_clicks_after_the_last_one_do_not_count() -> None:
    assert noc([[0.1, 0.2, 0.95]], 0.9, max_clicks=2).tolist() == [2]


@given(trajectories, st.floats(0.01, 1))
def test_stopping_early_changes_no_noc_up_to_the_stop(ious: list[list[float]], stop: float) -> None:
    stopped = [t[: next((i + 1 for i, v in enumerate(t) if v >= stop), len(t))] for t in ious]
    for k in (stop, stop / 2):
        assert noc(stopped, k, max_clicks=5).tolist() == noc(ious, k, max_clicks=5).tolist()
        assert nof(stopped, k, max_clicks=5) == nof(ious, k, max_clicks=5)


@given(trajectories)
def test_noc_grows_with_the_threshold(ious: list[list[float]]) -> None:
    counts = [noc(ious, k, max_clicks=5) for k in (0.1, 0.5, 0.9)]
    assert (counts[0] <= counts[1]).all()
    assert (counts[1] <= counts[2]).all()


def test_a_stopped_trajectory_does_not_tell_higher_thresholds() -> None:
    ious = [[0.2, 0.97], [0.5, 0.91]]
    assert noc(ious, 0.9).tolist() == [2, 2]
    assert noc(ious[:1], 0.95).tolist() == [2]  # reached on the way: exact
    with pytest.raises(ValueError, match=r"sample 1 stopped after 2 of 20 clicks below IoU 0.95"):
        noc(ious, 0.95)
    with pytest.raises(ValueError, match="sample 1"):
        nof(ious, 0.95)


def test_mean_iou_at() -> None:
    assert mean_iou_at([[0.2, 0.4], [0.6, 0.8]], 2) == pytest.approx(0.6)
    with pytest.raises(ValueError, match="1 of 2 samples have fewer than 2 clicks"):
        mean_iou_at([[0.2, 0.4], [0.95]], 2)
    with pytest.raises(ValueError, match="no sample"):
        mean_iou_at([], 1)
    with pytest.raises(ValueError, match="from 1"):
        mean_iou_at([[0.5]], 0)
