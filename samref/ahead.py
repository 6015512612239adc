"""Work in threads, done a little ahead of whoever takes its results."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future
from itertools import islice
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(pool: Executor, call: Callable[[Item], Result], items: Iterable[Item], ahead: int) -> Generator[Result]:
    """The results of calls in the items' order, of which `ahead` are begun before their result is asked for.

    An item is taken only when its call begins. Raises what a call raises, in its turn.
    """
    waiting = iter(items)
    begun = deque(pool.submit(call, item) for item in islice(waiting, ahead))
    while begun:
        result = begun.popleft().result()
        begun.extend(pool.submit(call, item) for item in islice(waiting, 1))
        yield result


class OneAhead(Generic[Result]):
    """Gives items, each made in a pool of one thread while the one before it is used.

    All of the items' generator runs on that thread, its end too.
    """

    def __init__(self, pool: Executor, items: Generator[Result]) -> None:
        self._pool = pool
        self._items = items
        self._coming: Future[Result | None] = pool.submit(next, items, None)

    def ready(self) -> bool:
        """Whether the next item is made, or it is known that there is none."""
        return self._coming.done()

    def __iter__(self) -> Iterator[Result]:
        return self

    def __next__(self) -> Result:
        item = self._coming.result()
        if item is None:
            raise StopIteration
        self._coming = self._pool.submit(next, self._items, None)
        return item

    def close(self) -> None:
        """End the generator, once it is done with the item in hand."""
        self._pool.submit(self._items.close).result()
