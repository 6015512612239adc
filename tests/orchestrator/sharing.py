"""A toy stage in shards: each sample sleeps, and a ledger tells which process began which shard."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from toys import summary_text, write_toy_stage

from samref.run_stage import lead_shards, shards_of
from samref.shards import Lead, Shards, alone
from samref.stage import Job, Report


class SleepingSamples:
    """`total` samples, two a wave, each of which sleeps so many seconds; a `samref.shards.Divisible`."""

    wave, unit = 2, 1

    def __init__(self, total: int, seconds: float, ledger: Path, killed: Path) -> None:
        self.total = total
        self._seconds = seconds
        self._ledger = ledger
        self._killed = killed

    def work(self, shards: Shards, numbers: Iterable[int], report: Report) -> None:
        """Write each sample's position; while there is a file `killed`, the first who does not lead is killed."""
        done = 0
        for number in numbers:
            with self._ledger.open("a") as file:
                file.write(f"{number} {os.getpid()}\n")
            with shards.writing(number) as folder:
                time.sleep(self._seconds * len(shards.rows(number)))
                (folder / "rows").write_text("".join(f"{row}\n" for row in shards.rows(number)))
                if self._killed.exists() and int(self._killed.read_text()) != os.getpid():
                    self._killed.unlink()
                    os.kill(os.getpid(), signal.SIGKILL)
            until = time.monotonic() + 90
            while self._killed.exists() and time.monotonic() < until:  # who leads waits until another one was killed
                time.sleep(0.5)
                report(done, {"clicks": 2.0 * done})  # as a stage does all the time
            done += len(shards.rows(number))
            report(done, {"clicks": 2.0 * done})

    def join(self, shards: Shards, outs: tuple[Path, ...]) -> list[dict[str, float | int]]:
        """Write all positions, in their order, into each output."""
        rows = "".join((shards.path(number) / "rows").read_text() for number in range(shards.count))
        for out in outs:
            (out / "rows").write_text(rows)
        return [{"num_samples": self.total}] * len(outs)


class SharedToys:
    """A `Sharing` runner: evaluations are `SleepingSamples`, other stages write what toys write.

    With `but_first` the evaluation that begins first is a toy too, and ends once another one works.
    """

    def __init__(self, total: int = 12, seconds: float = 0.0, *, kill: bool = False, but_first: bool = False) -> None:
        self._total = total
        self._seconds = seconds
        self._kill = kill
        self._but_first = but_first

    def _stage(self, job: Job) -> SleepingSamples:
        root = job.scratch.parent
        return SleepingSamples(self._total, self._seconds, root / "ledger", root / "killed")

    def __call__(self, job: Job, report: Report, lead: Lead = alone) -> None:
        """Run a job."""
        if job.stages[0].kind != "evaluate" or (self._but_first and self._is_first(job.scratch.parent, report)):
            write_toy_stage(job, report)
            return
        if self._kill:
            (job.scratch.parent / "killed").write_text(str(os.getpid()))
        metrics, _ = lead_shards(job, self._stage(job), report, lead)
        for stage, out, measured in zip(job.stages, job.outs, metrics, strict=True):
            (out / "summary.json").write_text(summary_text(stage.id, stage, **measured))

    def _is_first(self, root: Path, report: Report) -> bool:
        try:
            (root / "first").mkdir()
        except FileExistsError:
            return False
        until = time.monotonic() + 90
        while not (root / "ledger").exists() and time.monotonic() < until:
            time.sleep(0.5)
            report(0, {"total": 1})
        return True

    def help(self, job: Job, report: Report, numbers: Iterable[int], finished: Callable[[Path], None]) -> None:
        """Work shards of a job that another process runs."""
        stage = self._stage(job)
        stage.work(shards_of(job, stage, finished), numbers, report)
