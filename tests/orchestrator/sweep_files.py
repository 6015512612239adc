"""The sweep file that the tests of sweep files begin with."""

from pathlib import Path

BASE = """
trial:
  model: {backbone: tiny}
  train: {data: shapes, steps: 100, warmup_steps: 10, learning_rate: 1e-4}
  evaluate: {data: shapes}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return path
