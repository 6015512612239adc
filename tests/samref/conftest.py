"""One small trial, trained and evaluated once a session, for the tests that look at its outputs.

SAMREF_TEST_DEVICE=cuda runs them there. What holds on a CPU alone has the marker `cpu_only`, and what has nothing to
test there `gpu_only`, with its reason.
"""

import os
from pathlib import Path

import pytest

from samref import trial
from samref.config import Runtime, TrialConfig
from samref.precision import products
from samref.run_stage import run_job
from samref.stage import Job

DEVICE = os.environ.get("SAMREF_TEST_DEVICE", "cpu")

SETTINGS = {
    "model": {"backbone": "tiny", "checkpoint": "none", "refiner_width": 16, "refiner_blocks": 1, "patch_size_px": 64},
    "train": {
        "data": "shapes",
        "samples": 12,
        "modules": ["decoder", "refiner"],
        "steps": 6,
        "warmup_steps": 2,
        "batch_size": 3,
        "max_clicks": 4,
        "learning_rate": 3e-3,
    },
    "evaluate": {"data": "shapes", "samples": 5, "max_clicks": 6},
    "profile": {"repeats": 2, "prompts_per_side": 2},
}


def merge(base, changes):
    merged = dict(base)
    for key, value in changes.items():
        merged[key] = merge(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
    return merged


class Runner:
    """Runs trials into one folder; a stage that is there is not run again."""

    def __init__(self, root: Path, runtime: Runtime) -> None:
        self.root, self.runtime = root, runtime

    def build(self, **changes):
        return trial.build(TrialConfig.model_validate(merge(SETTINGS, changes)), trial.NamesAsFingerprints())

    def run_stages(self, stages, report=lambda step, metrics: None, root=None):
        root = root or self.root
        inputs = {role: self.root / needed for role, needed in stages[0].needs.items()}
        outs = tuple(root / stage.id for stage in stages)
        for out in outs:
            out.mkdir(parents=True)
        scratch = root / f"{stages[0].id}.scratch"
        run_job(Job(tuple(stages), inputs, outs, scratch, self.runtime), report)
        return outs

    def run(self, planned):
        for stage in planned.stages:
            if not (self.root / stage.id).exists():
                self.run_stages([stage])
        return {stage.kind: self.root / stage.id for stage in planned.stages}

    def train(self, planned=None, **changes):
        """Run a trial's training and what it needs, but nothing that follows it; its folder."""
        planned = planned or self.build(**changes)
        stages = {stage.id: stage for stage in planned.stages}

        def run_from(stage):
            for needed in stage.needs.values():
                run_from(stages[needed])
            if not (self.root / stage.id).exists():
                self.run_stages([stage])

        run_from(planned.stage("train"))
        return self.root / planned.stage("train").id


def pytest_collection_modifyitems(items):
    if DEVICE == "cpu":
        items[:] = [item for item in items if item.get_closest_marker("gpu_only") is None]
    for item in items:
        marker = item.get_closest_marker("cpu_only")
        if marker and DEVICE != "cpu":
            item.add_marker(pytest.mark.skip(reason=f"on a CPU alone: {marker.args[0]}"))


@pytest.fixture(scope="session")
def device():
    """What the tests' networks run on."""
    return DEVICE


@pytest.fixture(scope="session", autouse=True)
def exact_products():
    """On CUDA fp32 is fp32 also where a test calls a network itself, and no stage."""
    with products("fp32"):
        yield


@pytest.fixture(scope="session")
def runner(tmp_path_factory):
    # One thread, in this process and in those that tests start: how sums are rounded depends on the number.
    return Runner(tmp_path_factory.mktemp("stages"), Runtime(data_root=Path(), device=DEVICE, threads=1))
