"""Group norm with GELU in Triton against torch's; without a GPU by Triton's interpreter (conftest.py)."""

import contextlib

import pytest
import torch
import torch.nn.functional as F

from samref.refiner.fusion import Fusion
from samref.refiner.norm import GroupNormGelu

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize(
    ("shape", "channels_last", "mean", "dtype"),
    [
        ((2, 16, 24, 20), True, 0.0, torch.float32),
        ((2, 64, 33, 31), True, 100.0, torch.float32),  # a mean that is large beside the spread costs no digits
        ((3, 48, 9, 7), False, 0.0, torch.float32),  # channels that are no power of two, channels first
        ((2, 64, 16, 16), True, 0.0, torch.bfloat16),
    ],
)
def test_triton_gives_torchs_values_and_gradients(shape, channels_last, mean, dtype, monkeypatch):
    pytest.importorskip("triton", reason="there is no Triton for this platform")
    from samref.refiner import norm_kernels

    monkeypatch.setattr(norm_kernels, "_PROGRAMS", 32)  # so that a program takes several tiles of a small map
    generator = torch.Generator().manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = (torch.randn(shape, generator=generator) * 2 + mean).to(DEVICE, dtype)
    x = x.contiguous(memory_format=layout).requires_grad_()
    before, weight, bias = (torch.randn(shape[1], generator=generator).to(DEVICE).requires_grad_() for _ in range(3))
    slope = torch.randn(shape, generator=generator).to(DEVICE, dtype)

    ours = norm_kernels.NormGelu.apply(x, before, weight, bias, 8, 1e-5, dtype)
    exact = [each.detach().double().requires_grad_() for each in (x, before, weight, bias)]
    theirs = F.gelu(F.group_norm(exact[0] + exact[1][:, None, None], 8, *exact[2:]))
    ours.backward(slope)
    theirs.backward(slope.double())

    assert ours.stride() == x.stride()
    given = (x, before, weight, bias)
    pairs = [(ours, theirs), *((own.grad, true.grad) for own, true in zip(given, exact, strict=True))]
    for own, true in pairs:
        # A norm takes most of what is added before it away again, and its gradient is what is left.
        scale = max(true.abs().max(), theirs.abs().max())
        assert (own.double() - true).abs().max() / scale < (1e-2 if dtype == torch.bfloat16 else 1e-5)
    alone = norm_kernels.NormGelu.apply(x, None, weight, bias, 8, 1e-5, dtype)
    theirs = F.gelu(F.group_norm(exact[0], 8, *exact[2:]))
    assert (alone.double() - theirs).abs().max() / theirs.abs().max() < (1e-2 if dtype == torch.bfloat16 else 1e-5)


def test_on_a_cpu_it_is_torchs_own_to_the_bit():
    norm = GroupNormGelu(8, 16)
    x = torch.randn(2, 16, 5, 7)
    assert torch.equal(norm(x), F.gelu(F.group_norm(x, 8, norm.weight, norm.bias)))


@pytest.mark.parametrize("third", [False, True])
def test_sums_are_torchs(third):
    pytest.importorskip("triton", reason="there is no Triton for this platform")
    from samref.refiner.norm_kernels import Sum

    generator = torch.Generator().manual_seed(0)
    x, y, z = (torch.randn(2, 16, 9, 33, generator=generator).to(DEVICE) for _ in range(3))
    maps = [x, y.contiguous(memory_format=torch.channels_last), torch.stack([z, z], dim=1)[:, 1]]
    before = torch.randn(16, generator=generator).to(DEVICE)
    given = [each.clone().requires_grad_() for each in (*maps, before)]
    total = Sum.apply(given[0], given[1], given[3], given[2] if third else None)
    slope = torch.randn(total.shape, generator=generator).to(DEVICE)
    total.backward(slope)
    expected = x + y + before[:, None, None] + (z if third else 0)
    torch.testing.assert_close(total, expected)
    for own in given[: 3 if third else 2]:
        assert torch.equal(own.grad, slope)
    torch.testing.assert_close(given[3].grad, slope.sum((0, 2, 3)))


@pytest.mark.cpu_only("it is the CPU's way against Triton's, by the interpreter")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_fusion_is_the_same_through_triton(monkeypatch, layout):
    """With every bias that waits for a norm or a sum: values, and gradients of all weights."""
    pytest.importorskip("triton", reason="there is no Triton for this platform")
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fusion = Fusion({"embedding": 32, "high_res_0": 8}, width=16, blocks=2, stride=4)
        torch.nn.init.normal_(fusion.heads[-1].weight, std=0.3)
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=generator)
    dense = torch.rand(2, 3, 32, 32, generator=generator)
    features = {
        "embedding": torch.randn(2, 32, 2, 2, generator=generator),
        "high_res_0": torch.randn(2, 8, 8, 8, generator=generator),
    }

    def worked():
        fusion.zero_grad()
        error, detail = fusion(fusion.lateral(image, features), dense)
        (error.square().sum() + detail.square().sum()).backward()
        return [error, detail, *(each.grad for each in fusion.parameters() if each.grad is not None)]

    plain = worked()
    monkeypatch.setattr("samref.refiner.norm.fuses", lambda x: True)
    monkeypatch.setattr("torch.cuda.device", contextlib.nullcontext)
    fusion.to(memory_format=layout)
    for own, expected in zip(worked(), plain, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-3)  # of gradients of up to 100
