"""How long a plan of ten thousand trials takes: the whole command, and its parts in one process.

    uv run python benchmarks/plan.py [--trials 10000]

The claim: ten thousand trials plan in under two seconds. A grid of γ × θ on the tiny backbone with nothing done yet, so
that every stage is planned; the command's time includes starting Python and importing.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import samref_sweep
from samref_sweep.screen.display import plan_text

SWEEP = """
trial:
  model: {{backbone: tiny}}
  train: {{data: shapes, steps: 100, warmup_steps: 10}}
  evaluate: {{data: shapes, samples: 60}}
parameters:
  train.gamma: {gammas}
  evaluate.theta: {thetas}
"""


def main() -> None:
    """Measure, and print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000, help="a square number")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    side = round(options.trials**0.5)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "grid.yaml"
        values = [number / side for number in range(side)]
        path.write_text(SWEEP.format(gammas=values, thetas=[1 + value for value in values]))
        parts: list[list[float]] = []
        for _ in range(options.repeats):
            clock = [time.perf_counter()]
            sweep = samref_sweep.read(path)
            clock.append(time.perf_counter())
            planned = samref_sweep.plan(sweep, store=f"{folder}/none")
            clock.append(time.perf_counter())
            plan_text(planned.plan, planned.cost)
            clock.append(time.perf_counter())
            parts.append([after - before for before, after in itertools.pairwise(clock)])
        command = [sys.executable, "-c", "from samref_sweep.cli import main; main()", str(path), "--plan"]
        whole = []
        for _ in range(options.repeats):
            start = time.perf_counter()
            subprocess.run([*command, "--store", f"{folder}/none"], check=True, capture_output=True)
            whole.append(time.perf_counter() - start)
    read_s, plan_s, text_s = (median(column) for column in zip(*parts, strict=True))
    print(f"trials {len(planned.plan.trials)}, units of work {len(planned.plan.works)}; medians of {options.repeats}")
    print(f"read and check {read_s:.2f} s, plan {plan_s:.2f} s, cost and text {text_s:.2f} s")
    print(f"samref-sweep --plan {median(whole):.2f} s (from {min(whole):.2f} to {max(whole):.2f})")


if __name__ == "__main__":
    main()
