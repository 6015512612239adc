"""samref_sweep.execution.signals: what ends a run in order, and what does not."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from samref_sweep.execution.signals import ENDING, ends_in_order, not_heard_by_children


@pytest.fixture(autouse=True)
def as_a_shell_starts_it() -> Iterator[None]:
    """Under nohup, or in a script's background, signals are ignored: what such a process sends itself is not heard."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDING)}
    for number in before:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING)
def test_the_first_signal_calls_once_and_all_are_as_before_afterwards(number: signal.Signals) -> None:
    calls: list[int] = []
    before = {each: signal.getsignal(each) for each in ENDING}
    with ends_in_order(lambda: calls.append(1)):
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)  # Slurm's, after the one that announced it
    assert calls == [1]
    assert {each: signal.getsignal(each) for each in ENDING} == before


def test_ctrl_c_after_the_first_signal_ends_at_once() -> None:
    with ends_in_order(lambda: None):
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_what_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with ends_in_order(lambda: pytest.fail("SIGHUP was heard")):
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_children_do_not_hear_what_this_process_gets_later() -> None:
    calls: list[int] = []
    with ends_in_order(lambda: calls.append(1)):
        with not_heard_by_children():
            child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # as a library might
        os.kill(os.getpid(), signal.SIGUSR1)
        assert calls == [1]
    for number in ENDING:
        child.send_signal(number)
    assert child.stdin is not None
    child.stdin.write(b"\n")
    child.stdin.close()
    assert child.wait() == 0
