"""The ready queue: which unit of work can start now, given what is done and what failed.

A grid is a fixed list of work; an adaptive search adds work while it runs (`add`). Knows nothing of Ray.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable

from samref_sweep.plan import Work


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
        """Work to do, after all that was added before."""
        number = len(self._works)
        self._works.append(work)
        lacks = set(work.needs.values()) - self._done
        self._lacks[number] = lacks
        for need in lacks:
            self._waiting[need].append(number)
        if not lacks:
            heapq.heappush(self._ready, number)

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def exhausted(self) -> bool:
        """Whether nothing runs and nothing can: all is done, or lacks what failed."""
        return not self._ready and not self._running

    def take(self) -> tuple[int, Work] | None:
        """The first work that can start, with its number; None if there is none now."""
        if not self._ready:
            return None
        number = heapq.heappop(self._ready)
        self._running.add(number)
        return number, self._works[number]

    def work(self, number: int) -> Work:
        return self._works[number]

    def finish(self, number: int, done: Iterable[str]) -> None:
        """A unit of work ended; `done` are those of its stages whose output exists."""
        self._running.discard(number)
        for stage_id in done:
            self._done.add(stage_id)
            for waiting in self._waiting.pop(stage_id, []):
                self._lacks[waiting].discard(stage_id)
                if not self._lacks[waiting]:
                    heapq.heappush(self._ready, waiting)
