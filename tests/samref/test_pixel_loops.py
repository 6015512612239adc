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
    compiled = pixel_loops.compiled(twice)
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


def test_what_is_deeper_than_asked_for_is_what_opencvs_distances_say() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        height, width = rng.integers(1, 60, 2)
        cells = rng.integers(0, 3, (-(-height // 6), -(-width // 6)), np.uint8)
        kind = np.ascontiguousarray(np.kron(cells, np.ones((6, 6), np.uint8))[:height, :width])
        kind[rng.random((height, width)) < rng.choice([0, 0.01, 0.2])] = 0
        own = int(rng.integers(1, 3))
        ringed = np.pad((kind == own).astype(np.uint8), 1)
        squared = np.rint(cv2.distanceTransform(ringed, cv2.DIST_L2, 0)[1:-1, 1:-1].astype(np.float64) ** 2)
        columns = pixel_loops.columns(kind)
        for above in (0, 1, 2, int(rng.integers(0, 40)), int(squared.max()), max(0, int(squared.max()) - 1)):
            assert pixel_loops.deeper(kind, columns, own, above).tolist() == np.flatnonzero(squared > above).tolist()
