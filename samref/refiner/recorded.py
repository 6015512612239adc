"""The refiner's networks without gradient, replayed as CUDA graphs: one launch where Python makes a hundred.

A GPU is done with one click sooner than Python has launched the kernels. For work whose shapes come again and again, as
one click's do. A replay of an evaluation's wave was tried once (H100, TF32, blocks channels last, 32 objects): a result
was not a number, why is not known. A training's rounds were never tried so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from samref.refiner.model import SamRef

_LOG = logging.getLogger(__name__)
_WARM_UP = 3  # calls before recording: cuDNN chooses, Triton compiles
_TOLERANCE = 1e-2  # between a replay and a plain call, as a share of the largest value; equal on an H100


def record(network: SamRef) -> None:
    """From here on, on CUDA and without gradient, replay what the refiners compute; on a CPU nothing changes.

    What was recorded takes memory for as long as the network lives. Where recording fails, the log says why in a line,
    and the network goes on without it.
    """
    for part, name in ((network.gfr, "lateral"), (network, "global_stage"), (network.lfr, "refine")):
        if part is not None and not isinstance(getattr(part, name), _Recorded):
            setattr(part, name, _Recorded(getattr(part, name)))


class _Recorded:
    """A function of tensors, recorded when first called with tensors of these shapes and replayed from then on."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._recordings: dict[Any, tuple[torch.cuda.CUDAGraph, list[Tensor], Any]] = {}
        self._failed = False

    def __call__(self, *arguments: Any) -> Any:
        tensors, _ = tree_flatten(arguments)
        if self._failed or torch.is_grad_enabled() or not tensors[0].is_cuda:
            return self._function(*arguments)
        precision = torch.is_autocast_enabled("cuda"), torch.backends.cudnn.allow_tf32
        key = (*precision, *((each.dtype, each.shape, each.stride()) for each in tensors))
        # In inference mode throughout: what was recorded in it may be written to nowhere else.
        with torch.inference_mode(), torch.cuda.device(tensors[0].device):
            if key not in self._recordings:
                try:
                    self._recordings[key] = self._record(arguments)
                except Exception as error:  # whatever; the plain call below raises again what is no fault of recording
                    self._failed = True
                    self._recordings.clear()
                    reason = str(error).partition("\n")[0]
                    _LOG.warning("CUDA graphs cannot be used (%s); clicks are slower without them", reason)
                    return self._function(*arguments)
            graph, inputs, outputs = self._recordings[key]
            torch._foreach_copy_(inputs, tensors)
            graph.replay()
            return tree_map(torch.clone, outputs)  # the next replay writes over them

    def _record(self, arguments: Any) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Any]:
        own = tree_map(torch.clone, arguments)
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                plain = self._function(*own)
        torch.cuda.current_stream().wait_stream(stream)
        # The weights that autocast keeps must be neither read from outside a recording nor outlive it.
        torch.clear_autocast_cache()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                outputs = self._function(*own)
        finally:
            torch.clear_autocast_cache()
        graph.replay()
        for expected, found in zip(tree_flatten(plain)[0], tree_flatten(outputs)[0], strict=True):
            far = (expected.float() - found.float()).abs().max()
            if expected.is_floating_point() and not far <= _TOLERANCE * expected.float().abs().max():
                plain_nan, replayed_nan = (int(each.isnan().sum()) for each in (expected, found))
                raise RuntimeError(
                    f"a replay is {far.item():.1e} away from the plain call, of {expected.numel()} values "
                    f"{plain_nan} are no number there and {replayed_nan} here"
                )
        return graph, tree_flatten(own)[0], outputs
