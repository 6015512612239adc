"""The root of all errors that are told to a person as they are: one whole line, without a traceback."""

from __future__ import annotations

from unicodedata import category


class UserError(Exception):
    """What a person, a file or a machine did wrong; the message is one line that says what to do."""

    def __str__(self) -> str:
        """The message, in which what cannot be printed is escaped: names of files may hold any byte."""
        text = super().__str__()
        return text if text.isprintable() else "".join(map(_printable, text))


def _printable(character: str) -> str:
    # Control characters, and what Python makes of names that are in no known encoding.
    return ascii(character)[1:-1] if category(character) in ("Cc", "Cs") else character


class DataError(UserError, ValueError):
    """A dataset, or a file of one, is missing, broken or ambiguous; the message names the file and what to do."""
