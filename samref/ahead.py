"""Work in threads, done a little ahead of whoever takes its results."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor
from itertools import islice
from typing import TypeVar

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


def one_ahead(pool: Executor, items: Generator[Result]) -> Generator[Result]:
    """Give the items, each made in the pool, which has one thread, while the one before it is used.

    All of the items' generator runs on that thread, its end too.
    """
    nothing = object()
    coming = pool.submit(next, items, nothing)
    try:
        while (item := coming.result()) is not nothing:
            coming = pool.submit(next, items, nothing)
            yield item  # type: ignore[misc]
    finally:
        pool.submit(items.close).result()
