"""Between the host's memory and a device's, and work that waits there. On a CPU there is nothing to wait for.

Work that waits is a generator: it yields what is on its way (`Arriving`), and is sent the values. `finish` waits for
each at once; `interleaved` goes on with other work meanwhile, so that a device has always something to do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Result = TypeVar("Result")
Values = list[NDArray[Any]]


class Arriving:
    """The values of tensors on their way to the host, as far as they are computed."""

    def __init__(self, *tensors: Tensor) -> None:
        self._targets = tensors
        self._event: torch.cuda.Event | None = None
        if tensors[0].is_cuda:
            self._targets = tuple(torch.empty(each.shape, dtype=each.dtype, pin_memory=True) for each in tensors)
            for target, tensor in zip(self._targets, tensors, strict=True):
                target.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(tensors[0].device))

    def values(self) -> Values:
        """The host waits until the device has computed and sent them all."""
        if self._event is not None:
            self._event.synchronize()
        return [target.numpy(force=True) for target in self._targets]


Waiting = Generator[Arriving, Values, Result]
"""Work that gives a Result, and waits for a device now and then."""


def to_device(values: Tensor | NDArray[Any], device: torch.device | str) -> Tensor:
    """The values on the device; the host does not wait until they are there."""
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def to_host(*tensors: Tensor) -> Values:
    """Copy tensors' values to the host, which waits, once, until the device has computed them all."""
    return Arriving(*tensors).values()


def finish(work: Waiting[Result]) -> Result:
    """Do work to its end, waiting wherever it waits."""
    going = _Going(work)
    while not going.over:
        going.go_on()
    return going.result


def interleaved(
    works: Iterator[Waiting[Result]], at_once: int, ready: Callable[[], bool] = lambda: True
) -> Generator[Result]:
    """The results of works in their order, of which so many are under way: while one waits, the others go on.

    Where the next one is not `ready`, it is waited for only if there is nothing to go on with.
    """
    going: deque[_Going[Result]] = deque()
    while True:
        while (under_way := sum(not each.over for each in going)) < at_once and (not under_way or ready()):
            if (work := next(works, None)) is None:
                break
            going.append(_Going(work))
        if not going:
            return
        for each in going:
            each.go_on()
        while going and going[0].over:
            yield going.popleft().result


class _Going(Generic[Result]):
    """Work that was begun, up to where it waits."""

    result: Result

    def __init__(self, work: Waiting[Result]) -> None:
        self._work = work
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
        except StopIteration as end:
            self.over, self.result = True, end.value
