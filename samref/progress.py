"""How far something is, in one line on stderr: it overwrites itself on a terminal, and is repeated rarely elsewhere."""

import sys
import time
from collections.abc import Callable
from typing import Self

OnProgress = Callable[[int, int | None], None]
"""Told what is done, of how much (None: not known)."""

TERMINAL_SECONDS = 0.5
PLAIN_SECONDS = 10.0
"""Between two lines; the first comes after as long."""


def silent(done: int, total: int | None) -> None:
    """Show nothing."""


def readable_size(size: float) -> str:
    """Write bytes as a person reads them, such as 375 MB."""
    power = next((power for power in range(3) if size < 1000 ** (power + 1)), 3)
    shown = size / 1000**power
    return f"{shown:{'.0f' if shown >= 100 or not power else '.3g'}} {('bytes', 'kB', 'MB', 'GB')[power]}"


class ProgressLine:
    """An `OnProgress` that prints; the end of its `with` block clears the line."""

    def __init__(self, label: str, unit: str | None = None) -> None:
        """Count in `unit`; None counts bytes."""
        self._label, self._unit = label, unit
        self._first: tuple[float, int] | None = None
        self._last = time.monotonic()
        self._width = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._width:
            print("\r" + " " * self._width + "\r", end="", file=sys.stderr, flush=True)
            self._width = 0

    def __call__(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now, done
        terminal = sys.stderr.isatty()
        if now - self._last < (TERMINAL_SECONDS if terminal else PLAIN_SECONDS):
            return
        self._last = now
        text = f"{self._label}: {self._text(done, total, now)}"
        if terminal:
            print("\r" + text.ljust(self._width), end="", file=sys.stderr, flush=True)
            self._width = len(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def _text(self, done: int, total: int | None, now: float) -> str:
        if self._unit is not None:
            return f"{done}{'' if total is None else f'/{total}'} {self._unit}"
        text = readable_size(done) if total is None else f"{readable_size(done)} of {readable_size(total)}"
        began, before = self._first or (now, done)
        if done > before and now > began:
            rate = (done - before) / (now - began)
            text += f", {readable_size(rate)}/s"
            if total is not None:
                minutes, seconds = divmod(round((total - done) / rate), 60)
                text += f", {minutes}:{seconds:02} left"
        return text
