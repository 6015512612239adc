"""Finished shards of a stage that several nodes work on, on their way to the one that joins them.

In a folder that all nodes see there is no way to go. On object storage a shard is some objects, and one that is written
last and has their hashes. Knows nothing of what is in a shard.
"""

from __future__ import annotations

import json
import logging
import secrets
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from samref.shards import linked
from samref_sweep.errors import DamagedError
from samref_sweep.store import manifest

if TYPE_CHECKING:
    from samref_sweep.store.bucket import Bucket  # imports pyarrow, which a folder needs not

_LOG = logging.getLogger(__name__)


class ShardPlace(Protocol):
    """Where the finished shards of one stage are, for each process that works on it, with the claim or without."""

    @property
    def scratch(self) -> Path:
        """This node's scratch folder of the stage; a finished shard is a folder two levels below."""

    def send(self, folder: Path) -> None:
        """Bring a finished shard to where other nodes see it."""

    def fetch(self) -> None:
        """Bring what other nodes sent into this node's scratch folder; what is damaged is left out."""


@dataclass(frozen=True)
class SeenByAll:
    """A `ShardPlace` in a folder that all nodes see."""

    scratch: Path

    def send(self, folder: Path) -> None: ...

    def fetch(self) -> None: ...


@dataclass(frozen=True)
class OnObjects:
    """A `ShardPlace` below a name in a bucket; `temporary` gives an empty folder on the disk of `scratch`."""

    scratch: Path
    bucket: Bucket
    name: str
    temporary: Callable[[str], AbstractContextManager[Path]]

    def send(self, folder: Path) -> None:
        place = f"{folder.parent.name}/{folder.name}"
        name = f"{self.name}/{place.replace('/', '.')}"
        with self.temporary("shard") as aside:
            shard = aside / "shard"
            shutil.copytree(folder, shard, copy_function=lambda path, to: linked(Path(path), Path(to)))
            manifest.write(shard)
            self.bucket.put_folder(shard, f"{name}/{secrets.token_hex(6)}", f"{name}.json", place=place)

    def fetch(self) -> None:
        for name in self.bucket.list(self.name):
            about = json.loads(self.bucket.read(f"{self.name}/{name}"))
            folder = self.scratch / about["place"]
            if folder.is_dir():
                continue
            try:
                with self.temporary("shard") as aside:
                    self.bucket.get_folder(about, aside)
                    (aside / manifest.FILE).unlink()
                    folder.parent.mkdir(parents=True, exist_ok=True)
                    aside.rename(folder)
            except DamagedError as error:
                _LOG.warning("%s; the shard is worked again", error)
                self.bucket.remove(f"{self.name}/{name}")
