"""Networks without gradient, replayed as CUDA graphs: one launch where Python makes a hundred.

A GPU is done with one click sooner than Python has launched its operations. For work whose shapes come again and again:
one click's, or the rounds of a training, whose batches are alike but for the number of clicks.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from samref.refiner.model import SamRef

_LOG = logging.getLogger(__name__)
_TOLERANCE = 1e-2  # between a replay and a plain call, as a share of the largest value; equal on an H100
_ROWS = 16  # of a recording, or a multiple, where there are as many: a wave's nodes are of any number

REFINER = {"lateral": 16, "global_stage": 16, "refine": 16, "paste_stage": 4}
"""What the refiners compute for one click on one image, and how many recordings each has at most."""
EVERY_CLICK = {"coarse_stage": 96, "global_stage": 16, "refine": 16, "paste_stage": 4}
"""What is computed anew at every click. The decoder has a shape for each number of clicks, times a few of rows; what is
pasted has one for every size of images, and of many sizes few come back."""


def record(network: SamRef, stages: Mapping[str, int], *, after: int = 1) -> None:
    """From here on, on CUDA and without gradient, replay what the network computes; on a CPU nothing changes.

    What was recorded takes memory until `forget`: of each shape the results, of each number of rows the inputs, and of
    all together, while one follows the other, what one takes. Where recording fails, the log says why in a line, and
    the network goes on without it; where memory ends, with what is recorded by then.

    Args:
        network: whose stages are replayed.
        stages: `REFINER` or `EVERY_CLICK`.
        after: calls of one shape before it is recorded, which takes as long as two calls.
    """
    for part, name in _parts(network):
        if name in stages and not isinstance(getattr(part, name), _Recorded):
            setattr(part, name, _Recorded(getattr(part, name), after, stages[name]))


def forget(network: SamRef) -> None:
    """Call everything plainly again, and free what recordings take."""
    for part, name in _parts(network):
        if isinstance(vars(part).get(name), _Recorded):
            delattr(part, name)


def _parts(network: SamRef) -> list[tuple[Any, str]]:
    of_network = [(network, name) for name in ("coarse_stage", "global_stage", "paste_stage")]
    parts = [*of_network, (network.gfr, "lateral"), (network.lfr, "refine")]
    return [(part, name) for part, name in parts if part is not None]


class _Recording(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    outputs: Any
    """A tree of tensors; the next replay of any recording may write over them."""


class _Recorded:
    """A function of tensors, recorded once tensors of the same shapes have come, and replayed from then on."""

    def __init__(self, function: Callable[..., Any], after: int, most: int) -> None:
        self._function = function
        self._after = after
        self._most = most
        self._calls: Counter[Any] = Counter()
        self._recordings: dict[Any, _Recording] = {}
        # Replays follow each other, and what they give is copied before the next: so all share their memory.
        self._inputs: WeakValueDictionary[Any, Tensor] = WeakValueDictionary()
        self._room: tuple[Any, torch.cuda.Stream] | None = None
        self._failed = False

    def __call__(self, *arguments: Any) -> Any:
        leaves, _ = tree_flatten(arguments)
        tensors = [each for each in leaves if isinstance(each, Tensor)]
        if self._failed or torch.is_grad_enabled() or not tensors[0].is_cuda:
            return self._function(*arguments)
        rows = len(tensors[0])
        # Rows beyond those that are given hold what came before.
        even = all(len(each) == rows and each.stride(0) == max(each.stride()) for each in tensors)
        spare = -rows % _ROWS if even and rows >= _ROWS else 0
        key = (*(len(each) + spare for each in tensors), *_precision(), *map(_layout, leaves))
        # In inference mode: what was recorded in it may be written to nowhere else.
        with torch.cuda.device(tensors[0].device):
            if key not in self._recordings:
                self._calls[key] += 1
                wanted = self._calls[key] > self._after and len(self._recordings) < self._most
                if not (wanted and self._try(key, arguments, spare)):
                    return self._function(*arguments)
            graph, inputs, outputs = self._recordings[key]
            with torch.inference_mode():
                torch._foreach_copy_([own[: len(each)] for own, each in zip(inputs, tensors, strict=True)], tensors)
            graph.replay()
            # Copied, as the next replay of any recording may write over them.
            return tree_map(lambda each: (each[:rows] if spare else each).clone(), outputs)

    def _own(self, arguments: Any, spare: int) -> Any:
        """The arguments in memory of ours, one for all recordings in which they have the same place and shape."""
        places = iter(range(1000))

        def own(value: Any) -> Any:
            place = next(places)
            if not isinstance(value, Tensor):
                return value
            key = place, len(value) + spare, _layout(value)
            if (found := self._inputs.get(key)) is None:
                strides = torch.empty_like(value, device="meta").stride()  # in the same order
                shape = len(value) + spare, *value.shape[1:]
                found = torch.empty_strided(shape, strides, dtype=value.dtype, device=value.device)
                found[len(value) :] = value[:1]
                self._inputs[key] = found
            found[: len(value)] = value
            return found

        return tree_map(own, arguments)

    def _record(self, arguments: Any, spare: int) -> _Recording:
        own = self._own(arguments, spare)
        plain = self._function(*own)  # cuDNN chooses, Triton compiles: not while it is recorded
        graph = torch.cuda.CUDAGraph()
        self._room = self._room or (torch.cuda.graph_pool_handle(), torch.cuda.Stream())  # type: ignore[no-untyped-call]
        with _capturing(graph, *self._room):
            outputs = self._function(*own)
        graph.replay()
        _compare(tree_flatten(plain)[0], tree_flatten(outputs)[0])
        return _Recording(graph, [each for each in tree_flatten(own)[0] if isinstance(each, Tensor)], outputs)

    def _try(self, key: Any, arguments: Any, spare: int) -> bool:
        """Whether it could be recorded; where memory is short, after what is free was given back."""
        for _ in range(2):
            try:
                with torch.inference_mode():
                    self._recordings[key] = self._record(arguments, spare)
                return True
            except torch.OutOfMemoryError:
                pass
            except Exception as error:  # a fault of the network's own is raised again by the plain call
                self._failed = True
                self._recordings.clear()
                reason = str(error).partition("\n")[0]
                _LOG.warning("CUDA graphs cannot be used (%s); clicks are slower without them", reason)
                return False
            # Out of the except block, so that no traceback holds the failed recording's tensors any more.
            torch.cuda.empty_cache()
        self._most = len(self._recordings)
        _LOG.warning("no memory for more CUDA graphs than %d of this stage", self._most)
        return False


def _precision() -> tuple[bool, bool]:
    return torch.is_autocast_enabled("cuda"), torch.backends.cudnn.allow_tf32


@contextmanager
def _capturing(graph: torch.cuda.CUDAGraph, pool: Any, stream: torch.cuda.Stream) -> Iterator[None]:
    """Record what is launched in the block, on a stream of its own, into memory of a pool.

    Not by `torch.cuda.graph`, which before that gives all free memory back, the host's pinned memory too. The weights
    that autocast keeps must be neither read from outside a recording nor outlive it.
    """
    torch.clear_autocast_cache()
    stream.wait_stream(torch.cuda.current_stream())
    try:
        with torch.cuda.stream(stream):
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                yield
            except BaseException:
                with suppress(Exception):  # which would tell that something failed before, and not what
                    graph.capture_end()
                raise
            graph.capture_end()
    finally:
        torch.clear_autocast_cache()
    torch.cuda.current_stream().wait_stream(stream)


def _compare(plain: Sequence[Tensor], replayed: Sequence[Tensor]) -> None:
    """RuntimeError where a replay is not what a plain call gave."""
    for expected, found in zip(plain, replayed, strict=True):
        if expected.dtype in (torch.bool, torch.uint8):  # masks
            if (others := (expected != found).sum().item()) > _TOLERANCE * expected.numel():
                raise RuntimeError(
                    f"a replay has other masks than the plain call: {others} of {expected.numel()} pixels"
                )
            continue
        far = (expected.float() - found.float()).abs().max()
        if expected.is_floating_point() and not far <= _TOLERANCE * expected.float().abs().max():
            plain_nan, replayed_nan = (int(each.isnan().sum()) for each in (expected, found))
            raise RuntimeError(
                f"a replay is {far.item():.1e} away from the plain call, of {expected.numel()} values "
                f"{plain_nan} are no number there and {replayed_nan} here"
            )


def _layout(value: Any) -> Any:
    return (value.dtype, value.shape[1:], value.stride()) if isinstance(value, Tensor) else value
