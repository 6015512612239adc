"""Losses against values worked out by hand or by a plain formula."""

import math

import pytest
import torch
import torch.nn.functional as F

from samref.losses import binary_cross_entropy, dice_loss, error_target, error_weight, normalized_focal_loss
from samref.step import _crop_truth


def logit(p):
    return math.log(p / (1 - p))


def test_normalized_focal_loss_is_the_formula():
    probability = torch.tensor([[0.9, 0.2], [0.6, 0.5]])
    target = torch.tensor([[1, 0], [0, -1]], dtype=torch.int8)
    p_t = [0.9, 0.8, 0.4]
    beta = [(1 - p) ** 2 for p in p_t]
    scale = 3 / sum(beta)
    expected = sum(-0.5 * b * scale * math.log(p) for b, p in zip(beta, p_t, strict=True)) / 3
    found = normalized_focal_loss(torch.logit(probability)[None], target[None])
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_weights_of_one_change_nothing_and_weights_are_normalised():
    logits, target = torch.randn(2, 8, 8), torch.randint(0, 2, (2, 8, 8)).to(torch.int8)
    plain = normalized_focal_loss(logits, target)
    for value in (1.0, 0.5):
        torch.testing.assert_close(normalized_focal_loss(logits, target, torch.full((2, 8, 8), value)), plain)


def test_ignored_pixels_have_no_gradient_and_no_influence():
    target = torch.tensor([[[1, 0, -1]]], dtype=torch.int8)
    for loss in (normalized_focal_loss, dice_loss, binary_cross_entropy):
        logits = torch.tensor([[[0.3, -0.2, 5.0]]], requires_grad=True)
        value = loss(logits, target)
        value.backward()
        assert logits.grad[0, 0, 2] == 0
        assert logits.grad[0, 0, 0] < 0 < logits.grad[0, 0, 1]
        torch.testing.assert_close(value, loss(torch.tensor([[[0.3, -0.2, -9.0]]]), target))


def test_nothing_valid_is_zero_and_not_nan():
    nothing = torch.full((1, 4, 4), -1, dtype=torch.int8)
    for loss in (normalized_focal_loss, dice_loss, binary_cross_entropy):
        assert loss(torch.randn(1, 4, 4), nothing).item() == 0


def test_extreme_logits_stay_finite():
    target = torch.tensor([[[1, 0]]], dtype=torch.int8)
    for logits in (torch.tensor([[[300.0, -300.0]]]), torch.tensor([[[-300.0, 300.0]]])):
        assert math.isfinite(normalized_focal_loss(logits, target).item())


def test_dice():
    target = torch.tensor([[[1, 1, 0, 0]]], dtype=torch.int8)
    perfect = torch.tensor([[[50.0, 50.0, -50.0, -50.0]]])
    assert dice_loss(perfect, target).item() == pytest.approx(0, abs=1e-6)
    half = torch.tensor([[[50.0, -50.0, -50.0, -50.0]]])
    assert dice_loss(half, target).item() == pytest.approx(1 - 3 / 4)  # (2·1 + 1) / (1 + 2 + 1)


def test_error_target_and_its_weight():
    logits = torch.tensor([[[2.0, -1.0, 3.0, -1.0]]])
    target = torch.tensor([[[1, 1, 0, -1]]], dtype=torch.int8)
    wrong = error_target(logits, target)
    assert wrong.tolist() == [[[0, 1, 1, -1]]]
    point = torch.zeros(1, 9, 9)
    point[0, 4, 4] = 1
    weight = error_weight(point)
    assert (weight == 1.0).sum() == 49
    assert (weight == 0.5).sum() == 32


def test_truths_in_windows_are_what_interpolate_makes_of_them():
    truth_BSS = torch.randint(-1, 2, (4, 300, 300), dtype=torch.int8, generator=torch.manual_seed(0))
    windows = [(0, 0, 300, 300), (3, 50, 11, 290), (120, 7, 253, 28), (299, 299, 300, 300)]
    for size in (96, 128, 512):
        for truth, window, found in zip(truth_BSS, windows, _crop_truth(truth_BSS, windows, size), strict=True):
            left, top, right, bottom = window
            crop = truth[None, None, top:bottom, left:right].float()
            assert torch.equal(found.float(), F.interpolate(crop, (size, size), mode="nearest-exact")[0, 0])
