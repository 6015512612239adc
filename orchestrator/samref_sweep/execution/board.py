"""Which process works which shard of a stage, and how far all of them are.

Knows nothing of Ray: there it is an actor, which every process of the stage asks. Shards are taken one by one, as a
process has time for them, so that a slow one, or one that comes late, holds up no other. At the end even one that is
cut off does not: who has nothing to do works its shards too, of which the first that is finished counts.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

SILENT_SECONDS = 30.0
"""How long nothing is heard of a process until others work its shards, too."""


class Standing(NamedTuple):
    """How far a stage is."""

    done: int
    """Images or samples that were worked since the board was made."""
    metrics: Mapping[str, float]
    """What the processes report of themselves, summed; and `workers`, how many have work."""
    free: int
    """Shards that nobody has taken, or that who took them says nothing of."""
    left: int
    """Shards that are not finished."""


class Board:
    """The shards of a stage that are to do, by number, with how many images or samples each has."""

    def __init__(self, sizes: Mapping[int, int], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: dict[str, float] = {}
        self._sizes = sizes
        self._free = sorted(sizes, reverse=True)
        self._left = set(sizes)
        self._taken: dict[int, str] = {}
        self._finished: Counter[str] = Counter()
        self._told: dict[str, tuple[int, Mapping[str, float]]] = {}
        self._lost: set[str] = set()

    def take(self, worker: str) -> int | None:
        """Give a process its next shard; None where there is none now, or it was given up."""
        self._heard[worker] = self._clock()
        free = self._free or self._silent()
        if not free or worker in self._lost:
            return None
        number = free.pop()
        self._taken[number] = worker
        return number

    def _silent(self) -> list[int]:
        """Shards of processes of which nothing was heard for long."""
        since = self._clock() - SILENT_SECONDS
        return sorted((number for number, worker in self._taken.items() if self._heard[worker] < since), reverse=True)

    def finish(self, worker: str, number: int) -> None:
        """Take note that a shard is finished, by whoever was first."""
        self._heard[worker] = self._clock()
        if number in self._left:
            self._left.discard(number)
            self._taken.pop(number, None)
            self._finished[worker] += self._sizes[number]
            if number in self._free:
                self._free.remove(number)

    def lose(self, worker: str) -> None:
        """Give a process up: what it took and did not finish is for others, and what it says counts no more."""
        self._lost.add(worker)
        for number in sorted((number for number, by in self._taken.items() if by == worker), reverse=True):
            del self._taken[number]
            self._free.append(number)

    def tell(self, worker: str, done: int, metrics: Mapping[str, float]) -> None:
        """Take note of how many images or samples a process is done with, and of what it reports."""
        self._heard[worker] = self._clock()
        self._told[worker] = done, metrics

    def standing(self) -> Standing:
        """How far all processes are."""
        total = sum(self._finished[worker] for worker in self._lost)
        metrics: Counter[str] = Counter()
        for worker, (done, told) in self._told.items():
            if worker not in self._lost:
                total += done
                metrics.update(told)
        workers = len(set(self._taken.values()))
        total = min(total, sum(self._sizes.values()))  # some of it may have been worked twice
        return Standing(total, {**metrics, "workers": workers}, len(self._free or self._silent()), len(self._left))
