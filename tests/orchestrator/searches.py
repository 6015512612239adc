"""The sweeps that the tests of searches read."""

from pathlib import Path

from samref_sweep.spec.sweep import Sweep, read

SWEEP = """
trial:
  model: {backbone: tiny, checkpoint: none}
  train: {data: shapes, steps: 100, warmup_steps: 10}
  evaluate: {data: shapes}
  profile: {repeats: 1}
resources: {train: {cpu: 1, gpu: 0}, embed: {cpu: 1, gpu: 0}, evaluate: {cpu: 1, gpu: 0}, profile: {cpu: 1, gpu: 0}}
"""


SPACE = "parameters: {train.gamma: [0.6, 0.9], evaluate.theta: {min: 1, max: 2}}\n"


OPTUNA = f"{SWEEP}method: optuna\nmetric: noc_at_90\ntrials: 12\n{SPACE}"


def sweep(tmp_path: Path, text: str, *overrides: str) -> Sweep:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return read(path, overrides)
