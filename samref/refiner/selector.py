"""DS, the dynamic selector: onto which full mask the refined patch is pasted."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def error_area(error_logits_B1MM: Tensor, threshold: float) -> Tensor:
    """‖H(E)‖₀ of each object, B: pixels whose predicted error probability is above the threshold."""
    return (error_logits_B1MM > math.log(threshold / (1 - threshold))).sum(dim=(1, 2, 3))


def error_ratio(area_B: Tensor, previous_B: Tensor) -> Tensor:
    """R_e of each object, B float64; a denominator of at least 1; NaN where there was no interaction before (-1)."""
    ratio = area_B.double() / previous_B.clamp(min=1).double()
    return torch.where(previous_B < 0, torch.nan, ratio)


def paste_on_global(ratio: float, theta: float) -> bool:
    """R_e < θ pastes on G_t, else on M_{t-1}; the first click, whose R_e is NaN, always on G_t."""
    return math.isnan(ratio) or ratio < theta
