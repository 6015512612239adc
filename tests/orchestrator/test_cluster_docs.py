"""docs/cluster.md: what it shows can be read by what it is for, and what it names exists."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from samref_sweep.cli.options import sweep_parser
from samref_sweep.spec.policy import Resources, Retry
from samref_sweep.spec.sweep import read

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cluster.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)


SCRIPTS = [*(text for kind, text in BLOCKS if kind == "bash"), (ROOT / "docs" / "slurm" / "sweep.sbatch").read_text()]


@pytest.mark.parametrize("script", SCRIPTS, ids=["start.sh", "job", "sweep.sbatch"])
def test_scripts_are_bash(script: str, tmp_path: Path) -> None:
    (tmp_path / "script").write_text(script)
    subprocess.run(["bash", "-n", tmp_path / "script"], check=True)


def test_the_rayjob_is_yaml_with_the_tested_version() -> None:
    job = yaml.safe_load(next(text for kind, text in BLOCKS if "RayJob" in text))
    version = job["spec"]["rayClusterSpec"]["rayVersion"]
    assert f'"ray=={version}"' in (ROOT / "pyproject.toml").read_text()


def test_the_sweep_file_is_valid(tmp_path: Path) -> None:
    shutil.copy(ROOT / "sweeps" / "theta.yaml", tmp_path)
    (tmp_path / "spot.yaml").write_text(next(text for kind, text in BLOCKS if "extends" in text))
    sweep = read(tmp_path / "spot.yaml", ["train.data=shapes"])
    assert sweep.retry.node_lost == 10
    assert sweep.resources["train"].time_limit == 12 * 3600


def test_defaults_options_and_keys_are_the_codes() -> None:
    for kind, bound in re.findall(r"`retry\.(\w+)` times \((\d+)\)", PAGE):
        assert Retry.model_fields[kind].default == int(bound), kind
    options = {option for action in sweep_parser()._actions for option in action.option_strings}
    used = re.findall(r"(--[a-z-]+)", " ".join(re.findall(r"samref-sweep [^`\n]*", PAGE)))
    assert used
    assert {*used, "--retry-failed", "--sync"} <= options
    assert set(re.findall(r"`resources\.KIND\.(\w+)`", PAGE)) <= set(Resources.model_fields)
