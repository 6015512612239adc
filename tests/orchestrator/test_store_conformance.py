"""What every store promises, run against a folder and against object storage; "another" is another node or process."""

import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stores import InFolder, OnObjectStorage, Place, finish
from toys import summary_text

from samref.shards import Shards, linked
from samref_sweep.errors import DamagedError, StoreError
from samref_sweep.failures import Failure
from samref_sweep.store.folder import FolderStore
from samref_sweep.store.locks import lock
from samref_sweep.store.object_store import ObjectStore
from samref_sweep.store.store import Store

PROGRAM = Path(__file__).parent / "programs" / "use_store.py"


@pytest.fixture(params=["folder", "object storage"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "folder":
        yield InFolder(tmp_path / "store")
    else:
        yield OnObjectStorage(request.getfixturevalue("bucket"), tmp_path / "caches")


@pytest.fixture
def one(place: Place) -> Store:
    return place.node("one")


@pytest.fixture
def another(place: Place) -> Store:
    return place.node("another")


def test_the_protocol_is_small_and_no_store_inherits_one() -> None:
    methods = [name for name, value in vars(Store).items() if callable(value) and not name.startswith("_")]
    assert len(methods) <= 12
    assert FolderStore.__bases__ == ObjectStore.__bases__ == (object,)


class TestStore:
    def test_a_stage_appears_whole_when_it_is_finished(self, one: Store, another: Store) -> None:
        before = time.time()
        with one.claim(["train-1"]) as claim, claim.workspace("train-1") as folder:
            (folder / "deep").mkdir()
            (folder / "deep" / "a.txt").write_text("hello")
            (folder / "summary.json").write_text(summary_text("train-1", loss=1))
            assert not one.has("train-1")
            assert one.done() == another.done() == frozenset()
        for store in (one, another):
            assert store.has("train-1")
            assert store.done() == store.dated().keys() == {"train-1"}
            assert before - 2 < store.dated()["train-1"] < time.time() + 2
            for checked in (True, False):
                assert store.summary("train-1", checked=checked).metrics == {"loss": 1}
            assert store.file("train-1", "deep/a.txt").read_text() == "hello"
            with pytest.raises(FileNotFoundError):
                store.file("train-1", "system.jsonl")
            assert (store.open("train-1") / "deep" / "a.txt").read_text() == "hello"
            assert store.file("train-1", "deep/a.txt").read_text() == "hello"

    def test_nothing_is_left_of_a_stage_that_raised(self, one: Store, another: Store) -> None:
        def fail() -> None:
            with one.claim(["train-1"]) as claim, claim.workspace("train-1") as folder:
                (folder / "half").write_text("x")
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail()
        assert one.done() == another.done() == frozenset()
        assert list(one.node.partial.iterdir()) == []
        finish(one, "train-1")
        assert another.has("train-1")

    def test_of_two_writers_one_result_stays(self, one: Store, another: Store, place: Place) -> None:
        with one.workspace("train-1") as mine:
            (mine / "summary.json").write_text(summary_text("second"))
            with another.claim(["train-1"]) as claim, claim.workspace("train-1") as theirs:
                (theirs / "summary.json").write_text(summary_text("first"))
        with one.claim(["train-1"]) as claim:
            pass
        assert place.node("third").summary("train-1").id == "first"
        assert list(one.node.partial.iterdir()) == []

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda content: content[:3], r"a\.txt has (3|other) bytes"),
            (lambda content: b"hellO", r"a\.txt has other bytes than those that were written"),
            (lambda content: None, r"a\.txt is missing"),
        ],
        ids=["truncated", "flipped", "gone"],
    )
    def test_a_damaged_stage_is_refused_by_name_and_not_done_any_more(
        self, place: Place, one: Store, another: Store, change: Callable[[bytes], bytes | None], message: str
    ) -> None:
        finish(one, "train-1")
        third = place.node("third")
        third.summary("train-1")
        place.change("train-1", "deep/a.txt", change)
        with pytest.raises(DamagedError, match=message + ".*; run again to make it anew"):
            another.open("train-1")
        assert not another.has("train-1")
        assert not third.has("train-1")
        finish(another, "train-1", "made anew")
        # What it knows of the stage is older.
        assert third.file("train-1", "deep/a.txt").read_text() == "made anew"
        assert (third.open("train-1") / "deep" / "a.txt").read_text() == "made anew"

    def test_a_stage_is_one_process_s_until_its_end_or_death(self, place: Place, one: Store) -> None:
        command = [sys.executable, str(PROGRAM), "claim", place.where, "train-2", "train-1"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        order: list[str] = []

        def wait() -> None:
            with one.claim(["train-1"]):
                order.append("claimed")

        thread = threading.Thread(target=wait)
        thread.start()
        with one.claim(["train-3"]):
            time.sleep(0.5)
            order.append("killed")
        process.kill()
        process.wait()
        thread.join(10)
        assert order == ["killed", "claimed"]

    def test_who_waited_for_several_stages_goes_on_when_their_holder_removed_what_it_held(self, one: Store) -> None:
        stages, began = ["evaluate-1", "evaluate-2"], threading.Event()

        def finish() -> None:
            with one.claim(stages) as claim:
                began.set()
                time.sleep(0.5)
                for stage_id in stages:
                    with claim.workspace(stage_id) as folder:
                        (folder / "summary.json").write_text(summary_text(stage_id))

        other = threading.Thread(target=finish)
        other.start()
        began.wait()
        with one.claim([*stages, "evaluate-3"]) as claim:
            assert [one.has(stage_id) for stage_id in (*stages, "evaluate-3")] == [True, True, False]
            with claim.scratch("evaluate-3") as scratch, lock(scratch) as free:
                assert not free
        other.join()

    def test_scratch_outlives_an_attempt_and_ends_with_the_stage(self, one: Store) -> None:
        def stop() -> None:
            with one.claim(["train-1"]) as claim, claim.scratch("train-1") as folder:
                (folder / "step-1").mkdir()
                raise RuntimeError

        with pytest.raises(RuntimeError):
            stop()
        with one.claim(["train-1"]) as claim, claim.scratch("train-1") as folder:
            assert (folder / "step-1").is_dir()
        assert folder.is_dir()
        finish(one, "train-1")
        assert not folder.exists()

    def test_failures_are_remembered_until_the_stage_is_done_or_to_be_tried(self, one: Store, another: Store) -> None:
        failure = Failure("boom", "a.log", "time_limit")
        for stage_id in ("train-1", "train-2"):
            one.failures.remember(stage_id, failure)
        finish(one, "train-1")
        assert one.failures.all() == another.failures.all() == {"train-2": failure}
        another.failures.forget(["train-2", "train-9"])
        assert one.failures.all() == {}

    def test_the_log_of_what_failed_is_kept_where_it_can_be_read(self, one: Store) -> None:
        (one.node.logs / "train-1.log").write_text("Traceback")
        place = one.failures.keep_log(one.node.logs / "train-1.log")
        assert place.endswith("/logs/train-1.log")
        if one.shared:
            assert Path(place).read_text() == "Traceback"

    def test_a_journal_goes_on_where_another_driver_ended(self, one: Store, another: Store) -> None:
        one.journal("searches/a.jsonl").append({"gamma": 0.5})
        another.journal("searches/a.jsonl").append({"gamma": 0.6})
        assert one.journal("searches/a.jsonl").read() == [{"gamma": 0.5}, {"gamma": 0.6}]
        assert one.journal("searches/b.jsonl").read() == []

    def test_two_drivers_that_write_one_journal_lose_no_line_of_each_other(
        self, one: Store, another: Store, place: Place
    ) -> None:
        journals = [store.journal("rungs.jsonl") for store in (one, another)]
        for number, journal in enumerate(journals * 2):
            journal.append({"step": number})
        assert sorted(entry["step"] for entry in place.node("third").journal("rungs.jsonl").read()) == [0, 1, 2, 3]

    def test_another_process_can_tell_whether_it_sees_the_store(self, one: Store) -> None:
        with one.probe() as probe:
            look = "import pickle, sys; pickle.load(sys.stdin.buffer)()"
            command = [sys.executable, "-c", look]
            subprocess.run(command, input=pickle.dumps(probe), check=True, timeout=60)
        with pytest.raises((OSError, StoreError)):
            probe()

    def test_remains_are_removed_after_a_day_but_not_from_a_living_process(self, one: Store) -> None:
        abandoned, fresh = (one.node.partial / f"train-{number}.dead" for number in (1, 2))
        for folder in (abandoned, fresh):
            folder.mkdir()
        finish(one, "train-4")
        with one.scratch("train-4") as outlived:
            pass  # as a kill leaves it, just before its end
        with one.claim(["train-3"]) as claim, claim.scratch("train-3") as scratch, claim.workspace("train-3") as living:
            for folder in (abandoned, living, scratch, outlived):
                os.utime(folder, (0, 0))
            one.clean()
            assert [abandoned.exists(), outlived.exists()] == [False, False]
            assert [fresh.exists(), living.exists(), scratch.exists()] == [True, True, True]
            (living / "summary.json").write_text(summary_text("train-1"))
        assert one.done() == {"train-3", "train-4"}

    @pytest.mark.parametrize(
        ("marker", "message"),
        [
            ('{"version": 99, "id": "a"}', "is a store of version 99, this program writes version 1; choose "),
            ("{", "--store"),
        ],
    )
    def test_another_version_is_refused(self, place: Place, one: Store, marker: str, message: str) -> None:
        place.mark(marker)
        with pytest.raises(StoreError, match=message):
            place.node("one")


def finished_shard(store: Store, content: bytes = b"clicks") -> Path:
    """A shard that this node finished, of evaluate-1."""
    shards = Shards(store.shards("evaluate-1").scratch / "shards-0", 16, 2)
    with shards.writing(7) as folder:
        (folder / "paths.json").write_bytes(content)
    return shards.path(7)


def files(shard: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in shard.iterdir() if path.name != "shard.json"}


def test_a_shard_that_is_handed_over_comes_to_another_node_once_and_whole(one: Store, another: Store) -> None:
    came = another.shards("evaluate-1").scratch / "shards-0" / "7"
    for _ in range(2):  # as two do that both finished it
        shard = finished_shard(one)
        one.shards("evaluate-1").hand_over(shard)
        another.shards("evaluate-1").fetch()
        assert files(came) == {"paths.json": b"clicks"}
        assert shard.is_dir() == (one.shared is not None)


def test_of_two_processes_of_a_node_that_finished_a_shard_one_hands_it_over(one: Store) -> None:
    shard, place = finished_shard(one), one.shards("evaluate-1")
    assert place.hand_over(shard)
    assert place.hand_over(shard) == (one.shared is not None)  # elsewhere it is gone, and with whoever was first


def test_another_node_goes_on_from_the_shards_of_one_that_stopped(one: Store, another: Store, place: Place) -> None:
    def stop() -> None:
        with one.claim(["evaluate-1"]) as claim, claim.scratch("evaluate-1"):
            finished_shard(one)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    with (
        another.claim(["evaluate-1"]) as claim,
        claim.workspace("evaluate-1") as out,
        claim.scratch("evaluate-1") as scratch,
    ):
        linked(scratch / "shards-0" / "7" / "paths.json", out / "paths.7.json")
        (out / "summary.json").write_text(summary_text("evaluate-1"))
    assert (place.node("third").open("evaluate-1") / "paths.7.json").read_bytes() == b"clicks"
    one.clean()
    assert not scratch.exists()
    assert not any(one.shards("evaluate-1").scratch.iterdir())
    if isinstance(another, ObjectStore):
        assert another._bucket.list("shards/evaluate-1") == {}


def test_a_shard_whose_object_is_damaged_is_worked_again(
    bucket: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = OnObjectStorage(bucket, tmp_path).node
    one = node("one")
    one.shards("evaluate-1").hand_over(finished_shard(one))
    marker = "shards/evaluate-1/shards-0.7.json"
    upload = json.loads(one._bucket.read(marker))["upload"]
    one._bucket.write(f"{upload}/paths.json", b"Clicks")
    place = node("another").shards("evaluate-1")
    place.fetch()
    assert not (place.scratch / "shards-0" / "7").exists()
    assert "paths.json has other bytes than those that were written; the shard is worked again" in caplog.text
    assert not one._bucket.has(marker)
