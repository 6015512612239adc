"""Masks to run lengths and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from samref.data.coco import decode_run_lengths
from samref.run_lengths import decode, encode

ONE_PIXEL = np.zeros((3, 4), bool)
ONE_PIXEL[1, 2] = True


@pytest.mark.parametrize(
    ("mask", "counts"),
    [
        (np.zeros((3, 4), bool), [12]),
        (np.ones((3, 4), bool), [0, 12]),
        (ONE_PIXEL, [7, 1, 4]),  # down the columns
        (~ONE_PIXEL, [0, 7, 1, 4]),
    ],
)
def test_runs_are_cocos(mask: np.ndarray, counts: list[int]) -> None:
    found = encode(mask)
    assert (found.height, found.width, found.counts.tolist()) == (3, 4, counts)
    assert np.array_equal(decode_run_lengths({"size": [3, 4], "counts": counts}), mask)


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9), elements=st.booleans()))
def test_a_mask_comes_back(mask: np.ndarray) -> None:
    found = decode(*encode(mask))
    assert found.dtype == np.bool_
    assert np.array_equal(found, mask)


@pytest.mark.parametrize("counts", [[11], [13], [14, -2]])
def test_runs_of_another_size_are_refused(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="pixels in all for 4×3 px"):
        decode(3, 4, counts)
