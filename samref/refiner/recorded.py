"""Networks without gradient, replayed as CUDA graphs: one launch where Python makes a hundred.

A GPU is done with one click sooner than Python has launched its operations. For work whose shapes come again and again:
one click's, or the rounds of a training, whose batches are alike but for the number of clicks.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from samref.refiner.model import SamRef

_LOG = logging.getLogger(__name__)
_WARM_UP = 2  # calls before recording: cuDNN chooses, Triton compiles
_MOST = 32  # recordings of one stage; a training's decoder has one for each number of clicks
_TOLERANCE = 1e-2  # between a replay and a plain call, as a share of the largest value; equal on an H100

REFINER = "lateral", "global_stage", "refine", "paste_stage"
"""What the refiners compute for one click on one image."""
EVERY_CLICK = "coarse_stage", "global_stage", "refine", "paste_stage"
"""What is computed anew at every click."""


def record(network: SamRef, stages: Sequence[str], *, after: int = 0) -> None:
    """From here on, on CUDA and without gradient, replay what the network computes; on a CPU nothing changes.

    What was recorded takes memory until `forget`. Where recording fails, the log says why in a line, and the network
    goes on without it.

    Args:
        network: whose stages are replayed.
        stages: `REFINER` or `EVERY_CLICK`.
        after: calls of one shape before it is recorded.
    """
    for part, name in _parts(network):
        if name in stages and not isinstance(getattr(part, name), _Recorded):
            setattr(part, name, _Recorded(getattr(part, name), after))


def forget(network: SamRef) -> None:
    """Call everything plainly again, and free what recordings take."""
    for part, name in _parts(network):
        if isinstance(vars(part).get(name), _Recorded):
            delattr(part, name)


def _parts(network: SamRef) -> list[tuple[Any, str]]:
    of_network = [(network, name) for name in ("coarse_stage", "global_stage", "paste_stage")]
    parts = [*of_network, (network.gfr, "lateral"), (network.lfr, "refine")]
    return [(part, name) for part, name in parts if part is not None]


class _Recorded:
    """A function of tensors, recorded once tensors of the same shapes have come, and replayed from then on."""

    def __init__(self, function: Callable[..., Any], after: int) -> None:
        self._function = function
        self._after = after
        self._calls: Counter[Any] = Counter()
        self._recordings: dict[Any, tuple[torch.cuda.CUDAGraph, list[Tensor], Any]] = {}
        # Replays follow each other, and what they give is copied before the next: so all share their memory.
        self._inputs: dict[Any, Tensor] = {}
        self._pool: Any = None
        self._failed = False

    def __call__(self, *arguments: Any) -> Any:
        leaves, _ = tree_flatten(arguments)
        tensors = [each for each in leaves if isinstance(each, Tensor)]
        if self._failed or torch.is_grad_enabled() or not tensors[0].is_cuda:
            return self._function(*arguments)
        precision = torch.is_autocast_enabled("cuda"), torch.backends.cudnn.allow_tf32
        key = (*precision, *map(_layout, leaves))
        # In inference mode: what was recorded in it may be written to nowhere else.
        with torch.cuda.device(tensors[0].device):
            if key not in self._recordings:
                self._calls[key] += 1
                if self._calls[key] <= self._after or len(self._recordings) == _MOST:
                    return self._function(*arguments)
                try:
                    with torch.inference_mode():
                        self._recordings[key] = self._record(arguments)
                except Exception as error:  # whatever; the plain call below raises again what is no fault of recording
                    self._failed = True
                    self._recordings.clear()
                    self._inputs.clear()
                    reason = str(error).partition("\n")[0]
                    _LOG.warning("CUDA graphs cannot be used (%s); clicks are slower without them", reason)
                    return self._function(*arguments)
            graph, inputs, outputs = self._recordings[key]
            with torch.inference_mode():
                torch._foreach_copy_(inputs, tensors)
            graph.replay()
            return tree_map(torch.clone, outputs)  # the next replay writes over them

    def _own(self, arguments: Any) -> Any:
        """The arguments in memory of ours, one for all recordings in which they have the same place and shape."""
        places = iter(range(1000))

        def own(value: Any) -> Any:
            place = next(places)
            if not isinstance(value, Tensor):
                return value
            key = place, _layout(value)
            if key not in self._inputs:
                self._inputs[key] = torch.clone(value)
            return self._inputs[key].copy_(value)

        return tree_map(own, arguments)

    def _record(self, arguments: Any) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Any]:
        own = self._own(arguments)
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                plain = self._function(*own)
        torch.cuda.current_stream().wait_stream(stream)
        # The weights that autocast keeps must be neither read from outside a recording nor outlive it.
        torch.clear_autocast_cache()
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
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
        return graph, [each for each in tree_flatten(own)[0] if isinstance(each, Tensor)], outputs


def _layout(value: Any) -> Any:
    return (value.dtype, value.shape, value.stride()) if isinstance(value, Tensor) else value
