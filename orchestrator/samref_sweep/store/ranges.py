"""Parts of large objects, fetched by range, and kept in sparse files on this node's disk while that has room.

A file here has a byte for each block of its object, which says whether the block is there, and then the blocks. Several
processes may read and fill it at the same time: a block is fetched twice at worst. Knows nothing of what is read.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from samref_sweep.errors import DamagedError
from samref_sweep.store.bucket import Bucket

BLOCK = 2**16
"""Bytes that are fetched and kept together."""
LEFT_FREE = 0.1
"""The share of the disk that is left to others."""
_OPEN = 48
"""Objects that are open at a time."""


def done(stage_id: str) -> str:
    """The name of the object that says that a stage is done."""
    return f"done/{stage_id}.json"


def disown(bucket: Bucket, stage_id: str, about: Mapping[str, Any], reason: str) -> None:
    """Remove what says that a damaged stage is done (`about` is its content), unless it was made anew meanwhile.

    Raises DamagedError: it was not.
    """
    with contextlib.suppress(FileNotFoundError):
        if json.loads(bucket.read(done(stage_id)))["upload"] != about["upload"]:
            return
    bucket.remove(done(stage_id))
    raise DamagedError(f"{reason}; {done(stage_id)} was removed; run again to make it anew")


class Ranges:
    """Reads parts of the files of finished stages in a bucket; `root` is this node's folder of the store.

    It can be pickled. Calls are safe from any thread.
    """

    def __init__(self, uri: str, root: Path) -> None:
        self._uri = uri
        self._root = root
        self._opened = lru_cache(_OPEN)(lambda name: self._bucket.opened(name))
        done = self._root / "done"
        self._about = lru_cache(_OPEN)(lambda stage_id: json.loads((done / f"{stage_id}.json").read_text()))

    def __reduce__(self) -> tuple[Callable[..., Ranges], tuple[str, Path]]:
        return Ranges, (self._uri, self._root)

    @cached_property
    def _bucket(self) -> Bucket:
        return Bucket(self._uri)

    def __call__(self, path: Path, start: int, count: int, *, anew: bool = False) -> bytes:
        """Read `count` bytes of a stage's file, whose folder is named by the stage and need not hold it.

        With `anew` what is kept here is fetched again, as it turned out to be damaged.

        Raises:
            StoreError: the server does not answer.
            DamagedError: there is no such object; the stage counts as not done any more.
        """
        about = self._about(path.parent.name)
        name, size = f"{about['upload']}/{path.name}", about["manifest"]["files"][path.name]["bytes"]
        first, last = start // BLOCK, -(-(start + count) // BLOCK)
        begins = -(-size // BLOCK**2) * BLOCK  # after a byte for each block
        with self._kept(name) as file:
            if not anew and os.pread(file, last - first, first) == b"\1" * (last - first):
                content = os.pread(file, (last - first) * BLOCK, begins + first * BLOCK)
            else:
                try:
                    content = self._bucket.read_part(self._opened(name), name, first * BLOCK, min(size, last * BLOCK))
                except FileNotFoundError as error:
                    disown(self._bucket, path.parent.name, about, str(error))
                    raise DamagedError(f"{error}; it was made anew meanwhile; run again") from None
                with contextlib.suppress(OSError):  # a full disk: it is read, and not kept
                    if self._has_room(len(content), name):
                        os.pwrite(file, content, begins + first * BLOCK)
                        os.pwrite(file, b"\1" * (last - first), first)
        return content[start - first * BLOCK :][:count]

    @contextlib.contextmanager
    def _kept(self, name: str) -> Iterator[int]:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            yield file
        finally:
            os.close(file)

    @property
    def _folder(self) -> Path:
        return self._root / "ranges"

    def _has_room(self, count: int, name: str) -> bool:
        """Tell whether so many bytes may be kept; the files that were filled longest ago go for them."""
        others: list[Path] | None = None
        while (disk := shutil.disk_usage(self._folder)).free - count < LEFT_FREE * disk.total:
            if others is None:
                files = [path for path in self._folder.rglob("*") if path.is_file() and path != self._folder / name]
                others = sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)
            if not others:
                return False
            others.pop().unlink(missing_ok=True)
        return True
