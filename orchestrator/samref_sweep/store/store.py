"""What every store of finished stages offers, whether it is a folder or lies on object storage.

Whoever runs, records or shows a sweep knows this protocol and none of the classes behind it: `FolderStore` and
`ObjectStore`, which `opening.open_store` chooses between. One class of tests runs against both.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from samref.config import Far
from samref.summary import Summary
from samref_sweep.store.journal import Journal
from samref_sweep.store.node import NodeFolder
from samref_sweep.store.notes import Codes, Failures, Leaves
from samref_sweep.store.shards import ShardPlace

DAY_SECONDS = 86_400


class Claim(Protocol):
    """What may be written by whoever has the sole right to work on some stages."""

    def workspace(self, stage_id: str) -> AbstractContextManager[Path]:
        """Give an empty folder that becomes the stage's when the block ends, and vanishes when it raises.

        If another process finished the same stage first, its folder stays: equal ids are equal work.
        """

    def scratch(self, stage_id: str) -> AbstractContextManager[Path]:
        """Give a folder that outlives a killed attempt at a stage, so that the next attempt goes on from it.

        A checkpoint in it is a folder `step-…` that appears by rename; the newest is the last by name.
        """


class Store(Protocol):
    """Finished stages by their ids, which any number of processes may read and add to at the same time.

    A stage is there whole or not at all. Methods raise `StoreError` where the disk or the server does not answer.
    """

    where: str
    """The path or URI from which `open_store` opens the same store in any process."""
    shared: Path | None
    """The store's folder, which all nodes see; None where each node has a cache of its own in front of a bucket."""
    node: NodeFolder
    """This node's folder for logs, fingerprints of data, MLflow's database and whatever is temporary."""
    far: Far | None
    """Reads parts of what is not in the folder that `open` gave; None where all is."""
    failures: Failures
    codes: Codes
    leaves: Leaves

    def has(self, stage_id: str) -> bool:
        """Tell whether a stage is done."""

    def done(self) -> frozenset[str]:
        """Return the ids of all finished stages."""

    def dated(self) -> dict[str, float]:
        """Return the ids of all finished stages, and when each was finished, in seconds since 1970."""

    def open(self, stage_id: str) -> Path:
        """Compare a finished stage's files with its manifest and return their folder, or *set the stage aside*.

        A stage that was damaged is moved away or disowned first: it counts as not done from then on, and is made anew.
        Raises DamagedError: a file is missing, has another size, or (small files) other bytes.
        """

    def supersede(self, stage_ids: Iterable[str]) -> None:
        """Set finished stages aside, so that they count as not done and are made anew.

        Nothing is lost: what they were stays in the store, under `replaced`, until the new output is there.
        """

    def summary(self, stage_id: str, *, checked: bool = True) -> Summary:
        """Return what a finished stage measured, and the `commit` of the code that did.

        A folder's files are compared with its manifest first, as `open` does, unless that is left out.
        """

    def file(self, stage_id: str, name: str) -> Path:
        """Return one file of a finished stage, for whoever needs no others.

        Raises FileNotFoundError: the stage wrote none of that name.
        """

    def claim(self, stage_ids: Iterable[str]) -> AbstractContextManager[Claim]:
        """Hold the sole right to work on stages for the block; it ends with the process at the latest.

        Waits while another process has it. Stages that are finished when the block ends without an exception can then
        be seen by all nodes, and what attempts at them left behind is removed.
        """

    def shards(self, stage_id: str) -> ShardPlace:
        """Give the place of a stage's finished shards, to whoever has the claim or helps who has it."""

    def journal(self, name: str) -> Journal:
        """Open what one driver at a time writes down in a file of that name, to go on from."""

    def probe(self) -> AbstractContextManager[Callable[[], None]]:
        """Give a function by which any process of any node makes sure that it can write into this very store.

        The function can be pickled, holds for the block, and raises OSError or StoreError where it cannot write.
        """

    def clean(self, seconds: float = DAY_SECONDS) -> None:
        """Remove what processes that died left behind, once it lay untouched for that many seconds."""
