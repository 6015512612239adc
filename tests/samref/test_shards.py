"""Stages in shards: equal to the last byte whoever works which, and nothing lost or done twice by who is killed."""

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
from embedded import embedded

from samref import embeddings, trajectories
from samref.clickloop import Trajectory
from samref.clicks import Click
from samref.embed import Embed
from samref.embeddings import EmbeddingError, Embeddings
from samref.evaluation import SECONDS, Evaluate
from samref.nodes import Record
from samref.run_lengths import RunLengths
from samref.run_stage import run_job, work_shards
from samref.shards import Shards
from samref.stage import Job

THETAS = (0.5, 1.0, 1.5)
OURS = ("summary.json", "manifest.json")


def silent(step, metrics):
    pass


def dealt(job, num_workers):
    """A `Lead` of so many processes that get the shards in turn, the last one first."""

    def lead(shards, work, report):
        for number in reversed(shards.missing()):
            if number % num_workers:
                work_shards(job, report, [number], lambda folder: None)
            else:
                work([number], report)

    return lead


def contents(folder):
    """File -> hash, and what was measured but for times."""
    hashes = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if p.name not in OURS}
    metrics = json.loads((folder / "summary.json").read_text())["metrics"]
    return hashes, {name: value for name, value in metrics.items() if name not in ("images_per_second", SECONDS)}


@pytest.fixture
def small_waves(monkeypatch):
    """Five samples make three shards."""
    monkeypatch.setattr(Embed, "wave", 2)
    monkeypatch.setattr(Evaluate, "wave", 2)


def jobs(runner, root):
    """An embed stage and an evaluation of three θ, without what they write."""
    planned = [runner.build(train=None, evaluate={"theta": theta}) for theta in THETAS]
    embed, evaluate = planned[0].stage("embed"), [trial.stage("evaluate") for trial in planned]
    embedding = runner.run(planned[0])["embed"]
    for stages, inputs in (((embed,), {}), (tuple(evaluate), {"embeddings": embedding})):
        outs = tuple(root / stage.id for stage in stages)
        for out in outs:
            out.mkdir(parents=True)
        yield Job(stages, inputs, outs, root / "scratch", runner.runtime)


@pytest.mark.slow
@pytest.mark.usefixtures("small_waves")
@pytest.mark.cpu_only("on CUDA sums are rounded otherwise in other waves")
def test_outputs_are_equal_to_the_last_byte_for_one_two_and_three_workers(runner, tmp_path):
    found = []
    for num_workers in (1, 2, 3):
        for job in jobs(runner, tmp_path / str(num_workers)):
            steps = []
            run_job(job, lambda step, metrics: steps.append((step, metrics["total"])), dealt(job, num_workers))  # noqa: B023
            found.append([contents(out) for out in job.outs])
            assert {total for _, total in steps} == {5 * (6 if len(job.outs) == 3 else 1)}
    assert found[0] == found[2] == found[4]
    assert found[1] == found[3] == found[5]


@pytest.mark.usefixtures("small_waves")
def test_who_is_killed_loses_the_shard_in_hand_alone_and_others_go_on_from_the_rest(runner, tmp_path):
    for job in jobs(runner, tmp_path):
        unit = 6 if len(job.outs) == 3 else 1
        worked = []

        def killed(shards, work, report, worked=worked):
            work([1], report)
            worked.append(shards.missing())
            aside = shards.folder / ".0.of-a-process-that-is-gone"
            aside.mkdir()
            (aside / "embedding.npy").write_bytes(b"half of it")
            raise KeyboardInterrupt

        def goes_on(shards, work, report, worked=worked, job=job):
            worked.append(sorted(path.name for path in shards.folder.iterdir()))
            dealt(job, 2)(shards, work, report)

        with pytest.raises(KeyboardInterrupt):
            run_job(job, silent, killed)
        steps = []
        (summary, *_) = run_job(job, lambda step, metrics: steps.append(step), goes_on)  # noqa: B023
        assert worked == [[0, 2], ["1"]]
        assert min(steps) > 2 * unit - 1
        assert summary.device_seconds > 0
        assert summary.hardware
        # Other code, or other stages of one go, begin anew.
        assert len(list(job.scratch.glob("shards-*"))) == (1 if len(job.outs) == 1 else 2)


def test_edges_follow_from_the_number_of_samples_alone(tmp_path):
    for total, wave in ((1, 8), (345, 32), (118_287, 8), (1_000_000, 8), (11_000_000, 32)):
        shards = Shards(tmp_path / str(total), total, wave)
        ends = [shards.rows(number).stop for number in range(shards.count)]
        assert [shards.rows(number).start for number in range(shards.count)] == [0, *ends[:-1]]
        assert ends[-1] == total
        assert not any(end % wave for end in ends[:-1])
        assert shards.size <= 512
        assert shards.count <= max(128, -(-total // 512))


def test_of_two_that_finish_one_shard_the_first_one_s_stays(tmp_path):
    told = []
    shards = Shards(tmp_path / "shards", 5, 2, finished=told.append)
    with shards.writing(1) as late:  # cut off, and given up
        (late / "x").write_text("late")
        with shards.writing(1) as first:
            (first / "x").write_text("first")
        assert shards.missing() == [0, 2]
    assert (shards.path(1) / "x").read_text() == "first"
    assert told == [shards.path(1)] * 2
    assert [path.name for path in shards.folder.iterdir()] == ["1"]
    with pytest.raises(FileNotFoundError), shards.writing(0):  # another one joined them all meanwhile
        shutil.rmtree(shards.folder)
    assert not shards.folder.exists()


def test_trajectories_are_kept_to_the_last_bit(tmp_path):
    record = Record(Click(3, 4, True), 1 / 3, float("nan"), 1, 2 / 3)
    mask = RunLengths(2, 3, np.array([1, 5], np.int32))
    two = [Trajectory((record,), mask, -1.0, 1.05), Trajectory((record, record._replace(iou=0.1)), mask, 1.05, 1.5)]
    for kept in ([[Trajectory((), None)], two, two[1:]], [[Trajectory((), None)]]):
        trajectories.save(tmp_path / "paths.npz", kept)
        assert repr(trajectories.load(tmp_path / "paths.npz")) == repr(kept)


@pytest.fixture
def many(tmp_path):
    """Twenty images in ten shards, of two features."""
    features = {"embedding": torch.randn(20, 4, 2, 2), "high": torch.randn(20, 1, 4, 4)}
    return features, embedded(tmp_path, [f"image {i}" for i in range(20)], features, "fp32", wave=2)


def test_few_shards_are_open_at_a_time(many, monkeypatch, tmp_path):
    features, _ = many
    monkeypatch.setattr(embeddings, "_OPEN", 3)
    read = Embeddings(tmp_path / "embedded")
    opened = lambda: sum(".npy" in line for line in open("/proc/self/maps"))  # noqa: E731, PTH123, SIM115
    before = opened()
    order = np.random.default_rng(0).permutation(20)
    found = read.read([f"image {i}" for i in order], "cpu")
    assert all(torch.equal(found[name], features[name][torch.from_numpy(order)]) for name in features)
    assert opened() - before <= 3
    with pytest.raises(KeyError):
        read.read(["image 20"], "cpu")


def test_a_row_with_other_bytes_is_told_when_it_is_first_read(many, tmp_path):
    file = tmp_path / "embedded" / "high.4.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    read = Embeddings(tmp_path / "embedded")
    read.read([f"image {i}" for i in (7, 8, 10)], "cpu")
    with pytest.raises(EmbeddingError, match=r"high\.4\.npy: row 1, of image 9, has other bytes than those that were"):
        read.read(["image 9"], "cpu")


def test_embeddings_of_before_are_read(many, tmp_path):
    features, _ = many
    folder = tmp_path / "before"
    folder.mkdir()
    index = {
        "images": [f"image {i}" for i in range(20)],
        "precision": "fp32",
        "features": {"embedding": 16, "high": 20},
    }
    (folder / "index.json").write_text(json.dumps(index))
    np.save(folder / "embedding.0.npy", features["embedding"][:16].numpy())
    np.save(folder / "embedding.1.npy", features["embedding"][16:].numpy())
    np.save(folder / "high.0.npy", features["high"].numpy())
    found = Embeddings(folder).read(["image 17", "image 3"], "cpu")
    assert all(torch.equal(found[name], features[name][[17, 3]]) for name in features)
