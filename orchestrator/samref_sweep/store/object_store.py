"""A store on object storage, where folders cannot appear by rename: a stage is done when an object says so.

    URI/samref-store.json               says that this is a store, its version, and its id
    URI/done/<stage id>.json            a finished stage: its summary, its manifest, and where its files are
    URI/stages/<stage id>/<random>/     its files, in an upload that went on before its `done` was written
    URI/uploads/<stage id>.<random>     an upload that goes on, or did when its process died
    URI/shards/<stage id>/<name>.json   a finished shard of a stage that several nodes work on, and where its files are
    URI/checkpoints/<stage id>.json     a training's newest checkpoint, whose files are in <stage id>/<random>/ there
    URI/replaced/<stage id>.json        what `done` said of a stage that a user wanted anew, until that is done
    URI/code/                           which code made which stage (notes.py)
    URI/failures/<stage id>.json  logs/  searches/  searched/  rungs.jsonl     as in a folder

In front of it each node has a store in a folder, $SAMREF_CACHE/stores/<id> (~/.cache/samref), with what was made or
fetched there: embeddings are fetched once a node, above `LARGE_BYTES` row by row as they are read (ranges.py). It may
be deleted whenever nothing runs.
"""

import json
import logging
import re
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from samref.config import Far
from samref.progress import readable_size
from samref.summary import Summary
from samref_sweep.errors import DamagedError, StoreError
from samref_sweep.store import manifest
from samref_sweep.store.bucket import QUICK, Bucket
from samref_sweep.store.checkpoints import mirrored
from samref_sweep.store.folder import MARKER, VERSION, FolderStore, check_version
from samref_sweep.store.journal import Journal
from samref_sweep.store.node import caches
from samref_sweep.store.notes import Codes, Failures, Leaves
from samref_sweep.store.ranges import Ranges, disown, done
from samref_sweep.store.shards import OnObjects
from samref_sweep.store.store import DAY_SECONDS, Claim

_LOG = logging.getLogger(__name__)
LARGE_BYTES = 2**30
"""Embeddings that take more are not fetched whole: of a dataset that several nodes share each needs its rows alone."""
# Arrays of features as samref.embeddings names them: in a finished stage, and in a shard.
_ARRAY, _FEATURES = re.compile(r".+\.\d+\.npy"), re.compile(r"(?!checksums\.).+\.npy")
CLOCKS_SECONDS = 60
"""What a server's clock may be ahead of a node's."""


class ObjectStore:
    """A `Store` at a URI such as s3://bucket/folder; a new one where there is none. `cache` is this node's folder.

    With `patient` a server that is away is waited for, a minute; else what is wrong is told at once. Raises StoreError:
    the bucket cannot be used, or there is a store of another version.
    """

    def __init__(self, uri: str, *, patient: bool = False) -> None:
        self.where = uri
        self.shared: Path | None = None
        self._bucket = Bucket(uri)
        self.cache = FolderStore(caches() / "stores" / _identity(self._bucket if patient else Bucket(uri, QUICK)))
        self.node = self.cache.node
        self.far: Far | None = Ranges(uri, self.node.root)
        self.failures = Failures(self._bucket, self.done)
        self.codes, self.leaves = Codes(self._bucket), Leaves(self._bucket)
        self._known = self.node.root / "done"
        self._old: set[str] = set()
        """Files in it that may be of a stage before it was made anew."""
        self._files = self.node.root / "files"

    def has(self, stage_id: str) -> bool:
        return self._bucket.has(done(stage_id))

    def done(self) -> frozenset[str]:
        return frozenset(self.dated())

    def dated(self) -> dict[str, float]:
        found = self._bucket.list("done")
        for name, when in found.items():
            with suppress(FileNotFoundError):  # what this node read of a stage before that was made anew
                if (self._known / name).stat().st_mtime < when + CLOCKS_SECONDS:
                    self._old.add(name)  # and not removed, as a stage that runs may read it
        return {name.removesuffix(".json"): when for name, when in found.items()}

    def supersede(self, stage_ids: Iterable[str]) -> None:
        for stage_id in stage_ids:
            with suppress(FileNotFoundError):  # another driver was first
                self._bucket.write(f"replaced/{stage_id}.json", self._bucket.read(done(stage_id)))
                self._bucket.remove(done(stage_id))
                self._drop_replaced(stage_id)

    def _drop_replaced(self, stage_id: str) -> None:
        """Remove this node's copy of a stage that is to be made anew, which `_upload` would take for the new one."""
        with suppress(FileNotFoundError):
            about = json.loads(self._bucket.read(f"replaced/{stage_id}.json"))
            if self._is_here(stage_id) and manifest.read(self.cache.folder(stage_id)) == about["manifest"]:
                self._remove_copy(stage_id)

    def _remove_copy(self, stage_id: str) -> None:
        """Remove this node's copy of a stage, whole at once."""
        with self.node.temporary(stage_id) as aside, suppress(FileNotFoundError):
            self.cache.folder(stage_id).rename(aside / "removed")

    def summary(self, stage_id: str, *, checked: bool = True) -> Summary:
        """Return what a stage measured; nothing but that is fetched, so there is nothing to compare."""
        about = self._about(stage_id)
        return Summary.from_json({**about["summary"], "commit": about["manifest"]["commit"]})

    def _about(self, stage_id: str, *, anew: bool = False) -> dict[str, Any]:
        """Return what says that a stage is done.

        Equal ids are equal work, so what this node once read serves, but not to find the files: a stage that was
        damaged and made anew has others.
        """
        path = self._known / f"{stage_id}.json"
        if anew or path.name in self._old or not path.exists():
            try:
                self._download(done(stage_id), path)
            except FileNotFoundError as error:
                raise DamagedError(f"{error}; run again to make it anew") from None
            self._old.discard(path.name)
        return dict(json.loads(path.read_text()))

    def _download(self, name: str, path: Path) -> None:
        """Fetch an object into a file, which appears whole."""
        with self.node.temporary("object") as aside:
            self._bucket.get(name, aside / path.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            (aside / path.name).replace(path)

    def open(self, stage_id: str) -> Path:
        """Fetch a finished stage unless this node has it whole, and return its folder, or *disown the stage*.

        Where the objects are damaged, the object that says that the stage is done is removed. Of large embeddings the
        arrays are left where they are, for `far`. Raises StoreError: there is no room for it on this node's disk.
        """
        if not self.cache.has(stage_id) and (folder := self._without_arrays(stage_id)):
            return folder
        if not self._is_newest(stage_id):
            with self.cache.hold([stage_id]):  # one process of this node fetches it
                if not self._is_newest(stage_id):
                    self._fetch(stage_id)
        return self.cache.folder(stage_id)

    def _without_arrays(self, stage_id: str) -> Path | None:
        """Fetch large embeddings but for their arrays; None where a stage is none, or small."""
        if not stage_id.startswith("embed-"):
            return None
        about = self._about(stage_id, anew=True)
        files = about["manifest"]["files"]
        if sum(entry["bytes"] for entry in files.values()) <= LARGE_BYTES:
            return None
        arrays = set(filter(_ARRAY.fullmatch, files))
        if reason := self._bucket.lacks(about, arrays):
            disown(self._bucket, stage_id, about, reason)
            return self._without_arrays(stage_id)
        for name in files.keys() - arrays:
            self.file(stage_id, name)
        return self._files / stage_id

    def _is_newest(self, stage_id: str) -> bool:
        """Tell whether this node has the whole stage, not made anew on another one; an older copy is removed."""
        if not self._is_here(stage_id):
            return False
        with suppress(DamagedError):  # where nothing says that it is done any more, this copy serves
            if manifest.read(self.cache.folder(stage_id)) != self._about(stage_id, anew=True)["manifest"]:
                self._remove_copy(stage_id)
                return False
        return True

    def _is_here(self, stage_id: str, elsewhere: Collection[str] = ()) -> bool:
        """Tell whether this node has a stage, but for files of these hashes; a copy that is damaged is removed."""
        if not self.cache.has(stage_id):
            return False
        reason = self.cache.damage(stage_id, elsewhere)
        if reason:
            _LOG.warning("%s; this node's copy is removed", reason)
            self._remove_copy(stage_id)
        return not reason

    def _fetch(self, stage_id: str) -> None:
        about = self._about(stage_id, anew=True)
        needed = sum(entry["bytes"] for entry in about["manifest"]["files"].values())
        if needed > (free := shutil.disk_usage(self.node.root).free):
            raise StoreError(
                f"{self.node.root}: {stage_id} takes {readable_size(needed)} and {readable_size(free)} are free; make "
                "room, or name another disk with SAMREF_CACHE"
            )
        with self.node.temporary(stage_id) as aside:
            try:
                self._bucket.get_folder(about, aside)
            except DamagedError as error:
                disown(self._bucket, stage_id, about, str(error))
                self._fetch(stage_id)
            else:
                with suppress(OSError):  # another process was first
                    aside.rename(self.cache.folder(stage_id))
                self.cache.remove_scratch(stage_id)  # what this node did of a stage that another one finished

    def file(self, stage_id: str, name: str) -> Path:
        """Fetch one file of a finished stage unless this node has it, and return it; compared with the manifest.

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
            for path in (self.cache.folder(stage_id) / name, fetched):
                if manifest.is_file(path, entry):
                    return path
            with suppress(FileNotFoundError):
                self._download(f"{about['upload']}/{name}", fetched)
                if manifest.is_file(fetched, entry):
                    return fetched
        place = f"{self._bucket.where}/{about['upload']}/{name}"
        disown(self._bucket, stage_id, about, f"{place} is missing, or has other bytes than those that were written")
        return self.file(stage_id, name)

    @contextmanager
    def claim(self, stage_ids: Iterable[str]) -> Iterator[Claim]:
        """Hold the sole right to work on stages on this node for the block, and upload those that are finished.

        Drivers on several nodes may do a stage twice, of which one result stays.
        """
        claimed = list(stage_ids)
        with self.cache.hold(claimed):
            for stage_id in claimed:
                self._drop_replaced(stage_id)
                self._upload(stage_id)  # what was finished here, and then could not be uploaded
            yield self
            for stage_id in claimed:
                if self._upload(stage_id):
                    self.cache.remove_scratch(stage_id)
                    self._remove_checkpoints(stage_id)
                    self._remove_replaced(stage_id)

    def _upload(self, stage_id: str) -> bool:
        """Upload a stage that is finished on this node; last of all, that it is done. Returns whether it is."""
        if self.has(stage_id):
            return True
        there = self.shards(stage_id).objects() if self.cache.has(stage_id) else {}
        if not self._is_here(stage_id, there):
            return False
        folder, random = self.cache.folder(stage_id), secrets.token_hex(6)
        self._bucket.write(f"uploads/{stage_id}.{random}", b"")
        summary = json.loads((folder / "summary.json").read_text())
        self._bucket.put_folder(folder, f"stages/{stage_id}/{random}", done(stage_id), there, summary=summary)
        self._bucket.remove(f"uploads/{stage_id}.{random}")
        if not all((folder / name).exists() for name in manifest.read(folder)["files"]):
            self._remove_copy(stage_id)  # what other nodes made was never here
        return True

    def _remove_checkpoints(self, stage_id: str) -> None:
        self._bucket.remove_below(f"shards/{stage_id}")
        self._bucket.remove_below(f"checkpoints/{stage_id}")
        self._bucket.remove(f"checkpoints/{stage_id}.json")  # last, for by it `clean` finds what a kill left

    def _remove_replaced(self, stage_id: str) -> None:
        with suppress(FileNotFoundError):
            about = json.loads(self._bucket.read(f"replaced/{stage_id}.json"))
            self._bucket.remove_below(about["upload"])
            self._bucket.remove(f"replaced/{stage_id}.json")

    def workspace(self, stage_id: str) -> AbstractContextManager[Path]:
        """Give an empty folder that becomes the stage's on this node; `claim` uploads it."""
        return self.cache.workspace(stage_id)

    @contextmanager
    def scratch(self, stage_id: str) -> Iterator[Path]:
        """Give a folder with the newest checkpoint or all shards of any node; new ones are uploaded meanwhile."""
        with (
            self.cache.scratch(stage_id) as folder,
            mirrored(folder, self._bucket, f"checkpoints/{stage_id}", self.node.temporary),
            self.shards(stage_id).mirrored(),
        ):
            yield folder

    def shards(self, stage_id: str) -> OnObjects:
        leave = _FEATURES if stage_id.startswith("embed-") else None
        scratch, name = self.cache.shards(stage_id).scratch, f"shards/{stage_id}"
        return OnObjects(scratch, self._bucket, name, self.node.temporary, leave)

    def journal(self, name: str) -> Journal:
        """Open a journal that is fetched first, and uploaded whole with each line, among those of other nodes."""
        path = self.node.root / name
        try:
            self._download(name, path)
        except FileNotFoundError:
            path.unlink(missing_ok=True)

        def upload(path: Path) -> None:
            with suppress(FileNotFoundError):
                there, own = self._bucket.read(name).decode().splitlines(), set(path.read_text().splitlines())
                with path.open("a") as file:
                    file.writelines(f"\n{line}\n" for line in there if line not in own)
            self._bucket.put(path, name)

        return Journal(path, upload)

    def probe(self) -> AbstractContextManager[Callable[[], None]]:
        return self._bucket.probe()

    def clean(self, seconds: float = DAY_SECONDS) -> None:
        self.cache.clean(seconds, self.has)
        for name, when in self._bucket.list("uploads").items():
            if when < time.time() - seconds:
                stage_id, _, random = name.rpartition(".")
                upload = f"stages/{stage_id}/{random}"
                if not self.has(stage_id) or self._about(stage_id, anew=True)["upload"] != upload:
                    self._bucket.remove_below(upload)
                self._bucket.remove(f"uploads/{name}")
        for name, when in self._bucket.list("checkpoints").items():
            stage_id = name.removesuffix(".json")
            if when < time.time() - seconds and self.has(stage_id):
                self._remove_checkpoints(stage_id)


def _identity(bucket: Bucket) -> str:
    """Return the store's random id; a new store where there is none (`StoreError`: it cannot be used)."""
    try:
        content = bucket.read(MARKER)
    except FileNotFoundError:
        bucket.write(MARKER, json.dumps({"version": VERSION, "id": secrets.token_hex(8)}).encode())
        content = bucket.read(MARKER)
    try:
        about = json.loads(content)
        version, identity = about["version"], str(about["id"])
    except (ValueError, KeyError, TypeError):
        raise StoreError(f"{bucket.where}/{MARKER}: cannot be read; choose another with --store") from None
    check_version(version, bucket.where)
    return identity
