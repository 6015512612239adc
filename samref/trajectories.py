"""Trajectories of some samples on disk, whole, to the last bit: what one shard of an evaluation leaves for its end."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from samref.clickloop import Trajectory
from samref.clicks import Click
from samref.nodes import Record
from samref.run_lengths import RunLengths


def save(file: Path, paths: Sequence[Sequence[Trajectory]]) -> None:
    """Keep each sample's trajectories as JSON: tuples are lists there, and NaN is written as Python writes it."""
    file.write_text(json.dumps(paths, default=lambda number: number.tolist()))


def load(file: Path) -> list[list[Trajectory]]:
    """Read the trajectories that `save` kept."""
    return [[_trajectory(*piece) for piece in pieces] for pieces in json.loads(file.read_text())]


def _trajectory(records: list[Any], mask: Any, *rest: Any) -> Trajectory:
    made = tuple(Record(Click(*click), *more) for click, *more in records)
    lengths = RunLengths(mask[0], mask[1], np.array(mask[2], np.int32)) if mask else None
    return Trajectory(made, lengths, *rest)
