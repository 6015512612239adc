"""A store on object storage, in a real S3 server on this machine; another cache folder is another node."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs
from s3 import CREDENTIALS, free_port, make_bucket, s3_server
from toys import toy_plan, write_toy_stage

from samref.config import Runtime
from samref.stage import Job, Report
from samref_dashboards import report
from samref_sweep.cli.commands import main
from samref_sweep.errors import DamagedError
from samref_sweep.execution.unit import perform
from samref_sweep.store.bucket import Objects
from samref_sweep.store.folder import Store
from samref_sweep.store.object_store import ObjectStore
from samref_sweep.store.opening import open_store

Node = Callable[[str], ObjectStore]
"""The store as the node of a name sees it."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture
def bucket(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of a new bucket; what the environment says of S3 is this server."""
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://{server}"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SAMREF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))  # no profile of whoever runs the tests
    return make_bucket(server, tmp_path.name.replace("_", "-").strip("-").lower()[-60:])


@pytest.fixture
def node(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    def at(name: str) -> ObjectStore:
        monkeypatch.setenv("SAMREF_CACHE", str(tmp_path / name))
        store = open_store(f"{bucket}/sweeps")
        assert isinstance(store, ObjectStore)
        return store

    return at


def finish(store: Store, stage_id: str, text: str = "hello") -> None:
    with store.claim([stage_id]):
        with store.workspace(stage_id) as folder:
            (folder / "deep").mkdir()
            (folder / "deep" / "a.txt").write_text(text)
            (folder / "summary.json").write_text(json.dumps({"id": stage_id}))
        store.publish([stage_id])


def objects_of(bucket: str) -> dict[str, fs.FileInfo]:
    """Name below the bucket → what S3 has."""
    files, root = Objects(bucket)._files, bucket.removeprefix("s3://")
    found = files.get_file_info(fs.FileSelector(root, recursive=True))
    return {each.path.removeprefix(f"{root}/"): each for each in found if each.type == fs.FileType.File}


def test_a_stage_is_seen_by_all_nodes_and_fetched_once_by_each(node: Node, bucket: str) -> None:
    maker, other = node("maker"), node("other")
    with maker.workspace("train-1") as folder:
        (folder / "summary.json").write_text('{"loss": 1}')
    assert not other.has("train-1")
    assert other.done() == frozenset()
    maker.publish(["train-1"])
    assert other.has("train-1")
    assert other.done() == {"train-1"}
    assert other.summary("train-1") == {"loss": 1, "commit": maker.summary("train-1")["commit"]}
    assert not other.folder("train-1").exists()
    assert (other.open("train-1") / "summary.json").read_text() == '{"loss": 1}'
    Objects(bucket).remove_below("sweeps/stages")
    assert other.open("train-1") == other.folder("train-1")
    assert node("a third").root.name == other.root.name, "the cache is named by the store"


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
    assert not other.folder("train-1").exists()
    with pytest.raises(FileNotFoundError):
        other.file("train-1", "system.jsonl")


def test_a_nodes_damaged_copy_is_fetched_again(node: Node) -> None:
    finish(node("maker"), "train-1")
    other = node("other")
    for damage in (lambda file: file.write_text("hellO"), lambda file: file.unlink()):
        damage(other.open("train-1") / "deep" / "a.txt")
        assert other.file("train-1", "deep/a.txt").read_text() == "hello"
        assert (other.open("train-1") / "deep" / "a.txt").read_text() == "hello"


@pytest.mark.parametrize("damage", ["flipped", "gone"])
@pytest.mark.parametrize("read", [ObjectStore.open, lambda store, stage_id: store.file(stage_id, "deep/a.txt")])
def test_a_stage_whose_objects_are_damaged_is_not_done_any_more(
    node: Node, bucket: str, damage: str, read: Callable[[Store, str], Path]
) -> None:
    finish(node("maker"), "train-1")
    other, third = node("other"), node("third")
    third.summary("train-1")
    (name,) = (name for name in objects_of(bucket) if name.endswith("a.txt"))
    Objects(bucket).write(name, b"hellO") if damage == "flipped" else Objects(bucket).remove(name)
    with pytest.raises(DamagedError, match=r"a\.txt .*; done/train-1\.json was removed; run again to make it anew"):
        read(other, "train-1")
    assert not third.has("train-1")
    finish(other, "train-1", "made anew")
    # What it knows of the stage is older.
    assert third.file("train-1", "deep/a.txt").read_text() == "made anew"
    assert (third.open("train-1") / "deep" / "a.txt").read_text() == "made anew"


def test_of_a_stage_that_two_nodes_finish_one_result_stays(node: Node, bucket: str) -> None:
    first, second = node("first"), node("second")
    with first.workspace("train-1") as mine, second.workspace("train-1") as theirs:
        (mine / "summary.json").write_text('{"who": "first"}')
        (theirs / "summary.json").write_text('{"who": "second"}')
    second.publish(["train-1"])
    first.publish(["train-1"])
    assert node("third").summary("train-1")["who"] == "second"
    assert len([name for name in objects_of(bucket) if "/stages/" in name]) == 1


def test_what_could_not_be_uploaded_is_uploaded_by_the_next_attempt(node: Node) -> None:
    store = node("maker")
    with store.workspace("train-1") as folder:  # and then the process was killed
        (folder / "summary.json").write_text("{}")
    assert not store.has("train-1")
    with node("maker").claim(["train-1"]):
        assert node("other").has("train-1")


WRITER = """
import sys
from samref_sweep.store.opening import open_store
store = open_store(sys.argv[1])
number = int(sys.argv[2])
while True:
    with store.workspace(f"train-{number}") as folder:
        for part in range(5):
            (folder / f"{part}.bin").write_bytes(bytes([part]) * 200_000)
        (folder / "summary.json").write_text("{}")
    print(number, flush=True)
    store.publish([f"train-{number}"])
    number += 1
"""


def test_a_kill_in_an_upload_leaves_no_stage_that_looks_finished(node: Node, bucket: str) -> None:
    cut = set()
    for attempt in range(4):
        node("writer")
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, f"{bucket}/sweeps", str(100 * attempt)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.02 * (attempt + 1))
        process.kill()
        process.wait()
        cut |= {name for name in objects_of(bucket) if "/uploads/" in name}
    assert cut, "no kill was in an upload"
    store = node("other")
    for stage_id in store.done():
        assert len(list(store.open(stage_id).glob("*.bin"))) == 5
    store.clean()
    assert cut <= objects_of(bucket).keys(), "an upload may still go on"
    store.clean(seconds=-60)
    left = objects_of(bucket)
    assert not [name for name in left if "/uploads/" in name]
    assert {name.split("/")[2] for name in left if "/stages/" in name} == store.done()


def train(store: Store, runner: Any) -> str:
    planned = toy_plan(store)
    for work in planned.works:
        if work.kind in ("embed", "train"):
            perform(work, store, runtime=Runtime(), report=lambda step, metrics: None, runner=runner)
        if work.kind == "train":
            return work.stages[0].id
    raise AssertionError


TRAINER = """
import sys, time
from pathlib import Path
from test_object_store import train
from toys import write_toy_stage
from samref_sweep.store.opening import open_store

def slow(stages, inputs, outs, *, scratch, **rest):
    if stages[0].kind == "train":
        for step in range(1, 1000):
            aside, final = scratch / "writing", scratch / f"step-{step:09d}"
            aside.mkdir()
            (aside / "weights").write_text(str(step) * 1000)
            aside.rename(final)
            for other in scratch.glob("step-*"):
                if other != final:
                    (other / "weights").unlink()
                    other.rmdir()
            time.sleep(0.05)
    write_toy_stage(stages, inputs, outs, scratch=scratch, **rest)

train(open_store(sys.argv[1]), slow)
"""


def test_a_training_whose_machine_is_gone_goes_on_elsewhere_from_its_checkpoint(node: Node, bucket: str) -> None:
    store = node("lost")
    process = subprocess.Popen([sys.executable, "-c", TRAINER, f"{bucket}/sweeps"])
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


def test_failures_journals_and_logs_are_seen_by_all_nodes(node: Node, tmp_path: Path) -> None:
    first, second = node("first"), node("second")
    for stage_id in ("train-1", "train-2"):
        first.remember_failure(stage_id, {"reason": "boom"})
    finish(first, "train-1")
    assert second.failures() == {"train-2": {"reason": "boom"}}
    second.forget_failures(["train-2", "train-9"])
    assert first.failures() == {}

    first.journal("searches/a.jsonl").append({"gamma": 0.5})
    second.journal("searches/a.jsonl").append({"gamma": 0.6})
    assert first.journal("searches/a.jsonl").read() == [{"gamma": 0.5}, {"gamma": 0.6}]
    assert first.journal("searches/b.jsonl").read() == []

    (tmp_path / "train-1.log").write_text("Traceback")
    place = first.keep_log(tmp_path / "train-1.log")
    assert Objects(place.rpartition("/")[0]).read("train-1.log") == b"Traceback"


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


DRIVER = """
import os, sys
from pathlib import Path
import toys
from samref_sweep.record import tables as results
from samref_sweep.store.opening import open_store
from samref_sweep.store.bucket import uploaded

attempts = Path(sys.argv[2])

def counted(stages, inputs, outs, **rest):
    toys.write_toy_stage(stages, inputs, outs, **rest)
    for stage, out in zip(stages, outs):
        if stage.kind == "train":
            (out / "weights").write_bytes(os.urandom(30_000_000))
        with open(attempts / stage.id, "a") as file:
            file.write("x")

store = open_store(sys.argv[1])
planned = toys.toy_plan(store)
result, events = toys.run_toys(planned, store, counted)
with uploaded(sys.argv[1] + "/results") as folder:
    results.write(planned, store, result.failures, folder, "")
print("complete", result.failures, flush=True)
"""


@pytest.mark.slow
def test_a_sweep_whose_driver_is_killed_in_an_upload_goes_on_and_repeats_nothing(
    node: Node, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, attempts = node("machine"), tmp_path / "attempts"
    attempts.mkdir()
    command = [sys.executable, "-c", DRIVER, store.where, str(attempts)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while not [name for name in objects_of(bucket) if "/uploads/train-" in name]:
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    made = {path.name for path in store.stages.iterdir()}
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
