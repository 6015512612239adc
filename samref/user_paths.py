"""Paths as the user of this process means them: `~`, a working folder, and where there is no home."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def home() -> Path:
    """The user's home folder; where there is none, as in some containers, the folder of temporary files."""
    path = _expanded("~")
    return path if path.is_absolute() else Path(tempfile.gettempdir())


def absolute(path: str) -> Path:
    """A path as this process means it: workers on a cluster have working folders of their own."""
    return _expanded(path).absolute()


def _expanded(path: str) -> Path:
    # Unlike Path's own, this one leaves the ~ of a user who is not known, whom a message then shows.
    return Path(os.path.expanduser(path))  # noqa: PTH111
