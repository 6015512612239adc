"""The losses of SAM-REF's training, as pure functions of logits and targets.

Legend: B objects, H W pixels. Targets are 1 object, 0 background, -1 ignored. Every loss is a mean over objects.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_FOCAL_EXPONENT = 2.0
_FOCAL_WEIGHT = 0.5
_EPSILON = 1e-6


def normalized_focal_loss(logits_BHW: Tensor, target_BHW: Tensor, weight_BHW: Tensor | None = None) -> Tensor:
    """NFL, and with a weight map FocalClick's weighted NFL.

    p_t = 1 − |y − p|; β = (1 − p_t)², scaled by #valid/Σβ (detached); −0.5·β·log p_t, averaged over valid pixels, or
    by the weights' sum. Sofiiuk et al. (RITM) and Chen et al. (FocalClick).
    """
    valid = (target_BHW >= 0).to(logits_BHW.dtype)
    # |y − p| as a logarithm: log p_t is -softplus of the logit on the wrong side, stable for large logits.
    sign = torch.where(target_BHW == 1, 1.0, -1.0).to(logits_BHW.dtype)
    log_pt = F.logsigmoid(sign * logits_BHW)
    beta = (1 - log_pt.exp()) ** _FOCAL_EXPONENT * valid
    with torch.no_grad():
        scale = valid.sum((1, 2)) / beta.sum((1, 2)).clamp(min=_EPSILON)
    loss = -_FOCAL_WEIGHT * beta * scale[:, None, None] * log_pt
    weight = valid if weight_BHW is None else weight_BHW * valid
    return ((loss * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=_EPSILON)).mean()


def error_weight(error_BHW: Tensor, radius: int = 3) -> Tensor:
    """FocalClick's weights: 0.5·e + 0.5, with e the error target dilated by a square of 2·radius + 1 px."""
    dilated = F.max_pool2d(error_BHW[:, None].float(), 2 * radius + 1, stride=1, padding=radius)[:, 0]
    return 0.5 * dilated + 0.5


def dice_loss(logits_BHW: Tensor, target_BHW: Tensor) -> Tensor:
    """1 − 2·|p∩y| / (|p| + |y|) over valid pixels, smoothed by 1 px."""
    valid = (target_BHW >= 0).to(logits_BHW.dtype)
    probability, object_ = logits_BHW.sigmoid() * valid, (target_BHW == 1).to(logits_BHW.dtype)
    overlap = (probability * object_).sum((1, 2))
    total = probability.sum((1, 2)) + object_.sum((1, 2))
    return (1 - (2 * overlap + 1) / (total + 1)).mean()


def binary_cross_entropy(logits_BHW: Tensor, target_BHW: Tensor) -> Tensor:
    """BCE over valid pixels; each object counts alike."""
    valid = (target_BHW >= 0).to(logits_BHW.dtype)
    truth_BHW = target_BHW.clamp(min=0).to(logits_BHW.dtype)
    loss = F.binary_cross_entropy_with_logits(logits_BHW, truth_BHW, reduction="none")
    return ((loss * valid).sum((1, 2)) / valid.sum((1, 2)).clamp(min=1)).mean()


def error_target(logits_BHW: Tensor, target_BHW: Tensor, threshold: float = 0.0) -> Tensor:
    """(S > threshold) XOR truth as 1 and 0, and -1 where ignored; no gradient."""
    wrong = ((logits_BHW.detach() > threshold) != (target_BHW == 1)).to(target_BHW.dtype)
    return torch.where(target_BHW < 0, target_BHW, wrong)
