"""A store on object storage, where folders cannot appear by rename: a stage is done when an object says so.

    URI/samref-store.json               says that this is a store, its version, and its id
    URI/done/<stage id>.json            a finished stage: its summary, its manifest, and where its files are
    URI/stages/<stage id>/<random>/     its files, in an upload that went on before its `done` was written
    URI/uploads/<stage id>.<random>     an upload that goes on, or did when its process died
    URI/checkpoints/<stage id>.json     a training's newest checkpoint, whose files are in <stage id>/<random>/ there
    URI/replaced/<stage id>.json        what `done` said of a stage that a user wanted anew, until that is done
    URI/code/                           which code made which stage (codes.py)
    URI/failures/<stage id>.json  logs/  searches/  rungs.jsonl     as in a folder

In front of it each node has a store in a folder, $SAMREF_CACHE/stores/<id> (~/.cache/samref), with what was made or
fetched there: embeddings are fetched once a node. It may be deleted whenever nothing runs.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samref_sweep.errors import DamagedError, StoreError
from samref_sweep.store import manifest
from samref_sweep.store.checkpoints import mirrored
from samref_sweep.store.codes import BucketCodes
from samref_sweep.store.folder import DAY_SECONDS, MARKER, VERSION, Store, check_version
from samref_sweep.store.journal import Journal

if TYPE_CHECKING:
    from samref_sweep.store.bucket import Objects  # imports pyarrow

_LOG = logging.getLogger(__name__)
CLOCKS_SECONDS = 60
"""What a server's clock may be ahead of a node's."""


class ObjectStore(Store):
    """A store at a URI, used through a folder of this node."""

    def __init__(self, uri: str, *, patient: bool = False) -> None:
        from samref_sweep.store.bucket import QUICK, Objects  # imports pyarrow

        cache = Path(os.environ.get("SAMREF_CACHE") or Path.home() / ".cache" / "samref")
        self._objects = Objects(uri)
        super().__init__(cache / "stores" / _identity(self._objects if patient else Objects(uri, QUICK)))
        self.where = uri
        self.codes = BucketCodes(self._objects)
        self._known = self.root / "done"
        self._files = self.root / "files"

    def has(self, stage_id: str) -> bool:
        return self._objects.has(_done(stage_id))

    def done(self) -> frozenset[str]:
        return frozenset(self.dated())

    def dated(self) -> dict[str, float]:
        found = self._objects.list("done")
        for name, when in found.items():
            with suppress(FileNotFoundError):  # what this node read of a stage before that was made anew
                if (self._known / name).stat().st_mtime < when + CLOCKS_SECONDS:
                    (self._known / name).unlink()
        return {name.removesuffix(".json"): when for name, when in found.items()}

    def supersede(self, stage_ids: Iterable[str]) -> None:
        """Set finished stages aside as in a folder; each node removes its own copy when it comes across it."""
        for stage_id in stage_ids:
            with suppress(FileNotFoundError):  # another driver was first
                self._objects.write(f"replaced/{stage_id}.json", self._objects.read(_done(stage_id)))
                self._objects.remove(_done(stage_id))
                self._drop_replaced(stage_id)

    def _drop_replaced(self, stage_id: str) -> None:
        """Remove this node's copy of a stage that is to be made anew, which `_upload` would take for the new one."""
        with suppress(FileNotFoundError):
            about = json.loads(self._objects.read(f"replaced/{stage_id}.json"))
            if self._is_here(stage_id) and manifest.read(self.folder(stage_id)) == about["manifest"]:
                self._set_aside(stage_id)

    def summary(self, stage_id: str, *, checked: bool = True) -> dict[str, Any]:
        """As of a folder; nothing but the summary is fetched, so there is nothing to compare."""
        about = self._about(stage_id)
        return {**about["summary"], "commit": about["manifest"]["commit"]}

    def _about(self, stage_id: str, *, anew: bool = False) -> dict[str, Any]:
        """What says that a stage is done.

        Equal ids are equal work, so what this node once read serves, but not to find the files: a stage that was
        damaged and made anew has others.
        """
        path = self._known / f"{stage_id}.json"
        if anew or not path.exists():
            try:
                self._download(_done(stage_id), path)
            except FileNotFoundError as error:
                raise DamagedError(f"{error}; run again to make it anew") from None
        about: dict[str, Any] = json.loads(path.read_text())
        return about

    def _download(self, name: str, path: Path) -> None:
        """Fetch an object into a file, which appears whole."""
        with self.temporary("object") as aside:
            self._objects.get(name, aside / path.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            (aside / path.name).replace(path)

    def open(self, stage_id: str) -> Path:
        """As of a folder; fetched first, unless this node has it whole."""
        if not self._is_newest(stage_id):
            with super().claim([stage_id]):  # one process of this node fetches it
                if not self._is_newest(stage_id):
                    self._fetch(stage_id)
        return self.folder(stage_id)

    def _is_newest(self, stage_id: str) -> bool:
        """Whether this node has the whole stage, and it was not made anew on another one; an older copy is removed."""
        if not self._is_here(stage_id):
            return False
        with suppress(DamagedError):  # where nothing says that it is done any more, this copy serves
            if manifest.read(self.folder(stage_id)) != self._about(stage_id, anew=True)["manifest"]:
                self._set_aside(stage_id)
                return False
        return True

    def _is_here(self, stage_id: str) -> bool:
        """Whether this node has the whole stage; a copy that is damaged is removed."""
        if not self.folder(stage_id).is_dir():
            return False
        try:
            super().open(stage_id)
        except DamagedError as error:
            _LOG.warning("%s", error)
            return False
        return True

    def _set_aside(self, stage_id: str) -> str:
        with self.temporary(stage_id) as aside, suppress(FileNotFoundError):
            self.folder(stage_id).rename(aside / "damaged")
        return "this node's copy was removed; "

    def _fetch(self, stage_id: str) -> None:
        about = self._about(stage_id, anew=True)
        with self.temporary(stage_id) as aside:
            try:
                self._objects.get_folder(about, aside)
            except (FileNotFoundError, manifest.Difference) as error:
                place = f"{self._objects.where}/{about['upload']}"
                self._disown(stage_id, about, str(error).replace(str(aside), place))
                self._fetch(stage_id)
            else:
                with suppress(OSError):  # another process was first
                    aside.rename(self.folder(stage_id))

    def file(self, stage_id: str, name: str) -> Path:
        """As of a folder; fetched first, without the stage's other files, and compared with the manifest.

        Raises:
            FileNotFoundError: the stage wrote none of that name.
            DamagedError: it is not what was written; the stage counts as not done any more.
        """
        for anew in (False, True):
            about = self._about(stage_id, anew=anew)
            entry = about["manifest"]["files"].get(name)
            if entry is None:
                raise FileNotFoundError(f"{stage_id}/{name}")
            fetched = self._files / stage_id / name
            for path in (self.folder(stage_id) / name, fetched):
                if manifest.is_file(path, entry):
                    return path
            with suppress(FileNotFoundError):
                self._download(f"{about['upload']}/{name}", fetched)
                if manifest.is_file(fetched, entry):
                    return fetched
        place = f"{self._objects.where}/{about['upload']}/{name}"
        self._disown(stage_id, about, f"{place} is missing, or has other bytes than those that were written")
        return self.file(stage_id, name)

    def _disown(self, stage_id: str, about: Mapping[str, Any], reason: str) -> None:
        """Remove what says that a damaged stage is done, unless it was made anew meanwhile.

        Raises:
            DamagedError: it was not.
        """
        if self._about(stage_id, anew=True)["upload"] == about["upload"]:
            self._objects.remove(_done(stage_id))
            raise DamagedError(f"{reason}; {_done(stage_id)} was removed; run again to make it anew")

    @contextmanager
    def claim(self, stage_ids: Iterable[str]) -> Iterator[None]:
        """As of a folder, on this node: drivers on several may do a stage twice, of which one result stays."""
        claimed = list(stage_ids)
        with super().claim(claimed):
            for stage_id in claimed:
                self._drop_replaced(stage_id)
                self._upload(stage_id)  # what was finished here, and then could not be uploaded
            yield

    def publish(self, stage_ids: Iterable[str]) -> None:
        published = list(stage_ids)
        for stage_id in published:
            self._upload(stage_id)
        super().publish(published)
        for stage_id in published:
            self._objects.remove(f"checkpoints/{stage_id}.json")
            self._objects.remove_below(f"checkpoints/{stage_id}")
            with suppress(FileNotFoundError):
                about = json.loads(self._objects.read(f"replaced/{stage_id}.json"))
                self._objects.remove_below(about["upload"])
                self._objects.remove(f"replaced/{stage_id}.json")

    def _upload(self, stage_id: str) -> None:
        """Upload a stage that is finished on this node; last of all, that it is done."""
        if self.has(stage_id) or not self._is_here(stage_id):
            return
        folder, random = self.folder(stage_id), secrets.token_hex(6)
        self._objects.write(f"uploads/{stage_id}.{random}", b"")
        summary = json.loads((folder / "summary.json").read_text())
        self._objects.put_folder(folder, f"stages/{stage_id}/{random}", _done(stage_id), summary=summary)
        self._objects.remove(f"uploads/{stage_id}.{random}")

    def clean(self, seconds: float = DAY_SECONDS) -> None:
        super().clean(seconds)
        for name, when in self._objects.list("uploads").items():
            if when < time.time() - seconds:
                stage_id, _, random = name.rpartition(".")
                upload = f"stages/{stage_id}/{random}"
                if not self.has(stage_id) or self._about(stage_id, anew=True)["upload"] != upload:
                    self._objects.remove_below(upload)
                self._objects.remove(f"uploads/{name}")

    @contextmanager
    def scratch(self, stage_id: str) -> Iterator[Path]:
        """As of a folder, with the newest checkpoint of any node; those that appear in it are uploaded meanwhile."""
        folder = self._scratch(stage_id)
        with mirrored(folder, self._objects, f"checkpoints/{stage_id}", self.temporary):
            yield folder

    def remember_failure(self, stage_id: str, failure: Mapping[str, Any]) -> None:
        self._objects.write(f"failures/{stage_id}.json", json.dumps(dict(failure)).encode())

    def failures(self) -> dict[str, dict[str, Any]]:
        done, remembered = self.done(), {}
        for name in self._objects.list("failures"):
            if (stage_id := name.removesuffix(".json")) not in done:
                with suppress(FileNotFoundError):  # another driver forgot it meanwhile
                    remembered[stage_id] = json.loads(self._objects.read(f"failures/{name}"))
        return remembered

    def forget_failures(self, stage_ids: Iterable[str]) -> None:
        for name in self._objects.list("failures").keys() & {f"{stage_id}.json" for stage_id in stage_ids}:
            self._objects.remove(f"failures/{name}")

    def journal(self, name: str) -> Journal:
        """As of a folder; uploaded whole with each line."""
        path = self.root / name
        try:
            self._download(name, path)
        except FileNotFoundError:
            path.unlink(missing_ok=True)
        return Journal(path, lambda path: self._objects.put(path, name))

    def keep_log(self, path: Path) -> str:
        """Where people find the log of work that failed: with the objects, or on its node if they cannot be written."""
        name = f"logs/{path.name}"
        try:
            self._objects.put(path, name)
        except (FileNotFoundError, StoreError):
            return str(path)
        return f"{self._objects.where}/{name}"

    def free_bytes(self) -> int | None:
        return None

    @contextmanager
    def probe(self) -> Iterator[Callable[[], None]]:
        with self._objects.probe() as name:
            yield partial(_look, self.where, name)


def _identity(objects: Objects) -> str:
    """The store's random id; a new store where there is none (`StoreError`: it cannot be used)."""
    try:
        content = objects.read(MARKER)
    except FileNotFoundError:
        objects.write(MARKER, json.dumps({"version": VERSION, "id": secrets.token_hex(8)}).encode())
        content = objects.read(MARKER)
    try:
        about = json.loads(content)
        version, identity = about["version"], str(about["id"])
    except (ValueError, KeyError, TypeError):
        raise StoreError(f"{objects.where}/{MARKER}: cannot be read; choose another with --store") from None
    check_version(version, objects.where)
    return identity


def _look(uri: str, name: str) -> None:
    from samref_sweep.store.bucket import QUICK, Objects  # imports pyarrow

    Objects(uri, QUICK).look(name)


def _done(stage_id: str) -> str:
    return f"done/{stage_id}.json"
