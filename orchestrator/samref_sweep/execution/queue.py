"""The ready queue: which unit of work can start now, given what is done and what failed."""

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable

from samref_sweep.planning.work import Work


class Queue:
    """Hands out work in the given order, each only after all that it needs is done."""

    def __init__(self, works: Iterable[Work], done: Iterable[str]) -> None:
        self._done = set(done)
        self._works: list[Work] = []
        self._lacks: dict[int, set[str]] = {}
        self._waiting: defaultdict[str, list[int]] = defaultdict(list)
        self._ready: list[int] = []
        self._running: set[int] = set()
        for work in works:
            self.add(work)

    def add(self, work: Work) -> None:
        """Add work, to do after all that was added before."""
        self._works.append(work)
        self._enter(len(self._works) - 1)

    def _enter(self, number: int) -> None:
        lacks = self._works[number].awaits - self._done
        self._lacks[number] = lacks
        for need in lacks:
            self._waiting[need].append(number)
        if not lacks:
            heapq.heappush(self._ready, number)

    @property
    def num_running(self) -> int:
        """How many units of work were taken and have not ended."""
        return len(self._running)

    @property
    def num_ready(self) -> int:
        """How many units of work could start."""
        return len(self._ready)

    @property
    def exhausted(self) -> bool:
        """Whether nothing runs and nothing can: all is done, or lacks what failed."""
        return not self._ready and not self._running

    def take(self, fits: Callable[[Work], bool] = lambda work: True) -> tuple[int, Work] | None:
        """The first work that can start and for which there is room, with its number; None if there is none now."""
        passed = []
        taken = None
        while self._ready and taken is None:
            number = heapq.heappop(self._ready)
            if fits(self._works[number]):
                self._running.add(number)
                taken = number, self._works[number]
            else:
                passed.append(number)
        for number in passed:
            heapq.heappush(self._ready, number)
        return taken

    @property
    def running(self) -> list[Work]:
        """The units of work that were taken and have not ended."""
        return [self._works[number] for number in self._running]

    def work(self, number: int) -> Work:
        """The unit of work of a number that `take` gave."""
        return self._works[number]

    def again(self, number: int) -> None:
        """Put a unit of work back that ended without its output, to start once more."""
        self._running.discard(number)
        self._enter(number)

    def lose(self, stage_id: str) -> None:
        """Count a stage as not done any more; work that enters from now on waits until it is."""
        self._done.discard(stage_id)

    def finish(self, number: int, done: Iterable[str]) -> None:
        """Take note that a unit of work ended; `done` are those of its stages whose output exists."""
        self._running.discard(number)
        for stage_id in done:
            self._done.add(stage_id)
            for waiting in self._waiting.pop(stage_id, []):
                self._lacks[waiting].discard(stage_id)
                if not self._lacks[waiting]:
                    heapq.heappush(self._ready, waiting)
