"""Group norm followed by GELU, between the refiner's convolutions."""

from __future__ import annotations

import logging
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samref.threads import LAUNCHING

_LOG = logging.getLogger(__name__)
_TOLERANCE = 1e-4  # of the kernels, as a share of the largest value, where they are tried


class GroupNormGelu(nn.GroupNorm):
    """GELU of the group norm of a map B×C×h×w: torch's own operations, and on CUDA one operation in Triton."""

    def forward(self, x_BChw: Tensor, before_C: Tensor | None = None) -> Tensor:
        """Norm and activate x (plus `before_C`, if given), in x's type, or under autocast on CUDA in autocast's."""
        if not fuses(x_BChw):
            return F.gelu(super().forward(x_BChw if before_C is None else x_BChw + before_C[:, None, None]))
        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x_BChw.dtype
        return _fused(x_BChw, before_C, self.weight, self.bias, self.num_groups, self.eps, dtype)


class Layers(nn.Sequential):
    """A sequence in which, on CUDA, the bias of a convolution is added by the norm that follows it.

    There torch adds a bias in a pass over the map of its own, which takes as long as the convolution (H100).
    """

    def forward(self, x_BChw: Tensor) -> Tensor:
        """The last layer's map."""
        return self._run(x_BChw)[0]

    def added_to(self, base_BChw: Tensor, x_BChw: Tensor, third_BChw: Tensor | None = None) -> Tensor:
        """base + layers(x), and + a third map if there is one; the last layer is a convolution."""
        if not fuses(x_BChw):
            total: Tensor = base_BChw + self(x_BChw)
            return total if third_BChw is None else total + third_BChw
        map_BChw, bias = self._run(x_BChw, keep_bias=True)
        assert bias is not None
        return _sum(base_BChw, map_BChw, bias, third_BChw)

    def _run(self, x_BChw: Tensor, *, keep_bias: bool = False) -> tuple[Tensor, Tensor | None]:
        """The last layer's map and, if that is to be added later, its bias."""
        layers = list(self)
        waiting: Tensor | None = None
        if not fuses(x_BChw):
            for layer in layers:
                x_BChw = layer(x_BChw)
            return x_BChw, waiting
        for layer, following in zip(layers, [*layers[1:], None], strict=True):
            later = isinstance(following, GroupNormGelu) or (keep_bias and following is None)
            if isinstance(layer, GroupNormGelu):
                x_BChw, waiting = layer(x_BChw, waiting), None
            elif later and isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                call = F.conv2d if isinstance(layer, nn.Conv2d) else F.conv_transpose2d
                x_BChw = call(x_BChw, layer.weight, None, stride=layer.stride, padding=layer.padding)  # type: ignore[arg-type]
                waiting = layer.bias
            else:
                x_BChw = layer(x_BChw)
        return x_BChw, waiting


def fuses(x_BChw: Tensor) -> bool:
    """Whether what follows runs in Triton."""
    return x_BChw.is_cuda and _triton_works(x_BChw.device)


def _fused(
    x: Tensor, before: Tensor | None, weight: Tensor, bias: Tensor, groups: int, eps: float, dtype: torch.dtype
) -> Tensor:
    from samref.refiner.norm_kernels import NormGelu

    with LAUNCHING, torch.cuda.device(x.device):
        out: Tensor = NormGelu.apply(x, before, weight, bias, groups, eps, dtype)
    return out


def _sum(x: Tensor, y: Tensor, before: Tensor, z: Tensor | None) -> Tensor:
    from samref.refiner.norm_kernels import Sum

    with LAUNCHING, torch.cuda.device(x.device):
        out: Tensor = Sum.apply(x, y, before, z)
    return out


@cache
def _triton_works(device: torch.device) -> bool:
    """Whether Triton compiles the kernels there and they are right, tried once; if not, the log says so in a line."""
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(shape, generator=generator) for shape in ((2, 16, 40, 33), (16,), (16,), (16,))]
    try:
        results = []
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cuda", enabled=False):
            for fused in (True, False):
                x, before, weight, bias = (each.to(device).requires_grad_() for each in given)
                if fused:
                    out = _fused(_sum(x, x, bias, x), before, weight, bias, 8, 1e-5, torch.float32)
                else:
                    out = F.gelu(F.group_norm(3 * x + (bias + before)[:, None, None], 8, weight, bias))
                results.append([out, *torch.autograd.grad(out.square().sum(), (x, before, weight, bias))])
        for ours, torchs in zip(*results, strict=True):
            far = ((ours - torchs).abs().max() / torchs.abs().max()).item()
            if not far < _TOLERANCE:
                raise RuntimeError(f"its results are off by {far:.1e}")
    except Exception as error:  # whatever a compiler that is missing or broken raises
        reason = str(error).partition("\n")[0]
        _LOG.warning("Triton cannot be used (%s); the refiner is slower without it", reason)
        return False
    return True
