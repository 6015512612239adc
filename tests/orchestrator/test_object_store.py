"""A store on object storage, in a real S3 server on this machine; another cache folder is another node."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs
from s3 import CREDENTIALS, free_port
from stores import OnObjectStorage, finish, train
from toys import summary_text, toy_plan, write_toy_stage

from samref.stage import Job, Report
from samref_dashboards import report
from samref_sweep.cli.commands import main
from samref_sweep.errors import DamagedError
from samref_sweep.failures import Failure
from samref_sweep.store import checkpoints
from samref_sweep.store.bucket import Bucket
from samref_sweep.store.object_store import ObjectStore
from samref_sweep.store.opening import open_store

PROGRAM = Path(__file__).parent / "programs" / "use_store.py"
Node = Callable[[str], ObjectStore]
"""The store as the node of a name sees it."""


@pytest.fixture
def node(bucket: str, tmp_path: Path) -> Node:
    return OnObjectStorage(bucket, tmp_path).node


def objects_of(bucket: str) -> dict[str, fs.FileInfo]:
    """Name below the bucket → what S3 has."""
    files, root = Bucket(bucket)._files, bucket.removeprefix("s3://")
    found = files.get_file_info(fs.FileSelector(root, recursive=True))
    return {each.path.removeprefix(f"{root}/"): each for each in found if each.type == fs.FileType.File}


def test_a_checkpoint_that_is_replaced_while_it_is_fetched_is_fetched_again(bucket: str, tmp_path: Path) -> None:
    """By a worker that was cut off from its driver alone; one that is damaged for good is replaced by any newer one."""
    there = Bucket(bucket)

    def checkpoint(folder: Path, step: int) -> None:
        made = folder / f"step-{step:09d}"
        made.mkdir(parents=True)
        (made / "state").write_text(f"weights of {step}")

    @contextmanager
    def temporary(name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            yield Path(folder)

    old, new, third = ((tmp_path / name) for name in ("old", "new", "third"))
    for folder in (old, new, third):
        folder.mkdir()
    checkpoint(old, 1)
    cut_off = checkpoints._Mirror(old, there, "checkpoints/train-1", temporary)
    cut_off.send()

    class Meanwhile(Bucket):
        def get_folder(self, *arguments: Any) -> None:
            if not (old / "step-000000002").exists():
                checkpoint(old, 2)
                cut_off.send()
            super().get_folder(*arguments)

    checkpoints._Mirror(new, Meanwhile(bucket), "checkpoints/train-1", temporary).fetch()
    assert (new / "step-000000002" / "state").read_text() == "weights of 2"

    there.write(f"{cut_off._upload}/state", b"others")
    late = checkpoints._Mirror(third, there, "checkpoints/train-1", temporary)
    late.fetch()
    assert not list(third.iterdir())
    checkpoint(third, 1)
    late.send()
    assert json.loads(there.read("checkpoints/train-1.json"))["step"] == "step-000000001"


def test_a_store_of_version_1_is_read_as_it_was_written(node: Node, bucket: str) -> None:
    """By hand, as the first release laid it out: people's stores must stay good."""
    text = {"bytes": 5, "sha256": hashlib.sha256(b"hello").hexdigest()}
    manifest = {"version": 1, "commit": "abc", "files": {"deep/a.txt": text}}
    done = {
        "upload": "stages/train-1/0123456789ab",
        "manifest": manifest,
        "summary": json.loads(summary_text("train-1", loss=1)),
    }
    checkpoint = {**done, "upload": "checkpoints/train-2/0123456789ab", "step": "step-000000007"}
    written = {
        "samref-store.json": '{"version": 1, "id": "0123456789abcdef"}',
        "done/train-1.json": json.dumps(done),
        "stages/train-1/0123456789ab/deep/a.txt": "hello",
        "checkpoints/train-2.json": json.dumps(checkpoint),
        "checkpoints/train-2/0123456789ab/deep/a.txt": "hello",
        "failures/train-3.json": '{"reason": "boom", "log": null, "kind": "error"}',
        "searches/a.jsonl": '\n{"gamma": 0.5}\n',
    }
    for name, content in written.items():
        Bucket(f"{bucket}/sweeps").write(name, content.encode())
    store = node("any")
    assert store.node.root.name == "0123456789abcdef"
    assert store.done() == {"train-1"}
    assert (store.summary("train-1").metrics, store.summary("train-1").commit) == ({"loss": 1}, "abc")
    assert (store.open("train-1") / "deep" / "a.txt").read_text() == "hello"
    with store.scratch("train-2") as folder:
        assert (folder / "step-000000007" / "deep" / "a.txt").read_text() == "hello"
    assert store.failures.all() == {"train-3": Failure("boom")}
    assert store.journal("searches/a.jsonl").read() == [{"gamma": 0.5}]


def test_a_stage_is_seen_once_it_is_uploaded_and_fetched_once_by_each_node(node: Node, bucket: str) -> None:
    maker, other = node("maker"), node("other")
    with maker.workspace("train-1") as folder:  # and then the process was killed, or the server away
        (folder / "summary.json").write_text(summary_text("train-1", loss=1))
    assert not maker.has("train-1")
    assert other.done() == frozenset()
    with node("maker").claim(["train-1"]):
        assert other.has("train-1")
    assert other.summary("train-1").metrics == {"loss": 1}
    assert not other.cache.has("train-1")
    assert (other.open("train-1") / "summary.json").read_text() == summary_text("train-1", loss=1)
    Bucket(bucket).remove_below("sweeps/stages")
    assert other.open("train-1") == other.cache.folder("train-1")
    assert node("a third").node.root.name == other.node.root.name, "the cache is named by the store"


def test_a_stage_that_is_made_anew_is_served_from_no_older_copy(node: Node, bucket: str) -> None:
    maker, other, third = (node(name) for name in ("maker", "other", "third"))
    finish(maker, "train-1", "old")
    for store in (other, third):
        assert (store.open("train-1") / "deep" / "a.txt").read_text() == "old"
    maker.codes.note("train-1", {"a.py": "1"})
    third.supersede(["train-1"])
    assert not any(store.has("train-1") for store in (maker, other, third))
    assert "sweeps/replaced/train-1.json" in objects_of(bucket)
    with other.claim(["train-1"]):  # which would upload what was finished here and is not known to be
        assert not other.has("train-1")
    maker.codes.note("train-1", {"a.py": "2"})
    finish(maker, "train-1", "newer")
    for store in (maker, other, third):
        assert store.done() == {"train-1"}
        assert store.file("train-1", "deep/a.txt").read_text() == "newer"
        assert (store.open("train-1") / "deep" / "a.txt").read_text() == "newer"
    assert third.codes.all() == {"train-1": {"a.py": "2"}}
    left = [name for name in objects_of(bucket) if name.startswith(("sweeps/replaced", "sweeps/stages"))]
    assert len(left) == 2, "the new stage's files alone"


def test_a_table_fetches_the_file_that_it_needs_and_no_other(node: Node) -> None:
    finish(node("maker"), "train-1")
    other = node("other")
    assert other.file("train-1", "deep/a.txt").read_text() == "hello"
    assert not other.cache.has("train-1")


def test_a_nodes_damaged_copy_is_fetched_again(node: Node) -> None:
    finish(node("maker"), "train-1")
    other = node("other")
    for damage in (lambda file: file.write_text("hellO"), lambda file: file.unlink()):
        damage(other.open("train-1") / "deep" / "a.txt")
        assert other.file("train-1", "deep/a.txt").read_text() == "hello"
        assert (other.open("train-1") / "deep" / "a.txt").read_text() == "hello"


@pytest.mark.parametrize("damage", [b"hellO", None], ids=["flipped", "gone"])
def test_a_file_whose_object_is_damaged_is_refused_alone_too(node: Node, bucket: str, damage: bytes | None) -> None:
    finish(node("maker"), "train-1")
    (name,) = (name for name in objects_of(bucket) if name.endswith("a.txt"))
    Bucket(bucket).write(name, damage) if damage else Bucket(bucket).remove(name)
    with pytest.raises(DamagedError, match=r"a\.txt .*; done/train-1\.json was removed; run again to make it anew"):
        node("other").file("train-1", "deep/a.txt")
    assert not node("other").has("train-1")


def test_of_a_stage_that_two_nodes_finish_nothing_is_uploaded_twice(node: Node, bucket: str) -> None:
    first, second = node("first"), node("second")
    with first.workspace("train-1") as mine:
        finish(second, "train-1")
        (mine / "summary.json").write_text(summary_text("first"))
    with first.claim(["train-1"]):
        pass
    assert len({name.split("/")[3] for name in objects_of(bucket) if "/stages/" in name}) == 1


def test_an_upload_that_may_still_go_on_is_left_alone_for_a_day(node: Node, bucket: str) -> None:
    Bucket(f"{bucket}/sweeps").write("uploads/train-1.0123456789ab", b"")
    Bucket(f"{bucket}/sweeps").write("stages/train-1/0123456789ab/part", b"x")
    node("other").clean()
    assert len([name for name in objects_of(bucket) if "train-1" in name]) == 2
    node("other").clean(seconds=-60)
    assert not [name for name in objects_of(bucket) if "train-1" in name]


def test_a_worker_removes_what_killed_processes_left_in_its_node_s_cache(node: Node) -> None:
    store = node("one")
    left, fresh = (store.node.partial / f"embed-1.{name}" for name in ("dead", "fresh"))
    for folder in (left, fresh):
        folder.mkdir()
    os.utime(left, (0, 0))
    open_store(store.where, patient=True)
    assert [left.exists(), fresh.exists()] == [False, True]


def test_a_training_whose_machine_is_gone_goes_on_elsewhere_from_its_checkpoint(node: Node, bucket: str) -> None:
    store = node("lost")
    process = subprocess.Popen([sys.executable, str(PROGRAM), "train", store.where])
    while not [name for name in objects_of(bucket) if "/checkpoints/" in name and name.endswith(".json")]:
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.wait()

    found: list[tuple[str, str]] = []

    def resume(job: Job, report: Report) -> None:
        found.extend((path.name, (path / "weights").read_text()) for path in job.scratch.glob("step-*"))
        write_toy_stage(job, report)

    store = node("another")
    stage_id = train(store, resume)
    ((step, weights),) = found
    assert int(step.removeprefix("step-")) > 1
    assert weights == str(int(step.removeprefix("step-"))) * 1000
    assert store.has(stage_id)
    assert not [name for name in objects_of(bucket) if "/checkpoints/" in name]


def test_a_checkpoint_at_the_end_of_an_attempt_is_uploaded(node: Node) -> None:
    def stop(folder: Path) -> None:
        (folder / "step-7").mkdir()
        (folder / "step-7" / "weights").write_text("seven")
        raise RuntimeError

    with pytest.raises(RuntimeError), node("first").scratch("train-1") as folder:
        stop(folder)
    with node("second").scratch("train-1") as folder:
        assert (folder / "step-7" / "weights").read_text() == "seven"


def test_the_log_of_what_failed_is_uploaded(node: Node, tmp_path: Path) -> None:
    (tmp_path / "train-1.log").write_text("Traceback")
    place = node("first").failures.keep_log(tmp_path / "train-1.log")
    assert Bucket(place.rpartition("/")[0]).read("train-1.log") == b"Traceback"


SMALL = """
trial:
  model: {backbone: tiny, checkpoint: none}
  train: {data: shapes, samples: 4}
  evaluate: {data: shapes, samples: 2}
"""


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("s3://missing/x", "there is no such bucket ("),
        (
            "BUCKET?endpoint_override=127.0.0.1:FREE&scheme=http",
            "no answer; is its endpoint right (",
        ),
        ("s3://key:secret@missing", "credentials stand in the environment or a profile, not in the URI"),
        ("BUCKET?secret_key=x", "secret_key is no option; there are endpoint_override, region, scheme"),
        ("nowhere://x", "nowhere://x: is no place for objects: "),
    ],
)
def test_a_place_that_cannot_be_used_is_refused_in_one_line(
    bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], where: str, said: str
) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    where = where.replace("BUCKET", bucket).replace("FREE", str(free_port()))
    for option in ("--store", "--results"):
        given = ["--store", str(tmp_path / "runs"), option, where]
        assert main([str(tmp_path / "small.yaml"), *given]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert said in line


def test_without_credentials_one_line_says_so(
    bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in CREDENTIALS:
        if "KEY" in name:
            monkeypatch.delenv(name)
    (tmp_path / "small.yaml").write_text(SMALL)
    assert main([str(tmp_path / "small.yaml"), "--store", bucket]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "AWS_ACCESS_KEY_ID" in line


@pytest.mark.slow
def test_a_sweep_whose_driver_is_killed_in_an_upload_goes_on_and_repeats_nothing(
    node: Node, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, attempts = node("machine"), tmp_path / "attempts"
    attempts.mkdir()
    command = [sys.executable, str(PROGRAM), "sweep", store.where, str(attempts)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while not [name for name in objects_of(bucket) if "/uploads/train-" in name]:
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    made = {path.name for path in store.cache.stages.iterdir()}
    assert toy_plan(store).works

    said = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert said.stdout.endswith("complete {}\n"), said.stderr
    assert made
    assert {name: (attempts / name).stat().st_size for name in made} == dict.fromkeys(made, 1)

    other = node("another machine")
    planned = toy_plan(other)
    assert planned.works == ()
    assert all((other.open(stage_id) / "summary.json").exists() for stage_id in planned.stages)
    tables = f"{store.where}/results"
    assert report.main([tables, "--tables", str(tmp_path / "tables")]) == 0
    assert (tmp_path / "tables").is_dir()
    assert report.main([tables, "--no-open", "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert tables in page
    assert tempfile.gettempdir() not in page
    assert report.main([tables]) == report.main([f"{tables}-of-none", "--out", "x.html"]) == 2
    refused = capsys.readouterr().err.splitlines()
    assert refused == [
        f"samref-dashboard: {tables}: say where the page goes with --out FILE",
        f"samref-dashboard: {tables}-of-none: no trials.parquet there; name a place that samref-sweep --results wrote",
    ]
