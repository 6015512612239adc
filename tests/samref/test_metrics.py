"""samref.metrics: definitions, edge cases, and what a stopped trajectory must not tell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from samref.metrics import iou, mean_iou_at, noc, nof

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
