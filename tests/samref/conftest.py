"""One small trial, trained and evaluated once a session, for the tests that look at its outputs."""

import os
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported: its kernels, in numpy

from samref import trial
from samref.config import Runtime, TrialConfig
from samref.run_stage import run
from samref.stage import Job

SETTINGS = {
    "model": {"backbone": "tiny", "checkpoint": "none", "refiner_width": 16, "refiner_blocks": 2, "patch_size_px": 64},
    "train": {
        "data": "shapes",
        "samples": 12,
        "modules": ["decoder", "refiner"],
        "steps": 6,
        "warmup_steps": 2,
        "batch_size": 3,
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
        run(Job(tuple(stages), inputs, outs, scratch, self.runtime), report)
        return outs

    def run(self, planned):
        for stage in planned.stages:
            if not (self.root / stage.id).exists():
                self.run_stages([stage])
        return {stage.kind: self.root / stage.id for stage in planned.stages}


@pytest.fixture(scope="session")
def runner(tmp_path_factory):
    # One thread, in this process and in those that tests start: how sums are rounded depends on the number.
    return Runner(tmp_path_factory.mktemp("stages"), Runtime(data_root=Path(), device="cpu", threads=1))
