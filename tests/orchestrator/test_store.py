"""The store: a stage is there whole or not at all, whoever is killed when."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from toys import summary_text

from samref_sweep.errors import DamagedError, StoreError
from samref_sweep.store import manifest
from samref_sweep.store.folder import Store


def finish(store: Store, stage_id: str, text: str = "hello") -> Path:
    with store.workspace(stage_id) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "a.txt").write_text(text)
        (folder / "summary.json").write_text(summary_text(stage_id))
    return store.folder(stage_id)


def test_a_stage_appears_when_its_block_ends(store: Store) -> None:
    with store.workspace("train-1") as folder:
        (folder / "summary.json").write_text(summary_text("train-1", loss=1))
        assert not store.has("train-1")
    assert store.done() == {"train-1"}
    assert store.open("train-1") == store.folder("train-1")
    assert store.summary("train-1").metrics == {"loss": 1}
    assert store.summary("train-1").commit == manifest.commit()


def test_nothing_is_left_of_a_stage_that_raised(store: Store) -> None:
    def fail() -> None:
        with store.workspace("train-1") as folder:
            (folder / "half").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert store.done() == frozenset()
    assert list((store.root / ".partial").iterdir()) == []


def test_the_first_of_two_writers_wins_and_the_second_does_no_harm(store: Store) -> None:
    with store.workspace("train-1") as mine:
        (mine / "summary.json").write_text(summary_text("second"))
        with store.workspace("train-1") as theirs:
            (theirs / "summary.json").write_text(summary_text("first"))
    assert store.summary("train-1").id == "first"
    assert list((store.root / ".partial").iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.write_text("hel"), "a.txt has 3 bytes, its manifest says 5; the folder was moved to "),
        (lambda file: file.write_text("hellO"), "a.txt has other bytes than those that were written; "),
        (lambda file: file.unlink(), "a.txt is missing; "),
        (lambda file: (file.parents[1] / "manifest.json").write_text("{"), "manifest.json cannot be read: "),
    ],
    ids=["truncated", "flipped", "gone", "no manifest"],
)
def test_a_damaged_stage_is_refused_by_name_and_not_done_any_more(store: Store, damage: object, message: str) -> None:
    folder = finish(store, "train-1")
    damage(folder / "deep" / "a.txt")  # type: ignore[operator]
    with pytest.raises(DamagedError, match=message):
        store.open("train-1")
    assert not store.has("train-1")
    (aside,) = (store.root / "damaged").iterdir()
    assert aside.name.startswith("train-1.")
    finish(store, "train-1")
    assert (store.open("train-1") / "deep" / "a.txt").read_text() == "hello"


CLAIMER = """
import sys
from pathlib import Path
from samref_sweep.store.folder import Store
with Store(Path(sys.argv[1])).claim(["train-2", "train-1"]):
    print("mine", flush=True)
    sys.stdin.read()
"""


def test_a_stage_is_one_processs_until_its_end_or_death(store: Store) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", CLAIMER, str(store.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    order: list[str] = []

    def wait() -> None:
        with store.claim(["train-1"]):
            order.append("claimed")

    thread = threading.Thread(target=wait)
    thread.start()
    with store.claim(["train-3"]):
        time.sleep(0.5)
        order.append("killed")
    process.kill()
    process.wait()
    thread.join(10)
    assert order == ["killed", "claimed"]


def test_failures_are_remembered_until_the_stage_is_done_or_to_be_tried(store: Store) -> None:
    for stage_id in ("train-1", "train-2"):
        store.remember_failure(stage_id, {"reason": "boom"})
    finish(store, "train-1")
    assert store.failures() == {"train-2": {"reason": "boom"}}
    store.forget_failures(["train-2", "train-9"])
    assert store.failures() == {}


WRITER = """
import sys, time
from pathlib import Path
from samref_sweep.store.folder import Store
store = Store(Path(sys.argv[1]))
number = 0
while True:
    with store.workspace(f"train-{number}") as folder:
        for part in range(20):
            (folder / f"{part}.bin").write_bytes(bytes(20_000))
        print(number, flush=True)
    number += 1
"""


def test_a_kill_at_any_moment_leaves_only_whole_stages(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for attempt in range(5):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(store.root)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.02 * attempt)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        for stage_id in store.done():
            assert len(list(store.open(stage_id).glob("*.bin"))) == 20


def test_remains_are_removed_after_a_day_but_not_from_a_living_process(store: Store) -> None:
    abandoned = store.root / ".partial" / "train-1.dead"
    abandoned.mkdir()
    fresh = store.root / ".partial" / "train-2.dead"
    fresh.mkdir()
    with store.workspace("train-3") as living:
        for folder in (abandoned, living):
            os.utime(folder, (0, 0))
        store.clean()
        assert not abandoned.exists()
        assert fresh.exists()
        assert living.exists()


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StoreError, match=r"file/runs: cannot be used as a store: Not a directory; .*--store"):
        Store(file / "runs")


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    (store.root / "samref-store.json").write_text('{"version": 99}')
    with pytest.raises(StoreError, match="is a store of version 99"):
        Store(store.root)
