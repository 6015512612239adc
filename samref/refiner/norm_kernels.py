"""Group norm and GELU as one operation on a GPU, forward and backward, in Triton: what `norm.py` calls there.

torch's group norm has one thread block for each group, which leaves most of a GPU idle at a refiner's few groups of
large maps; and norm, GELU and, under autocast, the casts around them each read and write the whole map. Here the
forward pass reads it twice and writes it once. Statistics are kept in float32 about each channel's first pixel, so that
a large mean costs no digits, and are added up in an order of their own that is always the same: no atomics.

Legend: B samples, C channels (in groups of consecutive ones), P pixels of a map; a map may have any strides in which
one step goes from a pixel to the next, so channels-last and channels-first are alike.
"""

# Triton reads annotations itself, and its functions carry no types that mypy could know.
# mypy: disable-error-code="no-untyped-def, misc, no-untyped-call, untyped-decorator"

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_PROGRAMS = 1024
"""About as many as fill a GPU; together they take each map in parts."""
_TILE = 2048
"""Elements that a program holds at a time."""


@triton.jit
def _gelu_slope(z):
    normal = 0.3989422804014327 * tl.exp(-0.5 * z * z)
    return 0.5 * (1 + tl.erf(z * 0.7071067811865476)) + z * normal


@triton.jit
def _sums(x, before, mean, scale, shift, dy, parts, pixels, channels, sb, sc, sp, gb, gc, gp, splits,
          BACKWARD: tl.constexpr, BEFORE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):  # fmt: skip
    """Write, for each channel of a part of a sample, two sums: of d and d², d the distance to the first pixel; or
    backward of dz and dz·(x - mean), where z is what GELU was taken of."""
    sample, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    c = tl.arange(0, BLOCK_C)
    there = c < channels
    at = sample * channels + c
    base = x + sample * sb + c * sc
    if BACKWARD:
        center = tl.load(mean + at, there, 0.0)
        a, b = tl.load(scale + at, there, 0.0), tl.load(shift + c, there, 0.0)
    else:
        center = tl.load(base, there, 0.0).to(tl.float32)
    if BEFORE and BACKWARD:  # in the forward pass it is part of both sides of the difference
        center = center - tl.load(before + c, there, 0.0)
    first = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    second = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    for start in range(split * BLOCK_P, pixels, splits * BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        inside = (p < pixels)[:, None] & there[None, :]
        value = tl.load(base[None, :] + (p * sp)[:, None], inside, 0.0).to(tl.float32)
        value = tl.where(inside, value - center[None, :], 0.0)
        term = value
        if BACKWARD:
            term = tl.load(dy + sample * gb + (c * gc)[None, :] + (p * gp)[:, None], inside, 0.0).to(tl.float32)
            term = term * _gelu_slope(value * a[None, :] + b[None, :])
        first += term
        second += term * value
    out = parts + (sample * splits + split) * 2 * channels + c
    tl.store(out, tl.sum(first, 0), there)
    tl.store(out + channels, tl.sum(second, 0), there)


@triton.jit
def _added(parts, sample, channels, splits, BLOCK_S: tl.constexpr, BLOCK_C: tl.constexpr):  # fmt: skip
    c = tl.arange(0, BLOCK_C)
    there = c < channels
    first = tl.zeros([BLOCK_S, BLOCK_C], tl.float32)
    second = tl.zeros([BLOCK_S, BLOCK_C], tl.float32)
    for start in range(0, splits, BLOCK_S):
        s = start + tl.arange(0, BLOCK_S)
        inside = (s < splits)[:, None] & there[None, :]
        at = parts + ((sample * splits + s) * 2 * channels)[:, None] + c[None, :]
        first += tl.load(at, inside, 0.0)
        second += tl.load(at + channels, inside, 0.0)
    return tl.sum(first, 0), tl.sum(second, 0)


@triton.jit
def _statistics(x, before, parts, weight, mean, rstd, scale, own, pixels, channels, sb, sc, splits, eps,
                BEFORE: tl.constexpr, GROUPS: tl.constexpr, BLOCK_S: tl.constexpr,
                BLOCK_C: tl.constexpr):  # fmt: skip
    """Write, for each channel of a sample, the mean and 1/σ of its group, weight/σ, and its own mean."""
    sample = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK_C)
    there = c < channels
    width = channels // GROUPS
    first, second = _added(parts, sample, channels, splits, BLOCK_S, BLOCK_C)
    own_mean = tl.load(x + sample * sb + c * sc, there, 0.0).to(tl.float32) + first / pixels
    if BEFORE:
        own_mean += tl.load(before + c, there, 0.0)
    own_square = second - first * first / pixels  # about the channel's own mean
    group_mean = tl.zeros([BLOCK_C], tl.float32)
    group_rstd = tl.zeros([BLOCK_C], tl.float32)
    for group in range(GROUPS):
        inside = (c // width == group) & there
        middle = tl.sum(tl.where(inside, own_mean, 0.0), 0) / width
        off = own_mean - middle
        variance = tl.sum(tl.where(inside, own_square + pixels * off * off, 0.0), 0) / (width * pixels)
        group_mean = tl.where(inside, middle, group_mean)
        group_rstd = tl.where(inside, 1 / tl.sqrt(variance + eps), group_rstd)
    at = sample * channels + c
    tl.store(own + at, own_mean, there)
    tl.store(mean + at, group_mean, there)
    tl.store(rstd + at, group_rstd, there)
    tl.store(scale + at, group_rstd * tl.load(weight + c, there, 0.0), there)


@triton.jit
def _coefficients(parts, weight, mean, rstd, own, sums, factors, pixels, channels, splits,
                  GROUPS: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_C: tl.constexpr):  # fmt: skip
    """Write, for each channel of a sample, two sums and that of dx, and k, l in dx = scale·dz - k - l·(x - mean)."""
    sample = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK_C)
    there = c < channels
    width = channels // GROUPS
    first, second = _added(parts, sample, channels, splits, BLOCK_S, BLOCK_C)
    r, w = tl.load(rstd + sample * channels + c, there, 0.0), tl.load(weight + c, there, 0.0)
    second = second * r
    k = tl.zeros([BLOCK_C], tl.float32)
    m = tl.zeros([BLOCK_C], tl.float32)
    for group in range(GROUPS):
        inside = (c // width == group) & there
        k = tl.where(inside, tl.sum(tl.where(inside, first * w, 0.0), 0) / (width * pixels), k)
        m = tl.where(inside, tl.sum(tl.where(inside, second * w, 0.0), 0) / (width * pixels), m)
    k, m = k * r, m * r * r
    at = sample * channels + c
    off = tl.load(own + at, there, 0.0) - tl.load(mean + at, there, 0.0)
    row = sums + sample * 3 * channels + c
    tl.store(row, first, there)
    tl.store(row + channels, second, there)
    tl.store(row + 2 * channels, r * w * first - pixels * (k + m * off), there)
    tl.store(factors + sample * 2 * channels + c, k, there)
    tl.store(factors + sample * 2 * channels + channels + c, m, there)


@triton.jit
def _apply(x, before, mean, scale, shift, dy, factors, out, pixels, channels, sb, sc, sp, gb, gc, gp, ob, oc, op,
           BACKWARD: tl.constexpr, BEFORE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):  # fmt: skip
    """GELU of the normed map; or backward what the map's gradient is."""
    sample = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK_C)
    there = c < channels
    p = tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)
    inside = (p < pixels)[:, None] & there[None, :]
    at = sample * channels + c
    a, b = tl.load(scale + at, there, 0.0), tl.load(shift + c, there, 0.0)
    value = tl.load(x + sample * sb + (c * sc)[None, :] + (p * sp)[:, None], inside, 0.0).to(tl.float32)
    center = tl.load(mean + at, there, 0.0)
    if BEFORE:
        center = center - tl.load(before + c, there, 0.0)
    value = value - center[None, :]
    z = value * a[None, :] + b[None, :]
    if BACKWARD:
        factor = factors + sample * 2 * channels + c
        k, m = tl.load(factor, there, 0.0), tl.load(factor + channels, there, 0.0)
        dz = tl.load(dy + sample * gb + (c * gc)[None, :] + (p * gp)[:, None], inside, 0.0).to(tl.float32)
        result = dz * _gelu_slope(z) * a[None, :] - k[None, :] - m[None, :] * value
    else:
        result = 0.5 * z * (1 + tl.erf(z * 0.7071067811865476))
    tl.store(out + sample * ob + (c * oc)[None, :] + (p * op)[:, None], result.to(out.dtype.element_ty), inside)


@triton.jit
def _sum(x, y, before, z, out, pixels, channels, xb, xc, xp, yb, yc, yp, zb, zc, zp, ob, oc, op,
         THIRD: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):  # fmt: skip
    """x + y + before, and where there is a third map + z."""
    sample = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK_C)
    there = c < channels
    p = tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)
    inside = (p < pixels)[:, None] & there[None, :]
    total = tl.load(x + sample * xb + (c * xc)[None, :] + (p * xp)[:, None], inside, 0.0).to(tl.float32)
    total += tl.load(y + sample * yb + (c * yc)[None, :] + (p * yp)[:, None], inside, 0.0).to(tl.float32)
    total += tl.load(before + c, there, 0.0)[None, :]
    if THIRD:
        total += tl.load(z + sample * zb + (c * zc)[None, :] + (p * zp)[:, None], inside, 0.0).to(tl.float32)
    tl.store(out + sample * ob + (c * oc)[None, :] + (p * op)[:, None], total.to(out.dtype.element_ty), inside)


class _Shape:
    """How a map B×C×h×w is divided."""

    def __init__(self, x: Tensor) -> None:
        self.batch, self.channels = x.shape[:2]
        self.pixels = x[0, 0].numel()
        self.block_c = triton.next_power_of_2(self.channels)
        self.block_p = max(16, _TILE // self.block_c)
        self.tiles = triton.cdiv(self.pixels, self.block_p)
        self.splits = min(self.tiles, max(16, _PROGRAMS // self.batch), 256)
        self.block_s = max(1, min(64, _TILE // self.block_c))


def _strides(x: Tensor) -> tuple[int, int, int]:
    """From sample to sample, channel to channel, pixel to pixel."""
    return x.stride(0), x.stride(1), x.stride(3)


def _even(x: Tensor) -> Tensor:
    """The map, copied where its rows do not follow each other."""
    return x if x.stride(2) == x.shape[3] * x.stride(3) else x.contiguous(memory_format=torch.channels_last)


class NormGelu(torch.autograd.Function):
    """GELU(group norm(x + before)), of a map B×C×h×w of float32 or bfloat16; the result is of `dtype`, in x's layout.

    `before` is one value a channel, or None: the bias of the convolution that gave x, which costs a pass there.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        before: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        groups: int,
        eps: float,
        dtype: torch.dtype,
    ) -> Tensor:
        """Computed in float32 whatever the types."""
        x = _even(x)
        s = _Shape(x)
        mean, rstd, scale, own = x.new_empty(4, s.batch, s.channels, dtype=torch.float32)
        added = weight if before is None else before
        parts = x.new_empty(s.batch, s.splits, 2, s.channels, dtype=torch.float32)
        out = torch.empty_like(x, dtype=dtype)
        blocks = {"BEFORE": before is not None, "BLOCK_C": s.block_c}
        _sums[(s.batch, s.splits)](
            x, added, mean, scale, bias, x, parts, s.pixels, s.channels, *_strides(x), *_strides(x), s.splits,
            BACKWARD=False, BLOCK_P=s.block_p, **blocks,
        )  # fmt: skip
        _statistics[(s.batch,)](
            x, added, parts, weight, mean, rstd, scale, own, s.pixels, s.channels, *_strides(x)[:2], s.splits, eps,
            GROUPS=groups, BLOCK_S=s.block_s, **blocks,
        )  # fmt: skip
        _apply[(s.batch, s.tiles)](
            x, added, mean, scale, bias, x, mean, out, s.pixels, s.channels, *_strides(x), *_strides(x), *_strides(out),
            BACKWARD=False, BLOCK_P=s.block_p, **blocks,
        )  # fmt: skip
        ctx.save_for_backward(x, added, weight, bias, mean, rstd, scale, own)
        ctx.before = before is not None
        ctx.groups = groups
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the map and of the norm's weight and bias."""
        x, added, weight, bias, mean, rstd, scale, own = ctx.saved_tensors
        dy = _even(gradients[0])
        s = _Shape(x)
        parts = x.new_empty(s.batch, s.splits, 2, s.channels, dtype=torch.float32)
        sums = x.new_empty(s.batch, 3, s.channels, dtype=torch.float32)
        factors = x.new_empty(s.batch, 2, s.channels, dtype=torch.float32)
        out = torch.empty_like(x)
        blocks = {"BEFORE": ctx.before, "BLOCK_C": s.block_c}
        _sums[(s.batch, s.splits)](
            x, added, mean, scale, bias, dy, parts, s.pixels, s.channels, *_strides(x), *_strides(dy), s.splits,
            BACKWARD=True, BLOCK_P=s.block_p, **blocks,
        )  # fmt: skip
        _coefficients[(s.batch,)](
            parts, weight, mean, rstd, own, sums, factors, s.pixels, s.channels, s.splits,
            GROUPS=ctx.groups, BLOCK_S=s.block_s, BLOCK_C=s.block_c,
        )  # fmt: skip
        _apply[(s.batch, s.tiles)](
            x, added, mean, scale, bias, dy, factors, out, s.pixels, s.channels, *_strides(x), *_strides(dy),
            *_strides(out), BACKWARD=True, BLOCK_P=s.block_p, **blocks,
        )  # fmt: skip
        dbias, dweight, dbefore = sums.sum(0)
        return out, dbefore if ctx.before else None, dweight, dbias, None, None, None


class Sum(torch.autograd.Function):
    """x + y + before (+ z) in one pass: maps B×C×h×w, and one value a channel; of x's type and in its layout."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, before: Tensor, z: Tensor | None) -> Tensor:
        """Added up in float32."""
        maps = [_even(each) for each in (x, y, *(() if z is None else (z,)))]
        s = _Shape(maps[0])
        out = torch.empty_like(maps[0])
        _sum[(s.batch, s.tiles)](
            maps[0], maps[1], before, maps[-1], out, s.pixels, s.channels, *_strides(maps[0]), *_strides(maps[1]),
            *_strides(maps[-1]), *_strides(out), THIRD=z is not None, BLOCK_P=s.block_p, BLOCK_C=s.block_c,
        )  # fmt: skip
        ctx.types = (x.dtype, y.dtype, before.dtype, None if z is None else z.dtype)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient itself, and its sum for each channel."""
        (gradient,) = gradients
        first, second, added, third = ctx.types
        channels = gradient.sum((0, 2, 3), dtype=torch.float32).to(added)
        return gradient.to(first), gradient.to(second), channels, None if third is None else gradient.to(third)
