"""Content hashes: of a file, remembered as long as its size and time stay, and of a list of values."""

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from samref.sha256 import sha256_of

RACE_SECONDS = 2.0
"""A file changed this recently may change again within one tick of its time stamp (FAT: 2 s): not remembered."""


def digest(value: Any) -> str:
    """sha256 (hex) of the value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class FileHashes:
    """sha256 of files, and what else follows from their contents, kept in `cache`/file_hashes.json by path, size and
    mtime_ns; without `cache` not kept.

    Any number of threads and processes may share the folder: the file is written aside and renamed, after merging in
    what others wrote meanwhile. Of two that write at the same moment one's entries are lost, and hashed again later.
    """

    def __init__(self, cache: Path | None) -> None:
        self._file = cache / "file_hashes.json" if cache else None
        self._known = self._load()
        self._new: dict[str, list[Any]] = {}

    def of(self, path: Path) -> str:
        """The file's sha256 (hex)."""
        return self.remembered(path, "", lambda: sha256_of(path))

    def remembered(self, path: Path, what: str, compute: Callable[[], str]) -> str:
        """What `compute` makes of a file's content, computed once a content; `what` names it, with its version."""
        status = path.stat()
        name, stamp = str(path.resolve()) + what, [status.st_size, status.st_mtime_ns]
        known = self._known.get(name)
        if known is not None and known[:2] == stamp:
            return str(known[2])
        value = compute()
        if time.time() - status.st_mtime > RACE_SECONDS:
            self._known[name] = self._new[name] = [*stamp, value]
        return value

    def save(self) -> None:
        """Write what is new to the cache, if there is one."""
        if self._file is None or not self._new:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        merged = {**self._load(), **self._new}
        handle, aside = tempfile.mkstemp(dir=self._file.parent, prefix=".file_hashes-", suffix=".json")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(merged, file)
            Path(aside).replace(self._file)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(aside).unlink()
            raise
        self._new = {}

    def _load(self) -> dict[str, list[Any]]:
        # A cache that is missing or broken is an empty one: everything in it can be computed again.
        if self._file is None:
            return {}
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(content, dict):
            return {}
        return {name: entry for name, entry in content.items() if isinstance(entry, list) and len(entry) == 3}
