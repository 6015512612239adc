"""Finished shards of a stage that several nodes work on, on their way to the one that joins them.

In a folder that all nodes see there is no way to go. On object storage a shard is some objects, and one that is written
last and has their hashes: what a node finished is there for any other, which goes on from it or joins it.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from samref.shards import FILE, linked
from samref_sweep.errors import DamagedError, StoreError
from samref_sweep.repeating import every
from samref_sweep.store import manifest

if TYPE_CHECKING:
    from samref_sweep.store.bucket import Bucket  # imports pyarrow, which a folder needs not

_LOG = logging.getLogger(__name__)
LOOK_SECONDS = 2.0
"""Between two looks for finished shards."""


class ShardPlace(Protocol):
    """Where the finished shards of one stage are, for each process that works on it, with the claim or without."""

    @property
    def scratch(self) -> Path:
        """This node's scratch folder of the stage; a finished shard is a folder two levels below."""

    def hand_over(self, folder: Path) -> bool:
        """Bring a finished shard to where the node that joins them sees it; where that is elsewhere, none stays.

        Returns whether it is there: another process of this node, which worked it too, may be bringing it.
        """

    def fetch(self) -> None:
        """Bring what other nodes handed over into this node's scratch folder; what is damaged is left out."""


@dataclass(frozen=True)
class SeenByAll:
    """A `ShardPlace` in a folder that all nodes see."""

    scratch: Path

    def hand_over(self, folder: Path) -> bool:
        return True

    def fetch(self) -> None: ...


@dataclass(frozen=True)
class OnObjects:
    """A `ShardPlace` below a name in a bucket; `temporary` gives an empty folder on the disk of `scratch`."""

    scratch: Path
    bucket: Bucket
    name: str
    temporary: Callable[[str], AbstractContextManager[Path]]
    leave: re.Pattern[str] | None = None
    """Files that are joined where they are, as their hashes are known, and never fetched."""

    def hand_over(self, folder: Path) -> bool:
        with self.temporary("shard") as aside:
            own = aside / folder.parent.name / folder.name
            own.parent.mkdir()
            try:
                folder.rename(own)
            except FileNotFoundError:
                return False
            try:
                self._send(own)
            except BaseException:
                with suppress(OSError):
                    own.rename(folder)
                raise
        return True

    def fetch(self) -> None:
        self._fetch(set(self.bucket.list(self.name)))

    def _fetch(self, markers: set[str]) -> None:
        """Fetch the shards of these markers; those that are damaged are taken out."""

        def fetch(marker: str) -> None:
            place, _, number = marker.removesuffix(".json").rpartition(".")
            folder = self.scratch / place / number
            if folder.is_dir():
                return
            try:
                with self.temporary("shard") as aside:
                    self.bucket.get_folder(self._about(marker), aside, self.leave)
                    (aside / manifest.FILE).unlink()
                    folder.parent.mkdir(parents=True, exist_ok=True)
                    aside.rename(folder)
            except DamagedError as error:
                _LOG.warning("%s; the shard is worked again", error)
                self.bucket.remove(f"{self.name}/{marker}")
                markers.discard(marker)

        self.bucket.at_once(fetch, sorted(markers))

    @contextmanager
    def mirrored(self) -> Iterator[None]:
        """Fetch what is there, and for the block upload the shards that are finished here, in a thread.

        Raises StoreError: it cannot be known what is there. A shard that cannot be uploaded is only warned of.
        """
        sent = set(self.bucket.list(self.name))
        self._fetch(sent)

        def send() -> None:
            for folder in self.scratch.glob("shards-*/[0-9]*"):
                try:
                    if self._marker(folder) not in sent:
                        self._send(folder)
                        sent.add(self._marker(folder))
                except (OSError, shutil.Error, StoreError) as error:
                    _LOG.warning("%s: not uploaded, and tried again: %s", folder, error)

        try:
            with every(LOOK_SECONDS, send, "shards"):
                yield
        except BaseException:
            send()  # the last ones; after success the stage is uploaded
            raise

    def objects(self) -> dict[str, str]:
        """The hash of each file of the shards that are there → its object's name."""
        return {
            own["sha256"]: f"{about['upload']}/{name}"
            for about in self.bucket.at_once(self._about, self.bucket.list(self.name))
            for name, own in about["manifest"]["files"].items()
        }

    def _about(self, marker: str) -> dict[str, Any]:
        about: dict[str, Any] = json.loads(self.bucket.read(f"{self.name}/{marker}"))
        return about

    def _marker(self, folder: Path) -> str:
        return f"{folder.parent.name}.{folder.name}.json"

    def _send(self, folder: Path) -> None:
        with self.temporary("shard") as aside:
            shard = aside / "shard"
            shutil.copytree(folder, shard, copy_function=lambda path, to: linked(Path(path), Path(to)))
            (shard / manifest.KNOWN).write_text(json.dumps(json.loads((shard / FILE).read_text())["files"]))
            manifest.write(shard)
            marker = f"{self.name}/{self._marker(folder)}"
            self.bucket.put_folder(shard, f"{marker.removesuffix('.json')}/{secrets.token_hex(6)}", marker)
