"""The wheel holds all that the commands need: they work in an empty folder, from the wheel alone."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALL = (
    *("train.steps=2", "train.warmup_steps=1", "train.samples=4", "train.batch_size=2", "model.refiner_blocks=1"),
    *("evaluate.samples=2", "evaluate.max_clicks=3", "profile.repeats=1", "profile.prompts_per_side=1"),
)


def keep_what_numba_compiled(source: Path, copy: Path) -> None:
    """Lay machine code beside a copy of its module, which numba takes where size and time are the same."""
    (copy.parent / "__pycache__").mkdir(exist_ok=True)
    for made in (source.parent / "__pycache__").glob(f"{source.stem}.*.nb?"):
        shutil.copy(made, copy.parent / "__pycache__")
    os.utime(copy, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns))


@pytest.mark.slow
def test_the_wheel_alone_runs_a_trial_of_the_quick_start_and_draws_a_page(tmp_path):
    build = ["uv", "build", "--wheel", "--out-dir", str(tmp_path / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    keep_what_numba_compiled(ROOT / "samref" / "pixel_loops.py", tmp_path / "site" / "samref" / "pixel_loops.py")
    folder = tmp_path / "empty"
    folder.mkdir()
    shutil.copy(ROOT / "sweeps" / "quickstart.yaml", folder)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}

    def run(module: str, function: str, *arguments: str) -> str:
        code = f"import sys; from {module} import {function}; sys.exit({function}(sys.argv[1:]))"
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    small = [word for setting in SMALL for word in ("--set", setting)]
    plan = run("samref_sweep.cli", "main", "quickstart.yaml", "--plan", *small)
    trial = next(word for word in plan.split() if word.startswith("trial-"))
    assert "noc_at_90" in run("samref_sweep.cli", "trial_main", "quickstart.yaml", "--trial", trial, *small)
    assert "grabcut" in run("samref.data.command", "main")
    where = "import samref_dashboards, samref; print(samref_dashboards.__path__, samref.__file__)"
    said = subprocess.run([sys.executable, "-c", where], cwd=folder, env=environment, capture_output=True, text=True)
    assert said.stdout.count(str(tmp_path / "site")) == 2
    shipped = {path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*")}
    assert {"samref_dashboards/published.yaml", "samref_dashboards/page/page.html"} <= shipped
