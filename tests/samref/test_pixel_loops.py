"""samref.pixel_loops: what tests of clicks do not reach."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from samref import pixel_loops
from samref.clicks import errors, next_click


@pytest.mark.parametrize("frame", [(480, 854), (37, 21), (64, 64), (1, 1), (200, 7)])
@pytest.mark.parametrize("threshold", [0.0, 0.7])
def test_logits_are_compared_as_torch_resizes_them(frame: tuple[int, int], threshold: float) -> None:
    logits = np.random.default_rng(frame[0]).normal(size=(64, 60)).astype(np.float32)
    own = pixel_loops.above(logits, *frame, threshold)
    resized = F.interpolate(torch.from_numpy(logits)[None, None], frame, mode="bilinear")[0, 0].numpy()
    clear = abs(resized - threshold) > 1e-5  # what lies nearer depends on rounding
    assert np.array_equal(own[clear], (resized > threshold)[clear])
    assert clear.mean() > 0.99


def test_what_cannot_be_kept_is_compiled_all_the_same() -> None:
    """A function without a file is one whose compiled code numba finds no place for, like a read-only machine's."""
    scope: dict[str, object] = {}
    exec("def twice(x):\n    return 2 * x", scope)
    twice = scope["twice"]
    assert callable(twice)
    compiled = pixel_loops._compiled(twice)
    assert compiled(21) == 42
    assert compiled.nopython_signatures  # type: ignore[attr-defined]


def test_heights_that_do_not_fit_are_refused() -> None:
    truth = np.zeros((pixel_loops.HIGHEST_IMAGE + 1, 1), np.int8)
    with pytest.raises(ValueError, match="65536 px high"):
        next_click(truth, truth, ())
    truth = np.ones((pixel_loops.HIGHEST_IMAGE, 3), np.int8)
    truth[:, 0] = -1
    click = next_click(truth, np.zeros(truth.shape, bool), ())
    assert click is not None
    assert (click.x, click.y) == (1, 0)


def test_arrays_of_other_types_and_orders_are_taken() -> None:
    truth = np.zeros((30, 40), np.int8)
    truth[3:20, 5:30] = 1
    mask = np.zeros((30, 40), bool)
    mask[10:28, 2:12] = True
    expected = errors(truth, mask)
    truth.flags.writeable = False
    for other in (mask.astype(np.uint8) * 255, np.asfortranarray(mask), mask.astype(np.float32)):
        found = errors(np.asfortranarray(truth.astype(np.int64)), other)
        assert np.array_equal(found.kind_HW, expected.kind_HW)
        assert found[1:] == expected[1:]
    assert np.array_equal(errors(truth, mask).kind_HW, expected.kind_HW)
    assert expected.num_missing == int((truth & ~mask).sum())
    assert expected.num_extra == int((~(truth == 1) & mask).sum())


def test_the_largest_component_is_opencvs_among_equals_too() -> None:
    rng = np.random.default_rng(0)
    assert pixel_loops.largest_component(np.zeros((3, 4), np.uint8)) == (0, 0, 0, 0)
    for trial in range(600):
        height, width = rng.integers(1, 70, 2)
        image = (rng.random((height, width)) < rng.choice([0.003, 0.02, 0.1, 0.3, 0.5, 0.7])).astype(np.uint8)
        if trial % 3 == 0:
            image = cv2.resize(image, (int(3 * width), int(3 * height)), interpolation=cv2.INTER_NEAREST)
        if image.any():
            stats = cv2.connectedComponentsWithStats(image, connectivity=8)[2]
            left, top, width, height, _ = stats[1 + stats[1:, cv2.CC_STAT_AREA].argmax()]
            assert pixel_loops.largest_component(image) == (left, top, left + width, top + height)
