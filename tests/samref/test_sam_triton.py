"""SAM's encoder by Triton kernels against segment-anything's own; without a GPU, Triton's interpreter runs them."""

import logging
import os
import sys

import pytest
import torch
from torch import nn

from samref import backbones

pytest.importorskip("triton")
from samref.backbones import sam_triton

DEVICE = os.environ.get("SAMREF_TEST_DEVICE", "cpu")
TOLERANCE = 1e-5
GRID = 16
# A kernel that faults takes its process along: on a GPU only what was tried in another one is run.
interpreted = pytest.mark.skipif(torch.cuda.is_available(), reason="for Triton's interpreter")


def randomised(module, seed=0):
    """Relative positions and biases that are 0 before they are trained would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if "rel_pos" in name or name.endswith("bias"):
            nn.init.normal_(parameter, std=0.3, generator=generator)
    return module.eval()


@interpreted
@pytest.mark.parametrize(("side", "channels"), [(6, 24), (6, 80), (8, 64), (16, 24), (16, 80)])
@torch.inference_mode()
def test_attention_equals_the_packages(side, channels):
    """Windows that fit the grid, windows that go beyond its edge, and the whole grid; each kind of a head's width."""
    from segment_anything.modeling.image_encoder import Attention, window_partition, window_unpartition

    torch.manual_seed(side + channels)
    theirs = randomised(Attention(2 * channels, 2, use_rel_pos=True, input_size=(side, side)))
    x = torch.randn(2, GRID, GRID, 2 * channels)
    windows, padded = window_partition(x, side)
    expected = window_unpartition(theirs(windows), side, padded, (GRID, GRID))
    torch.testing.assert_close(sam_triton.attention(theirs, x, side), expected, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.slow
@interpreted
@torch.inference_mode()
def test_the_encoder_equals_the_plain_one():
    encoder = randomised(backbones.build("tiny", seed=3).image_encoder)
    encoder.blocks = encoder.blocks[:2]  # one in windows, one global
    images = torch.randn(1, 3, 256, 256, generator=torch.manual_seed(0))
    found = sam_triton.encode(encoder, images, torch.float32)
    torch.testing.assert_close(found, encoder(images), atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.slow
@interpreted
def test_the_kernels_are_tried_before_they_are_used(monkeypatch):
    sam_triton.check("cpu", 160, 2, GRID, 6, torch.float32)
    encoder = backbones.build("tiny").image_encoder
    with pytest.raises(RuntimeError, match="nowhere"):  # in a process of its own
        sam_triton.require(encoder, "nowhere")
    monkeypatch.setattr(sam_triton, "attention", lambda module, x, side: torch.zeros_like(x))  # wrong, but no fault
    with pytest.raises(ArithmeticError, match="differs by 1 of the largest value"):
        sam_triton.check("cpu", 160, 2, GRID, 6, torch.float32)


@interpreted
@torch.inference_mode()
def test_sums_and_norms():
    norm = randomised(nn.LayerNorm(96))
    stream, added = torch.randn(2, 5, 96) + 3, torch.randn(2, 5, 96)
    expected = stream + added
    normed = sam_triton.add_norm(stream, added, norm, torch.float32)
    torch.testing.assert_close(stream, expected)
    torch.testing.assert_close(normed.view(expected.shape), norm(expected))
    torch.testing.assert_close(sam_triton.add_norm(stream, None, norm, torch.float32), normed)


if DEVICE != "cpu":  # Triton's interpreter has no products in bf16

    @pytest.mark.parametrize("name", ["sam_vit_b", "sam_vit_h"])
    def test_the_kernels_work_on_this_card(name):
        with torch.device("meta"):
            encoder = backbones.build(name).image_encoder
        sam_triton.require(encoder, torch.device(DEVICE))

    @torch.inference_mode()
    def test_in_bf16_the_kernels_are_as_close_as_torchs_own():
        backbone = backbones.build("tiny", seed=3)
        randomised(backbone.image_encoder)
        backbone.to(DEVICE)
        images = torch.randint(0, 256, (2, 3, 256, 256), generator=torch.manual_seed(0)).to(DEVICE).float()
        exact = backbone.encode(images)["embedding"]
        with torch.autocast(DEVICE, torch.bfloat16):
            ours = backbone.encode(images)["embedding"]
            assert backbone._kernels_work
            backbone._kernels_work = False
            theirs = backbone.encode(images)["embedding"]
        assert not torch.equal(ours, theirs)
        ours, theirs = (float((each - exact).abs().mean()) for each in (ours, theirs))
        assert ours < 1.2 * theirs < 0.05 * float(exact.abs().mean())


@torch.inference_mode()
def test_without_triton_the_modules_encode_and_one_line_says_so(monkeypatch, caplog):
    backbone = backbones.build("tiny", seed=3)
    images = torch.randn(1, 3, 256, 256, generator=torch.manual_seed(0))
    expected = backbone.encode(images)
    monkeypatch.setattr(backbone, "_takes_kernels", lambda images: True)  # as on a GPU
    monkeypatch.setitem(sys.modules, "samref.backbones.sam_triton", None)  # as where Triton is missing
    monkeypatch.delattr("samref.backbones.sam_triton")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            torch.testing.assert_close(backbone.encode(images), expected, atol=0, rtol=0)
    assert len(caplog.records) == 1
    assert "Triton" in caplog.text
