"""The store: one folder for each finished stage, which appears by rename.

    STORE/samref-store.json         says that this is a store, and its version
    STORE/stages/<stage id>/        a finished stage: what it wrote, summary.json, manifest.json
    STORE/.partial/<id>.<random>/   a stage that is being written, or was when its process died
    STORE/scratch/<stage id>/       where a training that was killed goes on from; locked by who works on the stage
    STORE/failures/<stage id>.json  why a stage that failed by itself has no folder; a run skips it unless told to try
    STORE/damaged/<id>.<random>/    what was a finished stage until its files were found to be others
    STORE/replaced/<stage id>/      what was a finished stage until a user wanted it anew; kept until that is done
    STORE/code/                     which code made which stage (codes.py)
    STORE/fingerprints/  logs/      what reading the data cost once; one log for each unit of work

Whether a stage is done is whether its folder exists: nothing else is remembered, so nothing can disagree with it.
Knows nothing of trials, Ray or what is inside a stage's folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from samref_sweep.errors import DamagedError, StoreError
from samref_sweep.store import manifest
from samref_sweep.store.codes import Codes, FolderCodes
from samref_sweep.store.journal import Journal

_LOG = logging.getLogger(__name__)
VERSION = 1
MARKER = "samref-store.json"
DAY_SECONDS = 86_400
CLAIM_SECONDS = 0.2
EXCLUSIVE_SECONDS = 30.0


class Store:
    """A folder of finished stages. Any number of processes may use it at the same time."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.where = str(self.root)
        """What `open_store` opens it by, in any process."""
        self.stages = self.root / "stages"
        self.logs = self.root / "logs"
        self.fingerprints = self.root / "fingerprints"
        self._failures = self.root / "failures"
        self._partial = self.root / ".partial"
        self._replaced = self.root / "replaced"
        self.codes: Codes = FolderCodes(self.root / "code")
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

    def dated(self) -> dict[str, float]:
        """The ids of all finished stages, and when each was finished, in seconds since 1970."""
        with os.scandir(self.stages) as entries:
            return {entry.name: entry.stat().st_mtime for entry in entries}

    def folder(self, stage_id: str) -> Path:
        """Where a stage's output is, or will be."""
        return self.stages / stage_id

    def open(self, stage_id: str) -> Path:
        """The folder of a finished stage, after comparing its files with its manifest.

        A damaged folder is set aside first: its stage counts as not done from then on, and is made again.

        Raises:
            DamagedError: a file is missing, of another size, or (small files) has other bytes.
            StoreError: the disk does not answer.
        """
        folder = self.folder(stage_id)
        try:
            manifest.compare(folder)
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                raise StoreError(f"{folder} cannot be read: {error}; run again when it can") from None
            reason = f"{error.filename} is missing"
        except manifest.Difference as error:
            reason = str(error)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"{folder / manifest.FILE} cannot be read: {error}"
        else:
            return folder
        raise DamagedError(f"{reason}; {self._set_aside(stage_id)}run again to make it anew")

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
        """Set finished stages aside, so that they count as not done and are made anew.

        Nothing is lost: what they were stays in the store's `replaced` folder until the new output is published.
        """
        for stage_id in stage_ids:
            with contextlib.suppress(FileNotFoundError):  # another process was first
                self._replaced.mkdir(exist_ok=True)
                if self.has(stage_id):  # and with it a new output for what was replaced before
                    shutil.rmtree(self._replaced / stage_id, ignore_errors=True)
                self.folder(stage_id).rename(self._replaced / stage_id)

    def summary(self, stage_id: str, *, checked: bool = True) -> dict[str, Any]:
        """What a finished stage measured, and the commit of the code that did.

        Args:
            stage_id: the stage.
            checked: whether its files are compared with its manifest first, as `open` does.
        """
        folder = self.open(stage_id) if checked else self.folder(stage_id)
        summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
        return {**summary, "commit": manifest.read(folder)["commit"]}

    def file(self, stage_id: str, name: str) -> Path:
        """One file of a finished stage, for who needs no others; not compared with the manifest.

        Raises:
            FileNotFoundError: the stage wrote none of that name.
        """
        path = self.folder(stage_id) / name
        if not path.exists():
            raise FileNotFoundError(path)
        return path

    @contextmanager
    def scratch(self, stage_id: str) -> Iterator[Path]:
        """A folder that outlives a killed attempt at a stage, so that the next one goes on from it.

        A checkpoint in it is a folder `step-…` that appears by rename; the newest is the last by name.
        """
        yield self._scratch(stage_id)

    def _scratch(self, stage_id: str) -> Path:
        folder = self.root / "scratch" / stage_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextmanager
    def claim(self, stage_ids: Iterable[str]) -> Iterator[None]:
        """The sole right to work on stages, for the block; waits while another process has it, and ends with its life.

        Locks on files hold on one machine, and between machines where the file system passes them on (NFS 4, Lustre
        with `flock`); elsewhere two drivers may do a stage twice, of which one result stays.
        """
        with ExitStack() as stack:
            for stage_id in sorted(stage_ids):  # in one order, so that two cannot wait for each other
                descriptor = os.open(self._scratch(stage_id), os.O_RDONLY)
                stack.callback(os.close, descriptor)
                waits = False
                while not _lock(descriptor):
                    if not waits:
                        _LOG.warning("%s: another process works on it; waiting for its end", stage_id)
                    waits = True
                    time.sleep(CLAIM_SECONDS)
            yield

    @contextmanager
    def exclusive(self, name: str, token: str, *, give_up: threading.Event) -> Iterator[bool]:
        """The sole right to something named, for the block; gives whether nobody with another token had it since.

        Raises:
            TimeoutError: another process had it still, EXCLUSIVE_SECONDS after `give_up` was set.
        """
        with (self._partial.parent / f"{name}.lock").open("a+") as file:
            until: float | None = None
            while not _lock(file.fileno()):
                if until is None and give_up.is_set():
                    until = time.monotonic() + EXCLUSIVE_SECONDS
                if until is not None and time.monotonic() > until:
                    raise TimeoutError(f"another process holds {file.name}")
                time.sleep(CLAIM_SECONDS)
            file.seek(0)
            undisturbed = file.read() == token
            if not undisturbed:
                file.truncate(0)
                file.write(token)
                file.flush()
            yield undisturbed

    def publish(self, stage_ids: Iterable[str]) -> None:
        """Let all nodes see stages that were finished, and remove what attempts left; for who has the claim."""
        for stage_id in stage_ids:
            shutil.rmtree(self.root / "scratch" / stage_id, ignore_errors=True)
            shutil.rmtree(self._replaced / stage_id, ignore_errors=True)

    def remember_failure(self, stage_id: str, failure: Mapping[str, Any]) -> None:
        """Keep why a stage failed for later runs."""
        with self.temporary(f"failure-{stage_id}") as folder:
            (folder / "failure.json").write_text(json.dumps(dict(failure)) + "\n")
            (folder / "failure.json").replace(self._failures / f"{stage_id}.json")

    def failures(self) -> dict[str, dict[str, Any]]:
        """Stage id → what was remembered, of stages that are still not done."""
        done = self.done()
        remembered = {}
        for path in self._failures.glob("*.json"):
            with contextlib.suppress(OSError, ValueError):
                if path.stem not in done:
                    remembered[path.stem] = json.loads(path.read_text())
        return remembered

    def forget_failures(self, stage_ids: Iterable[str]) -> None:
        """So that the stages are tried again."""
        for stage_id in stage_ids:
            (self._failures / f"{stage_id}.json").unlink(missing_ok=True)

    @contextmanager
    def workspace(self, stage_id: str) -> Iterator[Path]:
        """An empty folder that becomes the stage's when the block ends, and vanishes when it raises.

        If another process finished the same stage first, its folder stays: equal ids are equal work.
        """
        with self.temporary(stage_id) as folder:
            yield folder
            manifest.write(folder)
            try:
                folder.rename(self.folder(stage_id))
            except OSError:
                if not self.folder(stage_id).is_dir():
                    raise
            manifest.sync(self.stages)

    def journal(self, name: str) -> Journal:
        """What a driver wrote down in a file of that name."""
        return Journal(self.root / name)

    def keep_log(self, path: Path) -> str:
        """Where people find the log of work that failed."""
        return str(path)

    def free_bytes(self) -> int | None:
        """Room for what is to come; None where nobody knows."""
        return shutil.disk_usage(self.root).free

    @contextmanager
    def probe(self) -> Iterator[Callable[[], None]]:
        """Gives what any process of any node calls to make sure that it can write into this very store.

        It raises OSError or StoreError where it cannot.
        """
        with self.temporary("probe") as folder:
            yield partial(_probe, folder)

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
            for folder in (self.stages, self.logs, self.fingerprints, self._failures, self._partial):
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
        check_version(version, self.where)

    def clean(self, seconds: float = DAY_SECONDS) -> None:
        """Remove what processes that died left behind, once it lay untouched for so long."""
        for folder in self._partial.iterdir():
            try:
                newest = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
                if newest < time.time() - seconds and _unlocked(folder):
                    shutil.rmtree(folder, ignore_errors=True)
            except OSError:
                continue  # another process finished or removed it meanwhile


def check_version(version: object, where: str) -> None:
    """Refuse a store of another version (`StoreError`)."""
    if version != VERSION:
        raise StoreError(
            f"{where}: is a store of version {version}, this program writes version {VERSION}; "
            "choose another with --store"
        )


def _probe(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder):
        pass


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
