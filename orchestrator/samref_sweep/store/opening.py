"""Opens the store that a path or a URI names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from samref_sweep.store.folder import MARKER, Store
from samref_sweep.store.object_store import ObjectStore

if TYPE_CHECKING:
    pass  # imports pyarrow


def is_uri(where: str) -> bool:
    """Whether a place is object storage, and no folder."""
    return "://" in where and not where.startswith("file://")


def local(where: str) -> Path:
    """The folder that is meant by a path or `file://`."""
    return Path(unquote(urlsplit(where).path) if where.startswith("file://") else where)


def open_store(where: str, *, patient: bool = False) -> Store:
    """The store in a folder or at a URI; a new one where there is none (`StoreError`: it cannot be used).

    Args:
        where: path or URI.
        patient: whether a server that is away is waited for, a minute; else what is wrong is told at once.
    """
    return ObjectStore(where, patient=patient) if is_uri(where) else Store(local(where))


def existing_store(where: str) -> Store | None:
    """The store in a folder or at a URI, if there is one."""
    if is_uri(where):
        from samref_sweep.store.bucket import QUICK, Objects  # imports pyarrow

        return ObjectStore(where) if Objects(where, QUICK).has(MARKER) else None
    return Store(local(where)) if Store.exists(local(where)) else None
