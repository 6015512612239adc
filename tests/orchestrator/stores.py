"""A store in a folder and one on object storage, each as several nodes see it; both can be damaged."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from toys import summary_text, toy_plan

from samref.config import Runtime
from samref_sweep.execution.unit import Runner, perform
from samref_sweep.store.bucket import Bucket
from samref_sweep.store.folder import FolderStore
from samref_sweep.store.object_store import ObjectStore
from samref_sweep.store.store import Store


class InFolder:
    """A folder that all nodes see."""

    def __init__(self, root: Path) -> None:
        self.where = str(root)

    def node(self, name: str) -> FolderStore:
        """The store as a node sees it."""
        return FolderStore(Path(self.where))

    def change(self, stage_id: str, name: str, change: Callable[[bytes], bytes | None]) -> None:
        """Give a file of a finished stage other bytes, or remove it."""
        path = self.node("").folder(stage_id) / name
        content = change(path.read_bytes())
        path.unlink() if content is None else path.write_bytes(content)

    def mark(self, content: str) -> None:
        """Replace what says that this is a store."""
        Path(self.where, "samref-store.json").write_text(content)


class OnObjectStorage:
    """A bucket, and a cache folder for each node, which the environment names as it does for a program."""

    def __init__(self, bucket: str, caches: Path) -> None:
        self.where = f"{bucket}/sweeps"
        self._caches = caches

    def node(self, name: str) -> ObjectStore:
        os.environ["SAMREF_CACHE"] = str(self._caches / name)
        return ObjectStore(self.where)

    def change(self, stage_id: str, name: str, change: Callable[[bytes], bytes | None]) -> None:
        bucket = Bucket(self.where)
        about = json.loads(bucket.read(f"done/{stage_id}.json"))
        file = f"{about['upload']}/{name}"
        content = change(bucket.read(file))
        bucket.remove(file) if content is None else bucket.write(file, content)

    def mark(self, content: str) -> None:
        Bucket(self.where).write("samref-store.json", content.encode())


Place = InFolder | OnObjectStorage


def finish(store: Store, stage_id: str, text: str = "hello") -> None:
    """Finish a stage of two files, and let all nodes see it."""
    with store.claim([stage_id]) as claim, claim.workspace(stage_id) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "a.txt").write_text(text)
        (folder / "summary.json").write_text(summary_text(stage_id))


def train(store: Store, runner: Runner) -> str:
    """Do the first training of a toy sweep, and what it needs; its id."""
    for work in toy_plan(store).works:
        if work.kind in ("embed", "train"):
            perform(work, store, runtime=Runtime(), report=lambda step, metrics: None, runner=runner)
        if work.kind == "train":
            return work.stages[0].id
    raise AssertionError
