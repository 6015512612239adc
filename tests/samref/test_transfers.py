"""samref.transfers and samref.ahead: work that waits goes on in turns, on one thread; results come in order."""

from concurrent.futures import ThreadPoolExecutor
from threading import current_thread

import numpy as np
import pytest
import torch

from samref.ahead import OneAhead
from samref.transfers import Arriving, finish, interleaved, to_host


def work(name, waits, seen):
    total = 0
    for step in range(waits):
        seen.append(f"{name}{step}")
        first, second = yield Arriving(torch.tensor([step]), torch.tensor([1.0]))
        total += int(first[0] + second[0])
    return name, total


@pytest.mark.parametrize(
    ("at_once", "order"), [(1, "a0 a1 a2 b0 c0 c1"), (2, "a0 b0 a1 c0 a2 c1"), (9, "a0 b0 c0 a1 c1 a2")]
)
def test_while_one_waits_the_others_go_on(at_once, order):
    seen = []
    works = (work(name, waits, seen) for name, waits in (("a", 3), ("b", 1), ("c", 2)))
    assert list(interleaved(works, at_once)) == [("a", 6), ("b", 1), ("c", 3)]
    assert " ".join(seen) == order


@pytest.mark.parametrize(("ready", "order"), [([], "a0 a1 a2 b0 b1 b2"), ([False, True], "a0 a1 b0 a2 b1 b2")])
def test_what_is_not_ready_is_waited_for_only_if_nothing_else_goes_on(ready, order):
    seen, told = [], iter(ready)
    works = (work(name, 3, seen) for name in "ab")
    assert list(interleaved(works, 2, lambda: next(told, False))) == [("a", 6), ("b", 6)]
    assert " ".join(seen) == order


def test_work_alone():
    assert finish(work("a", 2, [])) == ("a", 3)
    assert finish(work("a", 0, [])) == ("a", 0)
    (values,) = to_host(torch.arange(3))
    np.testing.assert_array_equal(values, [0, 1, 2])


def test_what_fails_says_so_in_its_turn():
    def fails():
        yield Arriving(torch.zeros(1))
        raise ArithmeticError("seven")

    played = interleaved(iter([work("a", 1, []), fails()]), 1)
    assert next(played) == ("a", 1)
    with pytest.raises(ArithmeticError, match="seven"):
        next(played)


def test_items_are_made_one_ahead_on_the_pools_thread():
    log = []

    def items():
        try:
            for i in range(5):
                log.append((i, current_thread().name))
                yield i
        finally:
            log.append(("end", current_thread().name))

    with ThreadPoolExecutor(1, "own") as pool:
        assert list(OneAhead(pool, items())) == [0, 1, 2, 3, 4]
        assert {name for _, name in log} == {"own_0"}
        log.clear()
        taken = OneAhead(pool, items())
        assert next(taken) == 0
        taken.close()
    assert [at for at, _ in log] in ([0, "end"], [0, 1, "end"])
    assert {name for _, name in log} == {"own_0"}
