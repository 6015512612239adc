"""Which modules make a stage, and what of them counts."""

import ast
import os
import shutil
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest

import samref
from samref import modules
from samref.config import ModelConfig, TrainConfig, TrialConfig
from samref.source import code_of
from samref.trial import NamesAsFingerprints, build


def stages(backbone="sam_vit_b"):
    config = TrialConfig(model=ModelConfig(backbone=backbone), train=TrainConfig())
    return {stage.kind: stage for stage in build(config, NamesAsFingerprints()).stages}


def test_a_stage_is_made_by_what_its_kind_and_its_backbone_import():
    evaluate, profile = (code_of(stages()[kind]) for kind in ("evaluate", "profile"))
    assert {
        "evaluation.py",
        "clickloop.py",
        "refiner/gfr.py",
        "backbones/sam.py",
        "data/__init__.py",
    } <= evaluate.keys()
    assert not {"train.py", "backbones/sam2.py", "config.py", "stage.py", "trial.py"} & evaluate.keys()
    assert "train.py" in code_of(stages()["train"])
    assert "evaluation.py" not in profile
    assert "backbones/sam2.py" in code_of(stages("sam2_hiera_t")["embed"])
    # Who works on the refiner keeps the embeddings.
    embed = code_of(stages()["embed"])
    assert not [name for name in embed if name.startswith("refiner/")]
    assert not {"pixel_loops.py", "click_disks.py"} & embed.keys()  # which the refiner alone imports


@pytest.fixture
def copy(tmp_path):
    """A copy of the package, and what its own code says of an evaluation's."""
    root = tmp_path / "samref"
    shutil.copytree(Path(samref.__file__).parent, root, ignore=shutil.ignore_patterns("__pycache__"))
    script = (
        "import json; from samref.source import code_of; from samref.trial import *; from samref.config import *; "
        "stages = build(TrialConfig(model=ModelConfig(backbone='tiny')), NamesAsFingerprints()).stages; "
        "print(json.dumps(code_of(stages[1])))"
    )

    def code():
        command = [sys.executable, "-c", script]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    return root, code


def test_comments_and_docstrings_change_nothing_and_code_does(copy):
    root, code = copy
    before, file = code(), root / "refiner" / "selector.py"
    text = file.read_text()
    file.write_text(f'"""Another docstring."""\n# a comment\n{text[text.index("from __future__") :]}')
    assert code() == before
    file.write_text(f"{text}\n\nNEW = 1\n")
    assert code() != before


class Garbage:
    """What only the garbage collector finds, and what then calls Python code."""

    def __init__(self):
        self.itself = self
        weakref.finalize(self, sum, map(abs, range(50)))


def test_another_thread_may_read_python_at_the_same_time():
    """MLflow's does: `SystemError: AST constructor recursion depth mismatch` ended a sweep before its tables.

    Without the remedy about every tenth of these reads fails.
    """
    over = threading.Event()

    def parse():
        while not over.is_set():
            ast.parse("a == 'b'")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    other = threading.Thread(target=parse)
    other.start()
    try:
        for _ in range(40):
            garbage = [Garbage() for _ in range(1000)]
            del garbage
            modules.read(Path(modules.__file__), "samref")
    finally:
        over.set()
        other.join()
        sys.setswitchinterval(interval)
