"""The mirror of a training's checkpoints on object storage, so that another node goes on from them.

A checkpoint is a folder `step-…` that appears by rename; the newest is the last by name. Of each training one is kept:
an object that says where its files are is replaced when those of a newer one are whole. Knows nothing of stages.
"""

import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from samref_sweep.errors import DamagedError, StoreError
from samref_sweep.repeating import every
from samref_sweep.store import manifest
from samref_sweep.store.bucket import Bucket

_LOG = logging.getLogger(__name__)
LOOK_SECONDS = 2.0
"""Between two looks for a new checkpoint."""
Temporary = Callable[[str], AbstractContextManager[Path]]
"""Gives an empty folder, on the disk of the checkpoints."""


@contextmanager
def mirrored(folder: Path, bucket: Bucket, name: str, temporary: Temporary) -> Iterator[None]:
    """Fetch the newest checkpoint into a folder, and for the block upload those that appear in it, in a thread.

    Raises StoreError: it cannot be known whether there is one. One that cannot be uploaded is only warned of.
    """
    mirror = _Mirror(folder, bucket, name, temporary)
    mirror.fetch()
    try:
        with every(LOOK_SECONDS, mirror.send, "checkpoints"):
            yield
    except BaseException:
        mirror.send()  # the last one; after success none is needed
        raise


class _Mirror:
    def __init__(self, folder: Path, bucket: Bucket, name: str, temporary: Temporary) -> None:
        self._folder = folder
        self._bucket = bucket
        self._name = name
        self._temporary = temporary
        self._step = self._upload = ""  # of the checkpoint that is there

    def fetch(self) -> None:
        """Download the uploaded checkpoint, unless one as new is here; one that is not whole is left alone."""
        before = ""
        while about := self._uploaded():
            self._step, self._upload = about["step"], about["upload"]
            if self._newest() >= self._step:
                return
            try:
                with self._temporary("checkpoint") as aside:
                    self._bucket.get_folder(about, aside)
                    (aside / manifest.FILE).unlink()
                    aside.rename(self._folder / self._step)
                return
            except DamagedError:
                if self._upload == before:  # and not one that a worker which was cut off replaced meanwhile
                    self._step = ""
                    return
                before = self._upload
        self._step = self._upload = ""

    def _uploaded(self) -> dict[str, Any] | None:
        try:
            return dict(json.loads(self._bucket.read(f"{self._name}.json")))
        except FileNotFoundError:
            return None

    def send(self) -> None:
        """Upload the newest checkpoint, unless it was, and then remove the one before it."""
        step = self._newest()
        if step <= self._step:
            return
        upload, before = f"{self._name}/{secrets.token_hex(6)}", self._upload
        try:
            with self._temporary("checkpoint") as aside:
                # The training removes it once there is a newer one.
                kept = Path(shutil.copytree(self._folder / step, aside / step, copy_function=os.link))
                if step != self._newest():
                    return
                manifest.write(kept)
                self._bucket.put_folder(kept, upload, f"{self._name}.json", step=step)
            self._step, self._upload = step, upload
            if before:
                self._bucket.remove_below(before)
        except (OSError, shutil.Error, StoreError) as error:
            _LOG.warning("%s: not uploaded, and tried again: %s", step, error)

    def _newest(self) -> str:
        return max((path.name for path in self._folder.glob("step-*")), default="")
