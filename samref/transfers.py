"""Between the host's memory and a device's, and work that waits there. On a CPU there is nothing to wait for.

Work that waits is a generator: it yields what is on its way (`Arriving`), and is sent the values, or what it wants made
of them on the host. `finish` waits for each at once; `interleaved` goes on with other work meanwhile, so that a device
has always something to do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor, Future
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Result = TypeVar("Result")
Values = list[NDArray[Any]]


class Arriving:
    """The values of tensors on their way to the host, as far as they are computed, and what is made of them there.

    `then` makes it, perhaps in another thread.
    """

    def __init__(self, *tensors: Tensor, then: Callable[..., Any] | None = None) -> None:
        self._targets = tensors
        self._then = then
        self._begun: Future[Any] | None = None
        self._event: torch.cuda.Event | None = None
        if tensors and tensors[0].is_cuda:
            self._targets = tuple(torch.empty(each.shape, dtype=each.dtype, pin_memory=True) for each in tensors)
            for target, tensor in zip(self._targets, tensors, strict=True):
                target.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(tensors[0].device))

    def begin(self, pool: Executor) -> None:
        """Wait for the values in a thread, where something is made of them."""
        if self._then is not None:
            self._begun = pool.submit(self._made)

    def values(self) -> Any:
        """The values, or what `then` makes of them; the host waits until the device has computed and sent them all."""
        return self._made() if self._begun is None else self._begun.result()

    def _made(self) -> Any:
        if self._event is not None:
            self._event.synchronize()
        values = [target.numpy(force=True) for target in self._targets]
        return values if self._then is None else self._then(*values)


Waiting = Generator[Arriving, Any, Result]
"""Work that gives a Result, and waits for a device now and then."""


def to_device(values: Tensor | NDArray[Any], device: torch.device | str) -> Tensor:
    """The values on the device; the host does not wait until they are there."""
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def to_host(*tensors: Tensor) -> Values:
    """Copy tensors' values to the host, which waits, once, until the device has computed them all."""
    values: Values = Arriving(*tensors).values()
    return values


def finish(work: Waiting[Result]) -> Result:
    """Do work to its end, waiting wherever it waits."""
    going = _Going(work)
    while not going.over:
        going.go_on()
    return going.result


def interleaved(
    works: Iterator[Waiting[Result]],
    at_once: int,
    ready: Callable[[], bool] = lambda: True,
    pool: Executor | None = None,
) -> Generator[Result]:
    """The results of works in their order, of which so many are under way: while one waits, the others go on.

    Args:
        works: what is worked on.
        at_once: how many.
        ready: whether the next one is there; if not, it is waited for only where there is nothing to go on with.
        pool: threads that make what is made of values, `at_once` of them; None: the caller's.
    """
    going: deque[_Going[Result]] = deque()
    while True:
        while (under_way := sum(not each.over for each in going)) < at_once and (not under_way or ready()):
            if (work := next(works, None)) is None:
                break
            going.append(_Going(work, pool))
        if not going:
            return
        for each in going:
            each.go_on()
        while going and going[0].over:
            yield going.popleft().result


class _Going(Generic[Result]):
    """Work that was begun, up to where it waits."""

    result: Result

    def __init__(self, work: Waiting[Result], pool: Executor | None = None) -> None:
        self._work = work
        self._pool = pool
        self._arriving: Arriving | None = None
        self.over = False
        self.go_on()

    def go_on(self) -> None:
        """Wait for what is on its way, and work on until something else is, or until the end."""
        if self.over:
            return
        try:
            if self._arriving is None:
                self._arriving = next(self._work)
            else:
                self._arriving = self._work.send(self._arriving.values())
            if self._pool is not None:
                self._arriving.begin(self._pool)
        except StopIteration as end:
            self.over, self.result = True, end.value
