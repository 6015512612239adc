"""Opens the store that a path or a URI names."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from samref.user_paths import expanded
from samref_sweep.errors import StoreError
from samref_sweep.store.folder import MARKER, FolderStore
from samref_sweep.store.node import caches
from samref_sweep.store.store import Store


def is_uri(where: str) -> bool:
    """Tell whether a place is object storage, and no folder."""
    return "://" in where and not where.startswith("file://")


def local(where: str) -> Path:
    """Return the folder that is meant by a path or `file://` (`StoreError`: tables and MLflow could not name it, it is
    a URI that lacks a slash, or a file is in its place)."""
    if not where:
        raise StoreError("a path is empty; name a folder, or a URI")
    if lacking := re.match(r"([a-z0-9]{2,}:/)(?!/)", where):
        raise StoreError(f"{where}: is neither a path nor a URI, which begins with {lacking[1]}/")
    if where.startswith("file://") and (host := urlsplit(where).netloc) not in ("", "localhost"):
        raise StoreError(f"{where}: names a host, {host}; a folder of this machine has three slashes, file:///…")
    path = Path(unquote(urlsplit(where).path)) if where.startswith("file://") else expanded(where)
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        raise StoreError(
            f"{path.absolute()}: this path is not UTF-8, as all that is written must be; choose another"
        ) from None
    if not (there := existing(path)).is_dir():
        raise StoreError(f"{path}: {there} is no folder; choose another")
    return path


def existing(path: Path) -> Path:
    """The path itself where something is there, else the nearest folder above it that is."""
    return next(each for each in (path.absolute(), *path.absolute().parents) if os.path.lexists(each))


def open_store(where: str, *, patient: bool = False) -> Store:
    """Open the store in a folder or at a URI; a new one where there is none (`StoreError`: it cannot be used).

    With `patient` a server that is away is waited for, a minute; else what is wrong is told at once.
    """
    if not is_uri(where):
        return FolderStore(local(where))
    from samref_sweep.store.object_store import ObjectStore  # imports pyarrow, which a folder needs not

    store = ObjectStore(where, patient=patient)
    if patient:  # a worker, of whose node's cache the driver sees nothing
        store.cache.clean(is_done=store.has)
    return store


def existing_store(where: str) -> Store | None:
    """Open the store in a folder or at a URI, if there is one (`StoreError`: it cannot be used)."""
    if not is_uri(where):
        return FolderStore(local(where)) if (local(where) / MARKER).is_file() else None
    from samref_sweep.store.bucket import QUICK, Bucket  # imports pyarrow, which a folder needs not

    return open_store(where) if Bucket(where, QUICK).has(MARKER) else None


@contextmanager
def own_disk(*, passing: bool) -> Iterator[FolderStore]:
    """Give a store on this node's disk, for what the sweep's does not keep; with `passing`, one for the block alone."""
    own = FolderStore(caches() / "embeddings")
    own.clean()
    if not passing:
        yield own
        return
    with own.node.temporary("passing") as folder:
        yield FolderStore(folder)
