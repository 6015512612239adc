"""One training in two real processes (gloo on 127.0.0.1) against the same in one."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from samref.parallel import Group, group

PROGRAM = Path(__file__).with_name("programs") / "one_of_two.py"
SETTINGS = {"batch_size": 4, "gamma": 0.9, "ema": 0.9, "gradient_clip": 1.0}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def losses(folder):
    lines = (folder / "training.jsonl").read_text().splitlines()
    return [point["value"] for point in map(json.loads, lines) if point["metric"] == "loss"]


@pytest.fixture(scope="module")
def one_process(runner):
    """The same training in one process, with accumulation 2."""
    return runner.train(train={**SETTINGS, "accumulation": 2})


@pytest.fixture(scope="module")
def two_processes(runner, tmp_path_factory):
    """What each rank says of each job, and the jobs' folders."""
    root = tmp_path_factory.mktemp("parallel")
    planned = runner.build(train=SETTINGS)
    runner.train()  # the embeddings
    resumed = begin(runner, planned, root / "resumed")
    jobs = [
        job(runner, planned, root / "plain"),
        job(runner, planned, root / "resumed", scratch=resumed),
        job(runner, planned, root / "full", full=True),
        job(runner, runner.build(train={**SETTINGS, "batch_size": 3}), root / "odd"),
    ]
    argument = json.dumps([jobs, [free_port(), free_port()], str(root / "results")])
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, PROGRAM, argument], env={**environment, "RANK": str(rank)})
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=200) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    results = [json.loads((root / f"results.{rank}").read_text()) for rank in range(2)]
    names = ("plain", "resumed", "full", "odd")
    return {name: (root / name / "out", *ranks) for name, *ranks in zip(names, *results, strict=True)}


def job(runner, planned, folder, *, scratch=None, full=False):
    stage = planned.stage("train")
    inputs = {role: str(runner.root / needed) for role, needed in stage.needs.items()}
    scratch = str(scratch or folder / "scratch")
    return {"stage": stage.to_json(), "inputs": inputs, "out": str(folder / "out"), "scratch": scratch, "full": full}


def begin(runner, planned, root):
    """A training in one process that ends after three steps; its scratch folder."""

    def report(step, metrics):
        if step == 4:
            raise KeyboardInterrupt

    always = type(runner)(runner.root, replace(runner.runtime, checkpoint_seconds=0))
    stage = planned.stage("train")
    with pytest.raises(KeyboardInterrupt):
        always.run_stages([stage], report, root=root)
    return root / f"{stage.id}.scratch"


@pytest.mark.slow
@pytest.mark.cpu_only("its processes are a CPU's, by gloo")
def test_two_processes_are_accumulation_two(one_process, two_processes):
    out, first, second = two_processes["plain"]
    assert losses(out) == pytest.approx(losses(one_process), rel=1e-4)
    assert first["metrics"]["loss"] == second["metrics"]["loss"]
    ours, theirs = (load_file(folder / "weights.safetensors") for folder in (out, one_process))
    assert ours.keys() == theirs.keys()
    # Adam makes a whole step (learning rate 3e-3) of a gradient that is rounding noise: single weights may differ.
    differences = torch.cat([(ours[name] - theirs[name]).abs().flatten() for name in ours])
    assert differences.mean() < 1e-5, differences.max()


@pytest.mark.slow
@pytest.mark.cpu_only("its processes are a CPU's, by gloo")
def test_rank_0_alone_writes_and_reports(two_processes):
    _, first, second = two_processes["plain"]
    assert first["reported"] == [1, 2, 3, 4, 5, 6]
    assert first["written"] == ["summary.json", "training.jsonl", "weights.safetensors"]
    assert second["reported"] == second["written"] == []


@pytest.mark.slow
@pytest.mark.cpu_only("its processes are a CPU's, by gloo")
def test_both_go_on_from_a_checkpoint(one_process, two_processes):
    out, first, _ = two_processes["resumed"]
    assert first["reported"] == [4, 5, 6]
    assert losses(out) == pytest.approx(losses(one_process), rel=1e-4)


@pytest.mark.slow
@pytest.mark.cpu_only("its processes are a CPU's, by gloo")
def test_memory_that_runs_out_on_one_makes_all_parts_smaller(one_process, two_processes):
    out, first, second = two_processes["full"]
    assert first["metrics"]["accumulation"] == second["metrics"]["accumulation"] == 2
    assert losses(out) == pytest.approx(losses(one_process), rel=1e-4)


@pytest.mark.slow
@pytest.mark.cpu_only("its processes are a CPU's, by gloo")
def test_a_batch_that_cannot_be_divided_is_refused(two_processes):
    _, *ranks = two_processes["odd"]
    expected = "ValueError: train.batch_size is 3, which 2 processes with train.accumulation 1 cannot divide; "
    assert [each["error"] for each in ranks] == [expected + "make it a multiple of 2"] * 2


def test_a_process_on_its_own_is_a_group_of_one():
    alone = group("cpu")
    assert alone == Group(0, 1, "cpu")
    assert alone.share(5) == range(5)
    assert alone.any(True)
    assert not alone.any(False)
    assert alone.same(7)
    tensor = torch.ones(2)
    alone.sum_([tensor])
    assert tensor.tolist() == [1, 1]


def test_shares_are_the_batch():
    for size in (1, 2, 3, 4):
        shares = [list(Group(rank, size, "cpu").share(7)) for rank in range(size)]
        assert [position for share in shares for position in share] == list(range(7))
