"""The store: a stage is there whole or not at all, whoever is killed when."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from samref_sweep.store import Store, StoreError


def finish(store: Store, stage_id: str, text: str = "hello") -> Path:
    with store.workspace(stage_id) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "a.txt").write_text(text)
        (folder / "summary.json").write_text(json.dumps({"id": stage_id}))
    return store.folder(stage_id)


def test_a_stage_appears_when_its_block_ends(store: Store) -> None:
    with store.workspace("train-1") as folder:
        (folder / "summary.json").write_text("{}")
        assert not store.has("train-1")
    assert store.done() == {"train-1"}
    assert store.open("train-1") == store.folder("train-1")
    assert "commit" in store.summary("train-1")


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
        (mine / "summary.json").write_text('{"who": "second"}')
        with store.workspace("train-1") as theirs:
            (theirs / "summary.json").write_text('{"who": "first"}')
    assert store.summary("train-1")["who"] == "first"
    assert list((store.root / ".partial").iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.write_text("hel"), "a.txt has 3 bytes, its manifest says 5; delete the folder"),
        (lambda file: file.write_text("hellO"), "a.txt has other bytes than those that were written"),
        (lambda file: file.unlink(), "cannot be read: .*No such file"),
    ],
    ids=["truncated", "flipped", "gone"],
)
def test_a_damaged_stage_is_refused_by_name(store: Store, damage: object, message: str) -> None:
    folder = finish(store, "train-1")
    damage(folder / "deep" / "a.txt")  # type: ignore[operator]
    with pytest.raises(StoreError, match=message):
        store.open("train-1")


WRITER = """
import sys, time
from pathlib import Path
from samref_sweep.store import Store
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
