"""What a named precision means, in the one place that sets it.

    fp32   float32 throughout. On CUDA that takes saying: torch's default lets convolutions, though not products of
           matrices, round their factors to TF32.
    tf32   float32 everywhere but in the factors of convolutions and products of matrices, which CUDA rounds to ten
           bits of mantissa, as many as half precision has. Elsewhere the same as fp32.
    bf16   torch's autocast: convolutions and products of matrices in bfloat16 (seven bits), what needs more in float32.

What each changes in clicks is in docs/settings.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from samref.config import Precision


@contextmanager
def products(precision: Precision) -> Iterator[None]:
    """Let CUDA round the factors of float32 convolutions and matrix products, or not, for a whole stage.

    torch keeps this for the process, not for a thread: enter it once around a stage's threads, never in them.
    """
    conv, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = conv.allow_tf32, matmul.allow_tf32
    conv.allow_tf32 = matmul.allow_tf32 = precision != "fp32"
    try:
        yield
    finally:
        conv.allow_tf32, matmul.allow_tf32 = before


def autocast(device: str, precision: Precision) -> torch.autocast:
    """Autocast to bfloat16 for a block of one thread, on a device such as `cuda:1`; for bf16 alone."""
    return torch.autocast(device.split(":")[0], torch.bfloat16, enabled=precision == "bf16")
