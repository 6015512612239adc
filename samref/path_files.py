"""The file `paths.npz` of an evaluation over an interval of θ: every sample's trajectories with their intervals.

sample                 of each path: index of its sample
above, upto            of each path: it is that of the θ with above < θ ≤ upto
length                 of each path: its clicks
x, y, positive, iou, pasted_on, error_ratio
                       of each click, path by path: as in clicks.npz, the IoU as float64
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # the tables read the file, without torch
    from samref.clickloop import Trajectory
    from samref.nodes import Record

FILE = "paths.npz"


class PathTable(NamedTuple):
    """The trajectories of all samples as arrays: P paths, C clicks of all of them, path by path."""

    sample_P: NDArray[np.int32]
    above_P: NDArray[np.float64]
    upto_P: NDArray[np.float64]
    length_P: NDArray[np.int32]
    x_C: NDArray[np.int32]
    y_C: NDArray[np.int32]
    positive_C: NDArray[np.bool_]
    iou_C: NDArray[np.float64]
    pasted_on_C: NDArray[np.int8]
    error_ratio_C: NDArray[np.float64]
    metrics: dict[str, NDArray[np.float64]]
    """Name of a metric → its value for each path, P."""

    @classmethod
    def of(
        cls, paths: Sequence[Sequence[Trajectory]], headline: Callable[[Sequence[Record]], Mapping[str, float]]
    ) -> PathTable:
        """The table of each sample's trajectories, whose metrics `headline` gives."""
        rows = [(i, path) for i, own in enumerate(paths) for path in own]
        records = [record for _, path in rows for record in path.records]
        measured = [headline(path.records) for _, path in rows]
        return cls(
            np.array([i for i, _ in rows], np.int32),
            np.array([path.above for _, path in rows], np.float64),
            np.array([path.upto for _, path in rows], np.float64),
            np.array([len(path.records) for _, path in rows], np.int32),
            np.array([record.click.x for record in records], np.int32),
            np.array([record.click.y for record in records], np.int32),
            np.array([record.click.positive for record in records], bool),
            np.array([record.iou for record in records], np.float64),
            np.array([record.pasted_on for record in records], np.int8),
            np.array([record.error_ratio for record in records], np.float64),
            {
                name: np.array([each[name] for each in measured], np.float64)
                for name in (measured or [{}])[0]
                if name != "num_samples"
            },
        )

    def write(self, folder: Path) -> None:
        """Write the file into a folder."""
        columns: dict[str, Any] = {name.rpartition("_")[0]: getattr(self, name) for name in _ARRAYS}
        np.savez_compressed(folder / FILE, **(columns | self.metrics))

    @classmethod
    def read(cls, file: Path) -> PathTable:
        """Read a file that was written."""
        with np.load(file) as arrays:
            columns = {name: arrays[name] for name in arrays.files}
        own: dict[str, Any] = {name: columns.pop(name.rpartition("_")[0]) for name in _ARRAYS}
        return cls(**own, metrics=columns)


_ARRAYS = PathTable._fields[:-1]
