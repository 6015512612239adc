"""The root of all errors that are told to a person as they are: one whole line, without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """What a person, a file or a machine did wrong; the message is one line that says what to do."""


class DataError(UserError, ValueError):
    """A dataset, or a file of one, is missing, broken or ambiguous; the message names the file and what to do."""
