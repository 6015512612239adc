"""Forks a process that imported everything once, and ends each child at another step that it makes on a disk or server.

    python crash_points.py SCENARIO FOLDER [URI]

Child n ends before its n-th step; a second child then does the same work to its end. What this leaves is compared with
what an undisturbed child leaves. Prints JSON: the steps in their order, and the outcomes that differ. Forks instead of
starts, for imports take seconds; no thread may live when one is made (pyarrow's S3 has some).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import sqlite3
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import sqlalchemy
from mlflow import MlflowClient
from pyarrow import fs
from toys import toy_plan, write_toy_stage

from samref.config import Runtime
from samref.stage import Stopped
from samref_sweep.execution.unit import perform
from samref_sweep.failures import Failure
from samref_sweep.record import tracker
from samref_sweep.store import manifest
from samref_sweep.store.bucket import Bucket
from samref_sweep.store.folder import FolderStore
from samref_sweep.store.object_store import ObjectStore
from samref_sweep.store.store import Store

KILLED = 77
ON_DISK = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.fsync", "write")
IN_A_BUCKET = ("write", "put", "_copied", "remove", "remove_below")
"""What changes a bucket: a process that ends before it reads leaves what one does that ends before its next change."""
Step = Callable[[str], None]


def count_steps(step: Step, kinds: tuple[str, ...]) -> None:
    """Have a function called before each step of this process that changes a disk, a bucket or a database."""

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE:
            event = "write"
        if event in kinds:
            step(event)

    sys.addaudithook(audit)
    for name in IN_A_BUCKET:
        setattr(Bucket, name, _audited(f"bucket.{name}", getattr(Bucket, name)))
    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "commit", lambda connection: sys.audit("commit"))


def _audited(name: str, change: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*given: Any, **named: Any) -> Any:
        sys.audit(name)
        return change(*given, **named)

    return counted


def fork(work: Callable[[Callable[[Any], None]], None]) -> tuple[int, Any]:
    """Run a function in a child; its exit code, and what it said with the function that it is given."""
    reading, writing = os.pipe()
    assert threading.active_count() == 1
    child = os.fork()
    if not child:
        code = 1
        try:
            work(lambda told: (os.write(writing, json.dumps(told).encode()), None)[1])
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as file:
        told = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), json.loads(told or "null")


class Scenario:
    """Work in a folder that can be cut at any step, and done again."""

    kinds: tuple[str, ...] = ON_DISK

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder, self.uri = folder, uri

    def prepare(self) -> None:
        """Make what is there before."""

    def run(self) -> None:
        """Do the work, or what is left of it."""
        raise NotImplementedError

    def done(self) -> dict[str, Any]:
        """What must not be made again once it is there."""
        return {}

    def outcome(self) -> Any:
        """What is there in the end."""
        raise NotImplementedError


def do_stages_and_write_down(store: Store) -> None:
    """Everything that is written into a store: embeddings, a training after a preemption, a journal and a failure."""
    store.clean(seconds=-60)
    planned = toy_plan(store, gammas=(0.6,), thetas=(1.05,))
    (train,) = (stage for stage in planned.stages.values() if stage.kind == "train")
    for work in planned.works:
        if work.stages[0].id in {train.id, *train.needs.values()}:
            for runner in (preempted, write_toy_stage) if work.kind == "train" else (write_toy_stage,):
                with suppress(Stopped):
                    perform(work, store, runtime=Runtime(), report=lambda step, metrics: None, runner=runner)
    journal = store.journal("searches/a.jsonl")
    for number in range(len(journal.read()), 2):
        journal.append({"number": number})
    store.failures.remember("train-9", Failure("boom"))


def preempted(job: Any, report: Any) -> None:
    """A training that is told to stop after its first checkpoint."""
    if not any(job.scratch.glob("step-*")):
        aside = job.scratch / "writing"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        (aside / "weights").write_text("one")
        aside.rename(job.scratch / "step-1")
    raise Stopped


def contents(store: Store) -> dict[str, Any]:
    """All that a store tells of its stages, its journal and its failures."""
    return {
        "stages": {name: files(store.open(name)) for name in sorted(store.done())},
        "journal": store.journal("searches/a.jsonl").read(),
        "failures": {name: str(failure) for name, failure in store.failures.all().items()},
    }


def files(folder: Path) -> dict[str, str]:
    """Name → hash of all files in a folder."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


class InAFolder(Scenario):
    def run(self) -> None:
        do_stages_and_write_down(FolderStore(self.folder))

    def done(self) -> dict[str, Any]:
        return {path.name: path.stat().st_ino for path in self.folder.glob("stages/*")}

    def outcome(self) -> Any:
        store = FolderStore(self.folder)
        store.clean(seconds=-60)
        left = [path.name for place in (".partial", "scratch", "damaged") for path in (self.folder / place).glob("*")]
        return {**contents(store), "left": left}


class OnObjectStorage(Scenario):
    kinds = (*(f"bucket.{name}" for name in IN_A_BUCKET), "os.rename")

    @cached_property
    def store(self) -> ObjectStore:
        """The store, opened in a child."""
        os.environ["SAMREF_CACHE"] = str(self.folder / "cache")
        return ObjectStore(f"{self.uri}/{self.folder.name}", patient=True)

    def run(self) -> None:
        do_stages_and_write_down(self.store)

    def done(self) -> dict[str, Any]:
        return dict(self.store.dated())

    def outcome(self) -> Any:
        self.store.clean(seconds=-60)
        files, root = self.store._bucket._files, self.store._bucket._root
        found = files.get_file_info(fs.FileSelector(root, recursive=True))
        names = [each.path.removeprefix(f"{root}/").split("/") for each in found if each.type == fs.FileType.File]
        left = [name for name in names if name[0] in ("uploads", "checkpoints", "probes")]
        uploads = {(name[1], name[2]) for name in names if name[0] == "stages"}
        shutil.rmtree(self.store.node.root / "done", ignore_errors=True)
        for folder in self.store.cache.stages.iterdir():
            shutil.rmtree(folder)  # so that it is what another node sees
        return {**contents(self.store), "left": left, "uploads": sorted(stage_id for stage_id, _ in uploads)}


class InMLflow(Scenario):
    kinds = ("commit",)

    def prepare(self) -> None:
        made = self.folder.parent / "made"
        if not made.exists():
            self._make(made)
        shutil.copytree(made, self.folder)

    @staticmethod
    def _make(made: Path) -> None:
        store = FolderStore(made)
        for work in toy_plan(store, gammas=(0.6,), thetas=(1.05,)).works:
            perform(work, store, runtime=Runtime(), report=lambda step, metrics: None, runner=write_toy_stage)
        MlflowClient(tracking_uri=store.node.mlflow).search_experiments(max_results=1)
        warm = InMLflow(made.parent / "warm", "")
        shutil.copytree(made, warm.folder)
        warm.run()  # what MLflow reads and compiles once for all children
        warm.outcome()

    def run(self) -> None:
        store = FolderStore(self.folder)
        planned = toy_plan(store, gammas=(0.6,), thetas=(1.05,))
        log = tracker.Tracker(planned, store, store.node.mlflow, lambda text: sys.exit(text))
        assert log.close(planned.outcomes(store.done(), {}), interrupted=False)

    def outcome(self) -> Any:
        client = MlflowClient(tracking_uri=FolderStore(self.folder).node.mlflow)
        runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
        told = [[run.info.run_name, run.info.status, run.data.params, run.data.metrics] for run in runs]
        kept = [files(Path(run.info.artifact_uri.removeprefix("file://"))) for run in runs]
        with sqlite3.connect(self.folder / "mlflow.db") as database:  # the client asks for each metric's points alone
            points = database.execute("SELECT key, step, value, timestamp FROM metrics ORDER BY 1, 2").fetchall()
        return [sorted([*told, *kept], key=str), points]


SCENARIOS = {"folder": InAFolder, "objects": OnObjectStorage, "mlflow": InMLflow}


def main(name: str, root: str, uri: str = "") -> None:
    manifest.commit()  # once for all children
    InAFolder(Path(root, "first"), "").run()  # what is imported when it is first needed, once for all children
    # A process's end loses nothing that was written; only a machine's does, and waiting for the disk takes a minute.
    os.fsync = lambda descriptor: sys.audit("os.fsync")

    def prepared(folder: str) -> Scenario:
        scenario = SCENARIOS[name](Path(root, folder), uri)
        scenario.prepare()
        return scenario

    def cut(scenario: Scenario, after: int, say: Callable[[Any], None]) -> None:
        steps: list[str] = []
        one_at_a_time = threading.Lock()  # two threads that upload would both be the last, and both say so

        def step(kind: str) -> None:
            with one_at_a_time:
                if len(steps) == after:
                    say(steps)
                    os._exit(KILLED)
                steps.append(kind)

        count_steps(step, scenario.kinds)
        scenario.run()

    def finish(scenario: Scenario, say: Callable[[Any], None]) -> None:
        before = scenario.done()
        scenario.run()
        after = scenario.done()
        repeated = [name for name in before if before[name] != after.get(name)]
        say({"repeated": repeated, "outcome": scenario.outcome()})

    wanted = fork(partial(finish, prepared("undisturbed")))
    steps: list[str] = []
    different: dict[int, Any] = {}
    for number in itertools.count():
        scenario = prepared(f"cut-{number}")
        code, told = fork(partial(cut, scenario, number))
        if code != KILLED:
            break
        steps = told
        if (ended := fork(partial(finish, scenario))) != wanted:
            different[number] = ended
        shutil.rmtree(scenario.folder)
    print(json.dumps({"steps": steps, "last": code, "wanted": wanted, "different": different}))


if __name__ == "__main__":
    main(*sys.argv[1:])
