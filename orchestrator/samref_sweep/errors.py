"""Errors of sweeps and stores, and what to say about a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from pydantic_core import ErrorDetails

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


def pydantic_message(error: ErrorDetails) -> str:
    """What pydantic says of one wrong value, as the rest of a sentence of ours."""
    text: str = error["msg"].removeprefix("Value error, ")
    text, value = text.replace("Input should be", "it should be"), error.get("input")
    if error["type"] == "string_type" and isinstance(value, bool):
        return f"{text} (yes, no, on and off are true and false; in quotes they are words)"
    if isinstance(value, str) and ":" in value and "number" in text:
        return f"{text} (with colons it is text: for 1:30 write 1.5)"
    return text
