"""Errors of sweeps and stores, and what to say about a name that does not exist."""

import difflib
from collections.abc import Sequence

from samref.errors import UserError


class SpecError(UserError, ValueError):
    """A sweep that a user wrote is wrong; the message is one line: where, what, and what to do."""


class ResourceError(SpecError):
    """A stage asks for more than any node has; one line."""


class StoreError(UserError, ValueError):
    """The store cannot be used; one line that says what to do."""


class DamagedError(StoreError):
    """A finished stage's files are not those that were written; the stage counts as not done any more."""


class WorkerLostError(UserError, RuntimeError):
    """A process of a stage, or its node, went away; the stage can go on elsewhere from its checkpoint."""


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """` Did you mean theta?` for the nearest known name, or nothing."""

    def likeness(other: str) -> float:
        # Who mistypes a name rarely mistypes its first letter: `treshold` is theta, not seed.
        return difflib.SequenceMatcher(None, name, other).ratio() + 0.2 * (name[:1] == other[:1])

    nearest = max(known, key=likeness)
    return f" Did you mean {nearest}?" if likeness(nearest) >= 0.4 else ""
