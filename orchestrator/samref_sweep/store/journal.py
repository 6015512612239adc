"""JSON lines in a file, appended one at a time; one that a kill cut short is left out."""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Journal:
    """A file, which need not exist, in which drivers write down what they go on from, an entry a line.

    `written` is called with the file after each line, before `append` returns.
    """

    def __init__(self, path: Path, written: Callable[[Path], None] = lambda path: None) -> None:
        self._path = path
        self._written = written

    def read(self) -> list[dict[str, Any]]:
        """Return all entries that were written whole, the oldest first."""
        entries = []
        with contextlib.suppress(FileNotFoundError):
            for line in self._path.read_text().splitlines():
                with contextlib.suppress(ValueError):  # cut short by a kill, before what it tells of began
                    entries.append(json.loads(line))
        return entries

    def append(self, entry: dict[str, Any]) -> None:
        """Write an entry; it is on the disk when this returns."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(f"\n{json.dumps(entry)}\n")
            file.flush()
            os.fsync(file.fileno())
        self._written(self._path)
