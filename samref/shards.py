"""A stage in shards: ranges of its images or samples, which any number of processes work, and which are then joined.

Where a range begins depends on how many images or samples there are and on nothing else, so the output is the same
whoever worked which shard. A finished shard is a folder that appears by rename in the stage's scratch folder: a stage
that is started again goes on from those that are there, with as many processes as there are then. Two that work the
same shard, because one was cut off and given up, do no harm: each writes aside, and the first to finish counts.
"""

import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from samref.sha256 import sha256_of
from samref.stage import Report

FILE = "shard.json"
"""What a finished shard says of itself: seconds, device, and each file's size and hash."""
_COUNT = 128
"""Shards of a stage, about: sixteen processes end at much the same time."""
_LARGEST = 512
"""Images or samples of a shard at most, which is what a killed process loses: SAM's features of so many are 1 GiB."""


class Shards:
    """The shards of one stage in a folder, and how one process works them."""

    def __init__(
        self,
        folder: Path,
        total: int,
        wave: int,
        *,
        about: Callable[[], Mapping[str, Any]] = dict,
        finished: Callable[[Path], None] = lambda folder: None,
    ) -> None:
        """Shards of `total` images or samples, each but the last a multiple of `wave`: those that are worked together.

        The folder of the finished ones need not exist. `about` says what to note of the process that finishes a shard;
        `finished` is called with the folder of each that this process finished.
        """
        self.folder = folder
        self.total = total
        self.size = wave * max(1, min(-(-total // (wave * _COUNT)), _LARGEST // wave))
        self.count = -(-total // self.size)
        self.finished = finished
        self._about = about
        self._since = self._busy_since = time.perf_counter()
        folder.mkdir(parents=True, exist_ok=True)

    def rows(self, number: int) -> range:
        """The positions of a shard's images or samples."""
        return range(number * self.size, min(self.total, (number + 1) * self.size))

    def missing(self) -> list[int]:
        """The numbers of the shards that are not finished."""
        with os.scandir(self.folder) as entries:
            there = {entry.name for entry in entries}
        return [number for number in range(self.count) if str(number) not in there]

    def path(self, number: int) -> Path:
        """The folder of a finished shard."""
        return self.folder / str(number)

    def about(self) -> list[dict[str, Any]]:
        """What all finished shards say of themselves, in their order."""
        return [json.loads((self.path(number) / FILE).read_text()) for number in range(self.count)]

    def begin(self) -> None:
        """Count what a shard took from here: the model is there, and what is done once has been done."""
        self._busy_since = time.perf_counter()

    @contextmanager
    def writing(self, number: int) -> Iterator[Path]:
        """Give an empty folder that is the finished shard's when the block ends, on the disk and with its hashes.

        If another process finished the same shard first, its folder stays.
        """
        aside = self.folder / f".{number}.{secrets.token_hex(6)}"
        aside.mkdir()
        try:
            yield aside
            now = time.perf_counter()
            told = {"seconds": now - self._since, "busy_seconds": now - self._busy_since, **self._about()}
            self._since = self._busy_since = now
            files = {path.name: _on_disk(path) for path in sorted(aside.iterdir())}
            (aside / FILE).write_text(json.dumps({**told, "files": files}) + "\n")
            _on_disk(aside / FILE)
            try:
                aside.rename(self.path(number))
            except OSError:
                if not self.path(number).is_dir():
                    raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        self.finished(self.path(number))

    def clear_aside(self) -> None:
        """Remove what processes that are gone did not finish."""
        for left in self.folder.glob(".*"):
            shutil.rmtree(left, ignore_errors=True)


class Divisible(Protocol):
    """A stage that can be worked in shards."""

    total: int
    """How many images or samples it has."""
    wave: int
    """How many of them are worked together."""
    unit: int
    """Steps of progress that one of them is."""

    def work(self, shards: Shards, numbers: Iterable[int], report: Report) -> None:
        """Work the shards of these numbers, which are taken one by one, as there is time for them.

        `report` is called with the number of images or samples that this call is done with.
        """

    def join(self, shards: Shards, outs: tuple[Path, ...]) -> list[dict[str, float | int]]:
        """Write the output folders from the finished shards, which stay; gives what each output's stage measured."""


Work = Callable[[Iterable[int], Report], None]
Lead = Callable[[Shards, Work, Report], None]
"""Has all missing shards worked, by its second argument and by whatever other processes there are."""


def alone(shards: Shards, work: Work, report: Report) -> None:
    """A `Lead` that has no other processes."""
    work(shards.missing(), report)


def whole(
    stage: Divisible, outs: tuple[Path, ...], scratch: Path, report: Report = lambda step, metrics: None
) -> list[dict[str, float | int]]:
    """Work all of a stage here, with a folder for its shards; gives what was measured."""
    shards = Shards(scratch, stage.total, stage.wave)
    stage.work(shards, shards.missing(), report)
    return stage.join(shards, outs)


def linked(path: Path, to: Path) -> None:
    """Give a file a second name, on a file system that can; a copy on others."""
    try:
        to.hardlink_to(path)
    except OSError:
        shutil.copyfile(path, to)


def _on_disk(path: Path) -> dict[str, Any]:
    """Bring a file to the disk; its size and hash."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
