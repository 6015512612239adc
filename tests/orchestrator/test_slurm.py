"""docs/slurm/sweep.sbatch under a real Slurm: two jobs on one node, an end before the time is up, and going on."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from slurm import slurm

SCRIPT = str(Path(__file__).parents[2] / "docs" / "slurm" / "sweep.sbatch")
LONG = """
trial:
  model: {backbone: tiny, checkpoint: none, refiner_width: 16, refiner_blocks: 1}
  train: {data: shapes, samples: 4, steps: 100000, warmup_steps: 1, batch_size: 2, max_clicks: 1}
  evaluate: {data: shapes, samples: 2, max_clicks: 2}
  profile: null
"""
SHORT = LONG.replace("steps: 100000", "steps: 2")


def wait_for(condition: Callable[[], object]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.2)
    raise TimeoutError


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.skipif(shutil.which("slurmctld") is None, reason="slurm-wlm is not installed")
def test_the_documented_job(tmp_path: Path, new_database: Callable[[Path], None]) -> None:
    for name, text in (("long", LONG), ("short", SHORT)):
        (tmp_path / f"{name}.yaml").write_text(text)
        new_database(tmp_path / f"runs-{name}" / "mlflow.db")
    with slurm(tmp_path) as cluster:
        long, short = (
            cluster.submit(f"{name}.log", SCRIPT, f"{name}.yaml", f"--store=runs-{name}") for name in ("long", "short")
        )
        wait_for(lambda: cluster.state(short) == "COMPLETED")
        assert "note: 1 of this machine's" in cluster.log("short.log")
        assert pq.read_table(tmp_path / "results/short/trials.parquet")["status"].to_pylist() == ["done"]

        wait_for(lambda: "/100000 " in cluster.log("long.log"))
        cluster.ask("scancel", "--batch", "--signal=TERM", long)  # what --signal=B:TERM@600 sends
        wait_for(lambda: cluster.state(long) == "FAILED")
        assert "ExitCode=130:0" in cluster.ask("scontrol", "show", "job", long)
        assert "stopped: the same command goes on from here" in cluster.log("long.log")
        assert pq.read_table(tmp_path / "results/long/trials.parquet")["status"].to_pylist() == ["not run"]

        again = cluster.submit("again.log", SCRIPT, "long.yaml", "--store=runs-long")
        wait_for(lambda: "/100000 " in cluster.log("again.log"))
        steps = [
            [
                int(line.split("/100000 ")[0].split()[-1])
                for line in cluster.log(name).splitlines()
                if "/100000 " in line
            ]
            for name in ("long.log", "again.log")
        ]
        assert steps[1][0] >= steps[0][-1]  # from the checkpoint

        # Slurm sends SIGTERM to every process, Ray's too, and after KillWait (by default 30 s) SIGKILL.
        cluster.ask("scancel", again)
        wait_for(lambda: cluster.state(again) == "CANCELLED" and not cluster.ask("squeue", "--noheader"))
        assert "tables: results/long" in cluster.log("again.log")
        (kept,) = (tmp_path / "runs-long" / "scratch").glob("train-*/step-*")
        assert int(kept.name.removeprefix("step-")) >= steps[1][-1]
