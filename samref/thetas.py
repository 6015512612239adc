"""Which θ of the dynamic selector an evaluation plays, and how they part.

The selector compares one number with θ: R_e < θ pastes on G_t, else on M_{t-1}. The θ that decided alike so far are
therefore an interval, exclusive of its lower end and inclusive of its upper one; an R_e inside of it cuts it in two.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar

from samref.config import EvaluateConfig


class Spanning(Protocol):
    """What holds for the θ above one number, up to and including another."""

    @property
    def above(self) -> float: ...
    @property
    def upto(self) -> float: ...


class Thetas(NamedTuple):
    """The θ that are played together: those of a list, or every one of an interval."""

    above: float
    """All are greater than this."""
    upto: float
    """The greatest."""
    listed: tuple[float, ...] | None
    """Rising, the last is `upto`; None: every number of the interval."""

    @classmethod
    def of(cls, configs: Sequence[EvaluateConfig]) -> Thetas:
        """All that evaluations ask for which differ in θ alone: a θ each, and those of their curve."""
        own, curve = {config.theta for config in configs}, configs[0].curve
        if curve and len(curve) == 2:
            return cls(math.nextafter(curve[0], -math.inf), curve[1], None)
        if curve:
            first, last, step = curve
            own |= {last, *(round(first + i * step, 12) for i in range(math.ceil((last - first) / step - 1e-9)))}
        return cls.each(own)

    @classmethod
    def each(cls, values: Iterable[float]) -> Thetas:
        """These alone."""
        rising = sorted(set(values))
        return cls(math.nextafter(rising[0], -math.inf), rising[-1], tuple(rising))

    def parts(self, above: float, upto: float, ratio: float) -> Iterator[tuple[bool, float, float]]:
        """How R_e parts an interval: whether it is pasted on G_t, and the θ that decide so; one part or two.

        The ends of the interval, where there is a list, are of the list: `above` of its one is below all.
        """
        cut = ratio
        if self.listed is not None and not math.isnan(ratio):
            below = bisect_right(self.listed, ratio)
            cut = self.listed[below - 1] if below else self.above
        if math.isnan(cut) or cut < upto:  # the first click, whose R_e is NaN, is pasted on G_t
            yield True, above if math.isnan(cut) else max(above, cut), upto
        if cut > above:
            yield False, above, min(cut, upto)


Found = TypeVar("Found", bound=Spanning)


def at(pieces: Sequence[Found], theta: float) -> Found:
    """The piece that holds for one θ. Raises ValueError: none does."""
    for piece in pieces:
        if piece.above < theta <= piece.upto:
            return piece
    raise ValueError(f"θ = {theta} was not played; what was lies in {[(each.above, each.upto) for each in pieces]}")
