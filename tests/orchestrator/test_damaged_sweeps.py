"""A thousand and more mutated sweep files, options and environments: each ends in a sweep, or in one line."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

from samref.errors import UserError
from samref_sweep.execution import allotment
from samref_sweep.spec.sweep import read

ROOT = Path(__file__).parents[2]
SWEEPS = [path.read_text() for path in sorted(ROOT.glob("sweeps/*.yaml"))]
SWEEPS += [json.dumps({"model": {"backbone": "tiny"}, "train": None, "evaluate": {"data": "shapes", "theta": 1.2}})]
SWEEPS += [
    "method: random\ntrials: 3\nseeds: [1, 2]\ntrial: {model: {backbone: tiny}, train: {data: shapes, steps: 9, "
    "warmup_steps: 1}, evaluate: {data: shapes}}\nparameters:\n  train.gamma: {min: 0.1, max: 0.9, log: true}\n"
    "  zip: [{evaluate.theta: 1, evaluate.seed: 1}, {evaluate.theta: 2, evaluate.seed: 2}]\n"
    "  evaluate.max_clicks: {values: [1, 2], when: {evaluate.theta: 1}}\n"
    "exclude: [{evaluate.theta: 2, train.seed: 1}]\nresources: {train: {gpu: 1, time_limit: 1h}}\n"
    "budget: {hours: 2}\nretry: {error: 1}\nscheduler: asha\n"
]
ODD = [
    "", "null", "~", "[]", "{}", "0", "-1", "010", "1e400", ".inf", "-.inf", ".nan", "1:30", "yes", "'", '"', "9" * 25,
    "1e-320", "é", "e\u0301", "\u200b", "\u202e", "🦓", "\x00", "\x1b[31m", "a" * 3000, "../..", "*", "&a", "<<: *a",
    "%", "!!python/object:os.system", "- -", "{a: b}", "[[1]]", "[1, 2]", "true", "0x10", "2026-01-02", "=", "?",
    "!!int x", "s3://u:p@h", "folder:../x?split=2", "\ud800",
]  # fmt: skip
"""What stands where something else should."""


def mutated(text: str, chance: random.Random) -> str:
    """A scalar replaced, a line lost, doubled or moved in or out, a piece cut, or a few characters changed."""
    for _ in range(chance.randint(1, 3)):
        lines = text.splitlines(keepends=True) or [""]
        number = chance.randrange(len(lines))
        words = list(re.finditer(r"[^\s{}\[\],:]+", text)) or [re.match("", text)]
        word, at = chance.choice(words), chance.randrange(len(text) + 1)
        match chance.randrange(7):
            case 0 | 1 if word:
                text = text[: word.start()] + chance.choice(ODD) + text[word.end() :]
            case 2:
                text = "".join(lines[:number] + lines[number + 1 :])
            case 3:
                text = "".join(lines[: number + 1] + lines[number:])
            case 4:
                text = "".join(
                    [*lines[:number], " " * chance.randrange(5) + lines[number].lstrip(" "), *lines[number + 1 :]]
                )
            case 5:
                text = text[:at]
            case _:
                text = text[:at] + chance.choice("{}[]:,#&*!|>'\"%@`-\t\n 0.e") + text[at + chance.randrange(3) :]
    return text


def outcome(path: Path, *overrides: str) -> str:
    """`a sweep`, or the line that it ended in."""
    try:
        sweep = read(path, overrides)
    except UserError as error:
        line = str(error)
        assert line.isprintable(), line
        return line
    assert sweep.search or len(sweep.configs) == len(sweep.points) > 0
    return "a sweep"


@pytest.mark.slow
def test_mutated_sweep_files(tmp_path: Path) -> None:
    chance, ends = random.Random(0), []
    for number in range(1000):
        path = tmp_path / f"s{number}.{'json' if number % 10 == 0 else 'yaml'}"
        path.write_bytes(mutated(chance.choice(SWEEPS), chance).encode("utf-8", "surrogatepass"))
        ends.append(outcome(path))
    assert 100 < ends.count("a sweep") < 900


@pytest.mark.slow
def test_mutated_options(tmp_path: Path) -> None:
    chance, ends = random.Random(0), []
    path = tmp_path / "s.yaml"
    path.write_text(SWEEPS[-1])
    texts = ["evaluate.theta=[1, 1.5]", "train={data: shapes, steps: 9, warmup_steps: 1}", "train.init.steps=5"]
    texts += ["seeds=3", "parameters.zip=[]", "resources.train.gpu=0", "budget.hours=1", "exclude=[{train.gamma: 0.5}]"]
    for _ in range(600):
        ends.append(outcome(path, *(mutated(chance.choice(texts), chance) for _ in range(chance.randint(1, 3)))))
    assert 0 < ends.count("a sweep") < 600


def test_mutated_environments(tmp_path: Path) -> None:
    chance = random.Random(0)
    for _ in range(300):
        odd = lambda: mutated(chance.choice(["4", "0,1", "GPU-ab", "-1", "MIG-1/2", "72(x2)"]), chance)  # noqa: E731
        environment = {name: odd() for name in (*allotment.SLURM, "CUDA_VISIBLE_DEVICES")}
        assert allotment.cpus(environment, tmp_path)[0] >= 1
        assert 0 <= allotment.gpus(environment, {0: "GPU-abc", 1: "GPU-def"})[0] <= 50
