"""A store in a folder: one folder for each finished stage, which appears by rename.

    STORE/samref-store.json         says that this is a store, and its version
    STORE/stages/<stage id>/        a finished stage: what it wrote, summary.json, manifest.json
    STORE/.partial/<id>.<random>/   a stage that is being written, or was when its process died
    STORE/scratch/<stage id>/       where a training that was killed goes on from; locked by who works on the stage
    STORE/failures/<stage id>.json  why a stage that failed by itself has no folder; a run skips it unless told to try
    STORE/damaged/<id>.<random>/    what was a finished stage until its files were found to be others
    STORE/replaced/<stage id>/      what was a finished stage until a user wanted it anew; kept until that is done
    STORE/code/                     which code made which stage (notes.py)
    STORE/fingerprints/  logs/      what reading the data cost once; one log for each unit of work

Whether a stage is done is whether its folder exists: nothing else is remembered, so nothing can disagree with it.
Knows nothing of trials, Ray or what is inside a stage's folder.
"""

import contextlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from samref.config import Far
from samref.summary import Summary
from samref_sweep.errors import DamagedError, StoreError
from samref_sweep.store import manifest
from samref_sweep.store.journal import Journal
from samref_sweep.store.locks import held, lock
from samref_sweep.store.node import NodeFolder
from samref_sweep.store.notes import Codes, Failures, Files, Leaves
from samref_sweep.store.shards import SeenByAll, ShardPlace
from samref_sweep.store.store import DAY_SECONDS, Claim

VERSION = 1
MARKER = "samref-store.json"


class FolderStore:
    """A `Store` in a folder that all nodes see; a new one where there is none.

    Raises StoreError: the folder cannot be written, or is a store of another version.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.where = str(self.root)
        self.shared: Path | None = self.root
        self.far: Far | None = None
        self.stages = self.root / "stages"
        self._scratches = self.root / "scratch"
        self._replaced = self.root / "replaced"
        files = Files(self.root)
        self.failures, self.codes, self.leaves = Failures(files, self.done), Codes(files), Leaves(files)
        try:
            self.node = NodeFolder(self.root)
            self.stages.mkdir(exist_ok=True)
            if not files.has(MARKER):
                files.write(MARKER, json.dumps({"version": VERSION}).encode())
            version = json.loads(files.read(MARKER))["version"]
            if not os.access(self.stages, os.W_OK) or not os.access(self.node.partial, os.W_OK):
                raise PermissionError(13, "no permission to write (a group shares what was made with umask 002)")
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise StoreError(f"{self.root}: cannot be used as a store: {reason}; choose another with --store") from None
        check_version(version, self.where)

    def has(self, stage_id: str) -> bool:
        return self.folder(stage_id).is_dir()

    def done(self) -> frozenset[str]:
        with os.scandir(self.stages) as entries:
            return frozenset(entry.name for entry in entries)

    def dated(self) -> dict[str, float]:
        with os.scandir(self.stages) as entries:
            return {entry.name: entry.stat().st_mtime for entry in entries}

    def folder(self, stage_id: str) -> Path:
        """Return the folder where a stage's files are once it is done."""
        return self.stages / stage_id

    def open(self, stage_id: str) -> Path:
        """Compare a finished stage's files with its manifest and return their folder, or move that to `damaged/`."""
        reason = self.damage(stage_id)
        if reason:
            raise DamagedError(f"{reason}; {self._set_aside(stage_id)}run again to make it anew")
        return self.folder(stage_id)

    def damage(self, stage_id: str, elsewhere: Collection[str] = ()) -> str | None:
        """Say how a finished stage's files differ from its manifest (`manifest.difference`); nothing is moved.

        Raises StoreError: the disk does not answer.
        """
        try:
            return manifest.difference(self.folder(stage_id), elsewhere)
        except OSError as error:
            raise StoreError(f"{self.folder(stage_id)} cannot be read: {error}; run again when it can") from None

    def _set_aside(self, stage_id: str) -> str:
        place = self.root / "damaged" / f"{stage_id}.{secrets.token_hex(6)}"
        try:
            place.parent.mkdir(exist_ok=True)
            self.folder(stage_id).rename(place)
        except FileNotFoundError:
            return ""  # another process was first
        except OSError as error:
            return f"move the folder away ({error.strerror}), then "
        return f"the folder was moved to {place}; "

    def supersede(self, stage_ids: Iterable[str]) -> None:
        for stage_id in stage_ids:
            with contextlib.suppress(FileNotFoundError):  # another process was first
                self._replaced.mkdir(exist_ok=True)
                if self.has(stage_id):  # and with it a new output for what was replaced before
                    shutil.rmtree(self._replaced / stage_id, ignore_errors=True)
                self.folder(stage_id).rename(self._replaced / stage_id)

    def summary(self, stage_id: str, *, checked: bool = True) -> Summary:
        folder = self.open(stage_id) if checked else self.folder(stage_id)
        content = json.loads((folder / "summary.json").read_text())
        return Summary.from_json({**content, "commit": manifest.read(folder)["commit"]})

    def file(self, stage_id: str, name: str) -> Path:
        """Return one file of a finished stage; it is not compared with the manifest."""
        path = self.folder(stage_id) / name
        if not path.exists():
            raise FileNotFoundError(path)
        return path

    @contextmanager
    def claim(self, stage_ids: Iterable[str]) -> Iterator[Claim]:
        claimed = list(stage_ids)
        with self.hold(claimed):
            yield self
            for stage_id in claimed:
                if self.has(stage_id):
                    self.remove_scratch(stage_id)

    def hold(self, stage_ids: Iterable[str]) -> AbstractContextManager[None]:
        """Hold the locks of stages for the block; waits while another process holds one."""
        return held(self._scratches / stage_id for stage_id in stage_ids)

    @contextmanager
    def scratch(self, stage_id: str) -> Iterator[Path]:
        yield self._scratch(stage_id)

    def _scratch(self, stage_id: str) -> Path:
        folder = self._scratches / stage_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def shards(self, stage_id: str) -> ShardPlace:
        return SeenByAll(self._scratch(stage_id))

    def remove_scratch(self, stage_id: str) -> None:
        """Remove what attempts at a finished stage left, and what it replaced, for whoever holds its lock."""
        shutil.rmtree(self._scratches / stage_id, ignore_errors=True)
        shutil.rmtree(self._replaced / stage_id, ignore_errors=True)

    @contextmanager
    def workspace(self, stage_id: str) -> Iterator[Path]:
        with self.node.temporary(stage_id) as folder:
            yield folder
            manifest.write(folder)
            try:
                folder.rename(self.folder(stage_id))
            except OSError:
                if not self.folder(stage_id).is_dir():
                    raise
            manifest.sync(self.stages)

    def journal(self, name: str) -> Journal:
        return Journal(self.root / name)

    @contextmanager
    def probe(self) -> Iterator[Callable[[], None]]:
        with self.node.temporary("probe") as folder:
            yield partial(_write_into, folder)

    def clean(self, seconds: float = DAY_SECONDS, is_done: Callable[[str], bool] | None = None) -> None:
        """Remove what is left behind; in front of a bucket `is_done` says whether that has a stage."""
        self.node.clean(seconds)
        if self._scratches.is_dir():
            for folder in self._scratches.iterdir():
                if (is_done or self.has)(folder.name):
                    with lock(folder) as free:
                        if free:
                            self.remove_scratch(folder.name)


def check_version(version: object, where: str) -> None:
    """Refuse a store of another version (`StoreError`)."""
    if version != VERSION:
        raise StoreError(
            f"{where}: is a store of version {version}, this program writes version {VERSION}; "
            "choose another with --store"
        )


def _write_into(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder):
        pass
