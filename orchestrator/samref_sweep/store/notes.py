"""What a store notes beside its stages: why some failed, which code made them, and which is whose leaf.

    failures/<stage id>.json         why a stage failed
    code/<digest>.json               the modules of one state of the code, each with its digest
    trials/<digest>.json             trial id → the evaluation that is its leaf, of one sweep, for `samref.load`
    code/<digest>/<stage id>         empty: this code set out to make this stage; of several, the newest counts

So ten thousand are looked up without opening a stage.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from samref.stage import digest
from samref_sweep.errors import StoreError
from samref_sweep.failures import Failure

if TYPE_CHECKING:
    from samref_sweep.store.bucket import Bucket  # imports pyarrow, which a folder needs not

Code = Mapping[str, str]
"""Module → its digest (`samref.source.code_of`)."""
UNREADABLE = (OSError, json.JSONDecodeError, UnicodeDecodeError)
"""A note that is gone meanwhile, or was damaged, says nothing."""


class Files:
    """Small files below a folder, by the methods that a `Bucket` has for small objects; each appears whole."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.where = str(root)

    def list(self, folder: str) -> dict[str, float]:
        """Return the files directly in a folder, by name, and when each was written, in seconds since 1970."""
        with suppress(FileNotFoundError), os.scandir(self._root / folder) as entries:
            return {each.name: each.stat().st_mtime for each in entries if each.is_file() and each.name[0] != "."}
        return {}

    def has(self, name: str) -> bool:
        """Tell whether there is a file of that name."""
        return (self._root / name).is_file()

    def read(self, name: str) -> bytes:
        """Return what a file holds."""
        return (self._root / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """Write a file, or replace it."""
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        aside.write_bytes(content)
        aside.replace(path)

    def put(self, path: Path, name: str) -> None:
        """Copy a file to that name, unless it is there already."""
        if path != self._root / name:
            shutil.copyfile(path, self._root / name)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        (self._root / name).unlink(missing_ok=True)


class Failures:
    """Why stages failed by themselves, remembered in a store for later runs; `done` gives the finished stages' ids."""

    def __init__(self, place: Bucket | Files, done: Callable[[], Collection[str]]) -> None:
        self._place = place
        self._done = done

    def remember(self, stage_id: str, failure: Failure) -> None:
        """Write down why a stage failed."""
        self._place.write(f"failures/{stage_id}.json", json.dumps(asdict(failure)).encode())

    def all(self) -> dict[str, Failure]:
        """Stage id → its failure, of all remembered stages that are still not done."""
        done, remembered = self._done(), {}
        for stage_id in {name.removesuffix(".json") for name in self._place.list("failures")}.difference(done):
            with suppress(*UNREADABLE):
                remembered[stage_id] = Failure(**json.loads(self._place.read(f"failures/{stage_id}.json")))
        return remembered

    def forget(self, stage_ids: Iterable[str]) -> None:
        """Remove what is remembered of stages, so that they are tried again; others are left alone."""
        for name in self._place.list("failures").keys() & {f"{stage_id}.json" for stage_id in stage_ids}:
            self._place.remove(f"failures/{name}")

    def keep_log(self, path: Path) -> str:
        """Bring the log of work that failed to where people find it, and return that place.

        It stays on its node if it cannot be brought there.
        """
        name = f"logs/{path.name}"
        try:
            self._place.put(path, name)
        except (FileNotFoundError, StoreError):
            return str(path)
        return f"{self._place.where}/{name}"


class Codes:
    """Which code made which stage of a store."""

    def __init__(self, place: Bucket | Files) -> None:
        self._place = place

    def note(self, stage_id: str, code: Code) -> None:
        """Write down that this code is about to make a stage, which is not done."""
        name = f"code/{digest('code', code)}"
        if not self._place.has(f"{name}.json"):
            self._place.write(f"{name}.json", json.dumps(code).encode())
        self._place.write(f"{name}/{stage_id}", b"")

    def all(self) -> dict[str, Code]:
        """Stage id → the code that made it, or was to; nothing of stages from before notes were taken."""
        notes = []
        for about in self._place.list("code"):
            with suppress(*UNREADABLE):
                code = json.loads(self._place.read(f"code/{about}"))
                made = self._place.list(f"code/{about.removesuffix('.json')}")
                notes += [(when, stage_id, code) for stage_id, when in made.items()]
        return {stage_id: code for _, stage_id, code in sorted(notes, key=lambda note: note[0])}


class Leaves:
    """Which evaluation is the leaf of which trial, for `samref.load`, which knows a trial by its id."""

    def __init__(self, place: Bucket | Files) -> None:
        self._place = place

    def note(self, leaves: Mapping[str, str]) -> None:
        """Write down the evaluation (stage id) of each trial of a sweep."""
        name = f"trials/{digest('trials', leaves)}.json"
        if not self._place.has(name):
            self._place.write(name, json.dumps(leaves).encode())
