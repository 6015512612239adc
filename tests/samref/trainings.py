"""Trainings of the tests: what one wrote, what it does meanwhile, and one that is interrupted and goes on."""

import contextlib
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from samref.refiner import SamRef


def weights(folder):
    return load_file(folder / "weights.safetensors")


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def losses(folder):
    """The loss at each recorded step."""
    lines = (folder / "training.jsonl").read_text().splitlines()
    return [point["value"] for point in map(json.loads, lines) if point["metric"] == "loss"]


def metrics(folder):
    return json.loads((folder / "summary.json").read_text())["metrics"]


@contextlib.contextmanager
def watching(function):
    """Calls `function(clicks, interaction)` after each interaction of any SamRef, through torch's own global hook."""

    def hook(module, arguments, output):
        if isinstance(module, SamRef):
            function(arguments[1], output)

    handle = nn.modules.module.register_module_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


class InterruptedTrainingError(Exception):
    pass


def interrupt(runner, planned, root, *, at):
    """Run the training until it reports step `at`; its last checkpoint is of the step before."""

    def report(step, metrics):
        if step == at:
            raise InterruptedTrainingError

    always = type(runner)(runner.root, replace(runner.runtime, checkpoint_seconds=0))
    stage = planned.stage("train")
    with pytest.raises(InterruptedTrainingError):
        always.run_stages([stage], report, root=root)
    assert [path.name for path in (root / f"{stage.id}.scratch").iterdir()] == [f"step-{at - 1:09d}"]
    (root / stage.id).rmdir()  # nothing was written


def go_on(runner, planned, root):
    return runner.run_stages([planned.stage("train")], root=root)[0]
