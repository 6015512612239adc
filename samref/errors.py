"""The root of all errors that are told to a person as they are: one whole line, without a traceback or a secret."""

import re

_PASSWORD = re.compile(r"(?<=://)([^\s:/@'\"]*):(?!\d+/)[^\s'\"]+@")
_TOKEN = re.compile(r"(https?://)[^\s:/@'\"]+@")
_QUERY = re.compile(r"([?&][^\s=&'\"]*(?:pass|pwd|secret|token|key|sig|cred|auth)[^\s=&'\"]*=)[^\s&'\"]+", re.I)


def masked(text: str) -> str:
    """The text with `***` for the passwords and tokens of all URIs in it, whoever wrote it."""
    return _QUERY.sub(r"\1***", _TOKEN.sub(r"\1***@", _PASSWORD.sub(r"\1:***@", text)))


class UserError(Exception):
    """What a person, a file or a machine did wrong; the message is one line that says what to do."""

    def __str__(self) -> str:
        """The message without secrets, in which what cannot be printed is escaped: names of files may hold any byte."""
        text = masked(super().__str__())
        return text if text.isprintable() else "".join(map(_printable, text))


def _printable(character: str) -> str:
    # Control characters, those that turn the order of letters, and what Python makes of names in no known encoding.
    return character if character.isprintable() else ascii(character)[1:-1]


class DataError(UserError, ValueError):
    """A dataset, or a file of one, is missing, broken or ambiguous; the message names the file and what to do."""
