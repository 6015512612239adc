"""SAM's image encoder on CUDA: attention with relative positions, and sums with norms, as Triton kernels.

The networks' large products stay torch's. What is left between them is done without anything of tokens × tokens in
memory and without partitioning: a kernel finds the tokens of its window in the image itself. A token beyond the
image's edge, which pads the last windows, is 0 before `qkv` and so is qkv's bias after it: nothing is computed of it.
Imported only where it is used, as Triton comes with torch's CUDA builds alone. `TRITON_INTERPRET=1` runs it on a CPU.

What Triton makes of a kernel depends on its release and on the card, and a kernel that faults takes its process along
(Triton 3.6 on an H100: 64 keys × 16 channels of values that pass through registers). So `require` first runs them in
a process of their own.

Legend: B images, G side of the token grid, S side of a window (G where attention is global), N heads, D channels of a
head (of which D0 and D1 are two parts that Triton can multiply, as 80 is no power of two), C = N·D, P the power of two
from S on, 16 at least.
"""

# Triton reads annotations itself, and its functions carry no types that mypy could know.
# mypy: disable-error-code="no-untyped-def, misc, no-untyped-call, untyped-decorator"

import functools
import os
import subprocess
import sys
from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from samref.backbones.packages import import_alone

_LOG2_E = 1.4426950408889634
# Queries and keys that one program has at once, warps and stages: of those that were right on an H100 the fastest.
_GLOBAL = {"BLOCK_M": 64, "num_warps": 4, "num_stages": 3}
_WINDOW = {"BLOCK_M": 128, "BLOCK_N": 32, "num_warps": 4, "num_stages": 3}
_TRY_SECONDS = 300
_CASTS: Any = WeakTensorKeyDictionary()


def require(encoder: Any, device: torch.device) -> None:
    """Raise RuntimeError where the kernels fault, or are not right, at an encoder's sizes on this device.

    Takes some seconds, once a process.
    """
    block, (_, grid, _, width) = encoder.blocks[0], encoder.pos_embed.shape
    _require(str(device), width, block.attn.num_heads, grid, block.window_size or grid)


@functools.cache
def _require(device: str, *sizes: int) -> None:
    code = f"from samref.backbones.sam_triton import check; check({device!r}, *{sizes})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, errors="replace", timeout=_TRY_SECONDS, check=False
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "Error" in line] or [f"exit code {done.returncode}"]
        raise RuntimeError(lines[0].strip())


@torch.inference_mode()
def check(device: str, width: int, heads: int, grid: int, window: int, dtype: torch.dtype = torch.bfloat16) -> None:
    """Compare the kernels with segment-anything's modules at these sizes, on random numbers.

    Raises:
        ArithmeticError: they are farther apart than bf16 explains.
    """
    torch.manual_seed(0)
    stream, added = torch.randn(2, grid, grid, width), torch.randn(2, grid, grid, width)
    stream, added, norm = stream.to(device), added.to(device, dtype), nn.LayerNorm(width).to(device)
    expected = norm(stream + added)
    x_BGGC = add_norm(stream, added, norm, dtype).view(stream.shape)
    _compare(x_BGGC, expected)
    theirs = import_alone("segment_anything", "modeling.image_encoder")
    for side in (window, grid):
        plain = theirs.Attention(width, heads, use_rel_pos=True, input_size=(side, side)).to(device)
        for name, parameter in plain.named_parameters():
            if "rel_pos" in name:
                nn.init.normal_(parameter, std=0.1)
        windows, padded = theirs.window_partition(x_BGGC.float(), side)
        mixed = torch.cat([plain(each) for each in windows.split(1 if side == grid else 16)])
        _compare(attention(plain, x_BGGC, side), theirs.window_unpartition(mixed, side, padded, (grid, grid)))


def _compare(found: Tensor, expected: Tensor) -> None:
    difference = float((found.float() - expected).abs().max() / expected.abs().max())
    if not difference < 0.05:  # nor NaN
        raise ArithmeticError(f"a kernel's result differs by {difference:.2g} of the largest value")


def encode(encoder: Any, images_B3SS: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """What segment-anything's `ImageEncoderViT` gives under autocast to bf16, to within the rounding of bf16.

    The residual stream stays float32. In bf16, GELU is the tanh approximation that cuBLASLt has in its product: 5e-4
    away at most, less than what bf16 rounds there.

    Args:
        encoder: the module.
        images_B3SS: normalised.
        dtype: of the products' factors; float32 is for tests.
    """
    stream = (_patches(encoder.patch_embed.proj, images_B3SS, dtype).float() + encoder.pos_embed).contiguous()
    shape, channels = stream.shape, stream.shape[-1]
    blocks = list(encoder.blocks)
    normed = add_norm(stream, None, blocks[0].norm1, dtype)
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        mixed = attention(block.attn, normed.view(shape), block.window_size or shape[1])
        normed = add_norm(stream, mixed, block.norm2, dtype)
        grown = block.mlp.lin1
        weight, bias = _cast(grown.weight, dtype), _cast(grown.bias, dtype)
        if dtype is torch.bfloat16:
            hidden = torch._addmm_activation(bias, normed.view(-1, channels), weight.t(), use_gelu=True)
        else:
            hidden = F.gelu(F.linear(normed, weight, bias))
        out = _linear(block.mlp.lin2, hidden)
        normed = add_norm(stream, out, following.norm1 if following is not None else None, dtype)
    features: Tensor = encoder.neck(stream.permute(0, 3, 1, 2))
    return features


def attention(module: Any, x_BGGC: Tensor, side: int) -> Tensor:
    """Attention within windows of `side`×`side` tokens, with decomposed relative positions: B×G×G×C."""
    batch, grid, _, channels = x_BGGC.shape
    heads = module.num_heads
    qkv = _linear(module.qkv, x_BGGC)
    sizes = {"G": grid, "S": side, "P": max(16, triton.next_power_of_2(side)), "N": heads}
    split, whole = _parts(channels // heads)
    rel_BNT2P = qkv.new_empty(batch, heads, grid * grid, 2, sizes["P"])
    tables = (table.to(qkv.dtype).contiguous() for table in (module.rel_pos_h, module.rel_pos_w))
    _relative[(2 * grid, heads, batch)](qkv, *tables, rel_BNT2P, **sizes, **split, num_warps=4)
    mixed_BGGC = torch.empty_like(x_BGGC)
    # Keys of a window pass through registers, where those beyond the edge get their bias.
    options = {**split, **_GLOBAL, "BLOCK_N": side} if side == grid else {**whole, **_WINDOW}
    blocks = triton.cdiv(side * side, options["BLOCK_M"])
    windows = batch * triton.cdiv(grid, side) ** 2
    scale = (channels // heads) ** -0.5 * _LOG2_E
    bias = _cast(module.qkv.bias, qkv.dtype)
    _attend[(blocks, heads, windows)](qkv, bias, rel_BNT2P, mixed_BGGC, scale, **sizes, **options)
    return _linear(module.proj, mixed_BGGC)


def add_norm(stream: Tensor, added: Tensor | None, norm: nn.LayerNorm | None, dtype: torch.dtype) -> Tensor:
    """Add to the residual stream in place, and give its layer norm in dtype (without a norm, nothing of use)."""
    rows, channels = stream.numel() // stream.shape[-1], stream.shape[-1]
    normed = stream.new_empty((rows, channels) if norm is not None else 0, dtype=dtype)
    weight, bias, eps = (norm.weight, norm.bias, norm.eps) if norm is not None else (stream, stream, 0.0)
    block = triton.next_power_of_2(channels)
    flags = {"ADD": added is not None, "NORM": norm is not None}
    terms = (stream, stream if added is None else added)
    _add_norm[(rows,)](*terms, weight, bias, normed, eps, C=channels, BLOCK=block, **flags, num_warps=4)
    return normed


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, _cast(layer.weight, x.dtype), _cast(layer.bias, x.dtype))


def _cast(parameter: Tensor, dtype: torch.dtype) -> Tensor:
    """A parameter in the factors' type, kept until it changes: to cast a whole encoder anew takes 2 % of its time."""
    if parameter.is_inference():  # of which nobody knows when they change
        return parameter.to(dtype)
    version, cast = _CASTS.get(parameter, (-1, parameter))
    if version != parameter._version or cast.dtype != dtype:
        version, cast = _CASTS[parameter] = parameter._version, parameter.detach().to(dtype)
    kept: Tensor = cast
    return kept


def _patches(convolution: nn.Conv2d, images_B3SS: Tensor, dtype: torch.dtype) -> Tensor:
    """B×G×G×C: the convolution, whose step is as large as its kernel, as a product, for which CUDA has fast kernels."""
    batch, channels, size, _ = images_B3SS.shape
    side = convolution.kernel_size[0]
    parts = images_B3SS.to(dtype).view(batch, channels, size // side, side, size // side, side)
    return F.linear(
        parts.permute(0, 2, 4, 1, 3, 5).flatten(3),
        _cast(convolution.weight, dtype).flatten(1),
        _cast(convolution.bias, dtype) if convolution.bias is not None else None,
    )


def _parts(channels: int) -> tuple[dict[str, int], dict[str, int]]:
    """D as D0 and D1, two powers of two where it is no power of two itself; and as one with channels to spare."""
    power = max(16, triton.next_power_of_2(channels))
    whole, rest = {"D": channels, "D0": power, "D1": 0}, channels - power // 2
    if channels < power and rest >= 16 and rest == triton.next_power_of_2(rest):
        return {"D": channels, "D0": power // 2, "D1": rest}, whole
    return whole, whole


@triton.jit
def _relative(
    qkv, table_h, table_w, rel, G: tl.constexpr, S: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr,
):  # fmt: skip
    """One row or column of the image's tokens: what each adds to its logits at the S rows or columns of its window."""
    line, head, image = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    along = line >= G  # a column: its tokens differ in row
    at = line % G
    i = tl.arange(0, G)
    token = tl.where(along, i * G + at, at * G + i)
    key = tl.arange(0, P)
    known = (key < S)[:, None]
    distance = tl.where(key < S, at % S - key + S - 1, 0)
    queries = qkv + ((image * G * G + token) * 3 * N * D + head * D)[:, None]
    table = tl.where(along, table_w, table_h) + (distance * D)[:, None]
    d = tl.arange(0, D0)[None, :]
    q = tl.load(queries + d, mask=d < D, other=0)
    scores = tl.dot(q, tl.trans(tl.load(table + d, mask=known & (d < D), other=0)))
    if D1 > 0:
        e = D0 + tl.arange(0, D1)[None, :]
        scores += tl.dot(tl.load(queries + e), tl.trans(tl.load(table + e, mask=known, other=0)))
    out = rel + (((image * N + head) * G * G + token) * 2 * P)[:, None] + tl.where(along, P, 0) + key[None, :]
    tl.store(out, scores.to(rel.dtype.element_ty))


@triton.jit
def _attend(
    qkv, bias, rel, out, scale, G: tl.constexpr, S: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """BLOCK_M queries of one head and window against all keys of the window, BLOCK_N at a time."""
    LOG2_E: tl.constexpr = 1.4426950408889634
    WINDOWS: tl.constexpr = (G + S - 1) // S
    head, window = tl.program_id(1).to(tl.int64), tl.program_id(2)
    image = (window // (WINDOWS * WINDOWS)).to(tl.int64)
    top, left = window // WINDOWS % WINDOWS * S, window % WINDOWS * S
    d, e = tl.arange(0, D0), D0 + tl.arange(0, D1 if D1 > 0 else 1)
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    y, x = top + m // S, left + m % S
    inside = (m < S * S) & (y < G) & (x < G)
    asked, token = inside[:, None], tl.where(inside, y * G + x, 0)
    queries = qkv + ((image * G * G + token) * 3 * N * D + head * D)[:, None]
    q0 = tl.load(queries + d[None, :], mask=asked & (d < D)[None, :], other=0)
    if D1 > 0:
        q1 = tl.load(queries + e[None, :], mask=asked, other=0)
    rels = rel + ((image * N + head) * G * G + token) * 2 * P
    j = tl.arange(0, 2 * P)
    if S == BLOCK_N:
        rel_w = tl.load(rels[:, None] + P + tl.arange(0, P)[None, :]).to(tl.float32)
    else:
        rel_hw = tl.load(rels[:, None] + j[None, :], mask=asked & (j % P < S)[None, :], other=0)

    peak = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    mixed0 = tl.zeros([BLOCK_M, D0], tl.float32)
    if D1 > 0:
        mixed1 = tl.zeros([BLOCK_M, D1], tl.float32)
    for start in range(0, S * S, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        row, column = n // S, n % S
        exists = (n < S * S) & (top + row < G) & (left + column < G)
        there, place = exists[:, None], tl.where(exists, (top + row) * G + left + column, 0)
        keys = qkv + ((image * G * G + place) * 3 * N * D + (N + head) * D)[:, None]
        k0 = _key(keys, bias + (N + head) * D, d, there, d < D, S == BLOCK_N)
        score = tl.dot(q0, tl.trans(k0))
        if D1 > 0:
            k1 = _key(keys, bias + (N + head) * D, e, there, e < D, S == BLOCK_N)
            score += tl.dot(q1, tl.trans(k1))
        if S == BLOCK_N:  # one row of keys
            rel_h = tl.load(rels + start // S).to(tl.float32)
            score = score * scale + (rel_h[:, None] + rel_w) * LOG2_E
        else:
            # A product with ones and zeros lays the S + S values out over the keys, in the tensor cores.
            ones = tl.where((j < P)[:, None], row[None, :] == j[:, None], column[None, :] == j[:, None] - P)
            score = score * scale + tl.dot(rel_hw, ones.to(rel_hw.dtype)) * LOG2_E
            score = tl.where((n < S * S)[None, :], score, float("-inf"))
        higher = tl.maximum(peak, tl.max(score, 1))
        weight = tl.exp2(score - higher[:, None])
        shrink = tl.exp2(peak - higher)
        total = total * shrink + tl.sum(weight, 1)
        peak = higher
        v0 = _key(keys + N * D, bias + (2 * N + head) * D, d, there, d < D, S == BLOCK_N)
        mixed0 = tl.dot(weight.to(v0.dtype), v0, mixed0 * shrink[:, None])
        if D1 > 0:
            v1 = _key(keys + N * D, bias + (2 * N + head) * D, e, there, e < D, S == BLOCK_N)
            mixed1 = tl.dot(weight.to(v1.dtype), v1, mixed1 * shrink[:, None])
    outs = out + ((image * G * G + token) * N * D + head * D)[:, None]
    tl.store(outs + d[None, :], (mixed0 / total[:, None]).to(out.dtype.element_ty), mask=asked & (d < D)[None, :])
    if D1 > 0:
        tl.store(outs + e[None, :], (mixed1 / total[:, None]).to(out.dtype.element_ty), mask=asked)


@triton.jit
def _key(rows, bias, d, there, known, ALL: tl.constexpr):
    """Channels `d` of keys or values; the bias where the token is beyond the image's edge (ALL: none is)."""
    if ALL:
        return tl.load(rows + d[None, :], mask=known[None, :], other=0)
    value = tl.load(rows + d[None, :], mask=there & known[None, :], other=0)
    return tl.where(there, value, tl.load(bias + d, mask=known, other=0)[None, :])


@triton.jit
def _add_norm(
    stream, added, weight, bias, normed, eps, C: tl.constexpr, BLOCK: tl.constexpr,
    ADD: tl.constexpr, NORM: tl.constexpr,
):  # fmt: skip
    """One token: added to the stream, and normalised."""
    row, c = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    known = c < C
    x = tl.load(stream + row * C + c, mask=known, other=0)
    if ADD:
        x += tl.load(added + row * C + c, mask=known, other=0).to(tl.float32)
        tl.store(stream + row * C + c, x, mask=known)
    if NORM:
        centred = tl.where(known, x - tl.sum(x) / C, 0)
        scale = 1 / tl.sqrt(tl.sum(centred * centred) / C + eps)
        factor, offset = tl.load(weight + c, mask=known, other=0), tl.load(bias + c, mask=known, other=0)
        tl.store(normed + row * C + c, (centred * scale * factor + offset).to(normed.dtype.element_ty), mask=known)
