"""Paths as the user of this process means them: `~`, a working folder, and where there is no home."""

import os
import tempfile
from pathlib import Path


def home() -> Path:
    """The user's home folder; where there is none, as in some containers, the folder of temporary files."""
    path = expanded("~")
    return path if path.is_absolute() else Path(tempfile.gettempdir())


def absolute(path: str) -> Path:
    """A path as this process means it: workers on a cluster have working folders of their own."""
    return expanded(path).absolute()


def expanded(path: str) -> Path:
    """A path with its ~ replaced, which no shell does in `--store=~/runs`; that of a user who is not known stays."""
    return Path(os.path.expanduser(path))  # noqa: PTH111
