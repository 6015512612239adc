"""This node's folder of a store: logs, fingerprints of data, and temporary folders.

The folder is the store's own, or the cache in front of object storage.
"""

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from samref.user_paths import absolute, home
from samref_sweep.store.locks import held, lock


def caches() -> Path:
    """This node's folder for what can be made or fetched again: `$SAMREF_CACHE`, or ~/.cache/samref."""
    named = os.environ.get("SAMREF_CACHE")
    return absolute(named) if named else home() / ".cache" / "samref"


class NodeFolder:
    """A folder on this node's disk, for what is written before it is finished and for what other nodes need not see."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.logs = self.root / "logs"
        """One log for each unit of work that ran here."""
        self.fingerprints = self.root / "fingerprints"
        """What reading data and checkpoints cost once."""
        self.mlflow = f"sqlite:///{self.root / 'mlflow.db'}"
        """MLflow's tracking URI unless a user names one: a SQLite file needs no server."""
        self.partial = self.root / ".partial"
        for folder in (self.logs, self.fingerprints, self.partial):
            folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def temporary(self, name: str) -> Iterator[Path]:
        """Give an empty folder for the time of the block, on the store's disk; `clean` leaves it alone meanwhile."""
        folder = self.partial / f"{name}.{secrets.token_hex(6)}"
        folder.mkdir()
        try:
            with held([folder]):
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def clean(self, seconds: float) -> None:
        """Remove temporary folders of processes that died, once they lay untouched for that many seconds."""
        for folder in self.partial.iterdir():
            try:
                newest = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
                if newest < time.time() - seconds:
                    with lock(folder) as free:
                        if free:
                            shutil.rmtree(folder, ignore_errors=True)
            except OSError:
                continue  # another process finished or removed it meanwhile
