"""The store: one folder for each finished stage, which appears by rename.

    STORE/samref-store.json         says that this is a store, and its version
    STORE/stages/<stage id>/        a finished stage: what it wrote, summary.json, manifest.json
    STORE/.partial/<id>.<random>/   a stage that is being written, or was when its process died
    STORE/scratch/<stage id>/       where a training that was killed goes on from
    STORE/fingerprints/  logs/      what reading the data cost once; one log for each unit of work

Whether a stage is done is whether its folder exists: nothing else is remembered, so nothing can disagree with it.
Knows nothing of trials, Ray or what is inside a stage's folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

VERSION = 1
MARKER = "samref-store.json"
MANIFEST = "manifest.json"
# `open` reads the smallest files until it has hashed this much, so that it costs well under a second; the sizes of
# all files are compared always. 256 MiB holds every weight file but the largest backbones'.
HASH_AT_MOST_BYTES = 256 * 2**20
DAY_SECONDS = 86_400


class StoreError(ValueError):
    """The store cannot be used or a stage in it is damaged; one line that says what to do."""


class Store:
    """A folder of finished stages. Any number of processes may use it at the same time."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.stages = self.root / "stages"
        self.logs = self.root / "logs"
        self.fingerprints = self.root / "fingerprints"
        self._partial = self.root / ".partial"
        self._prepare()

    @staticmethod
    def exists(root: Path) -> bool:
        """Whether there is a store at a folder."""
        return (root / MARKER).is_file()

    def has(self, stage_id: str) -> bool:
        """Whether the stage is done."""
        return (self.stages / stage_id).is_dir()

    def done(self) -> frozenset[str]:
        """The ids of all finished stages."""
        with os.scandir(self.stages) as entries:
            return frozenset(entry.name for entry in entries)

    def folder(self, stage_id: str) -> Path:
        """Where a stage's output is, or will be."""
        return self.stages / stage_id

    def open(self, stage_id: str) -> Path:
        """The folder of a finished stage, after comparing its files with its manifest.

        Raises:
            StoreError: a file is missing, of another size, or (small files) has other bytes.
        """
        folder = self.folder(stage_id)
        try:
            files: dict[str, dict[str, Any]] = json.loads((folder / MANIFEST).read_text())["files"]
            left = HASH_AT_MOST_BYTES
            for name, entry in sorted(files.items(), key=lambda item: item[1]["bytes"]):
                size = (folder / name).stat().st_size
                if size != entry["bytes"]:
                    raise StoreError(f"{folder / name} has {size} bytes, its manifest says {entry['bytes']}")
                left -= size
                if left >= 0 and _sha256(folder / name) != entry["sha256"]:
                    raise StoreError(f"{folder / name} has other bytes than those that were written")
        except (OSError, KeyError, TypeError, ValueError) as error:
            text = str(error) if isinstance(error, StoreError) else f"{folder} cannot be read: {error}"
            raise StoreError(f"{text}; delete the folder {folder} and run again") from None
        return folder

    def summary(self, stage_id: str) -> dict[str, Any]:
        """What a finished stage measured, and the commit of the code that did."""
        folder = self.open(stage_id)
        summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
        return {**summary, "commit": json.loads((folder / MANIFEST).read_text())["commit"]}

    def scratch(self, stage_id: str) -> Path:
        """A folder that outlives a killed attempt at a stage, so that the next one goes on from it."""
        folder = self.root / "scratch" / stage_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextmanager
    def workspace(self, stage_id: str) -> Iterator[Path]:
        """An empty folder that becomes the stage's when the block ends, and vanishes when it raises.

        If another process finished the same stage first, its folder stays: equal ids are equal work.
        """
        with self.temporary(stage_id) as folder:
            yield folder
            _write_manifest(folder)
            try:
                folder.rename(self.folder(stage_id))
            except OSError:
                if not self.has(stage_id):
                    raise
            _sync(self.stages)

    @contextmanager
    def temporary(self, name: str) -> Iterator[Path]:
        """An empty folder for the time of the block, on the store's disk; `clean` leaves it alone meanwhile."""
        folder = self._partial / f"{name}.{secrets.token_hex(6)}"
        folder.mkdir()
        lock = os.open(folder, os.O_RDONLY)
        try:
            _lock(lock)
            yield folder
        finally:
            os.close(lock)
            shutil.rmtree(folder, ignore_errors=True)

    def _prepare(self) -> None:
        marker = self.root / MARKER
        try:
            for folder in (self.stages, self.logs, self.fingerprints, self._partial):
                folder.mkdir(parents=True, exist_ok=True)
            if not marker.exists():
                aside = self._partial / f"marker.{secrets.token_hex(6)}"
                aside.write_text(json.dumps({"version": VERSION}) + "\n")
                aside.rename(marker)
            version = json.loads(marker.read_text())["version"]
            if not os.access(self.stages, os.W_OK) or not os.access(self._partial, os.W_OK):
                raise PermissionError(13, "no permission to write")
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise StoreError(f"{self.root}: cannot be used as a store: {reason}; choose another with --store") from None
        if version != VERSION:
            raise StoreError(
                f"{self.root}: is a store of version {version}, this program writes version {VERSION}; "
                "choose another with --store"
            )

    def clean(self) -> None:
        """Remove what processes that died left behind, once it lay untouched for a day."""
        for folder in self._partial.iterdir():
            try:
                newest = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
                if newest < time.time() - DAY_SECONDS and _unlocked(folder):
                    shutil.rmtree(folder, ignore_errors=True)
            except OSError:
                continue  # another process finished or removed it meanwhile


def _write_manifest(folder: Path) -> None:
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        _sync(path)
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"version": VERSION, "commit": commit(), "files": files}, indent=1) + "\n")
    _sync(manifest)
    _sync(folder)


@cache
def commit() -> str | None:
    """The commit of the code that runs, with `-dirty` where files were changed since; None outside a repository."""
    command = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Make sure that a file or a folder's entries are on the disk before what comes next."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks: age alone decides
    return True


def _unlocked(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        return _lock(descriptor)
    finally:
        os.close(descriptor)
