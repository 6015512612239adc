"""The samples that an evaluation plays together, and what is known of each on its way: nodes and records of clicks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samref import metrics
from samref.clicks import Click
from samref.refiner.model import Context
from samref.refiner.resample import Frames
from samref.run_lengths import RunLengths
from samref.starts import Start
from samref.transfers import to_device

NO_SELECTOR, GLOBAL, PREVIOUS = 0, 1, 2
"""What a record is `pasted_on`."""


class Record(NamedTuple):
    """One click and what it led to."""

    click: Click
    iou: float
    boundary_iou: float
    """NaN where it was not measured."""
    pasted_on: int
    error_ratio: float


class Verdict(NamedTuple):
    """What the truth says of a mask."""

    iou: float
    boundary_iou: float
    next_click: Click | None
    """None: the mask is the last one."""
    last_mask: RunLengths | None


@dataclass(frozen=True)
class Node:
    """One sample on one path of selector decisions."""

    sample: int  # position in the wave
    above: float  # its θ are greater than this,
    upto: float  # and at most this
    click: Click | None  # the next one
    records: tuple[Record, ...] = ()
    coarse_1MM: Tensor | None = None  # S_{t-1}
    result_HW: Tensor | None = None  # M_{t-1}, where a selector may paste on it: its logits, or in a batch its mask
    area: int = -1  # ‖H(E_{t-1})‖₀; -1 before the first click
    seed: int = 0  # of what is drawn, or of whose first click it is
    start_iou: float = math.nan  # before the first click
    mask: RunLengths | None = None  # once there is no next click

    @property
    def clicks(self) -> list[Click]:
        """The clicks that were made, and the next one."""
        made = [record.click for record in self.records]
        return made if self.click is None else [*made, self.click]


@dataclass(frozen=True)
class Wave:
    """The samples whose nodes advance together."""

    first: int
    """Position in the dataset of its first sample."""
    truths: list[NDArray[np.int8]]
    context: Context
    """What the decoder needs of all the samples; with `Images` where they are played in batches."""
    sizes: Sequence[tuple[int, int]] = ()
    """Height and width of each sample's image, px, where truths may be padded; empty where none is."""
    starts: Sequence[Start] = ()
    """What each sample begins with; empty where all begin with nothing."""
    _boundaries: dict[int, NDArray[np.bool_]] = field(default_factory=dict)

    @cached_property
    def num_object(self) -> list[int]:
        """Pixels of each object."""
        return [int(np.count_nonzero(truth == 1)) for truth in self.truths]

    def inside(self, sample: int, mask_HW: NDArray[Any]) -> NDArray[Any]:
        """Cut a mask, or a truth, to the sample's image, where it is padded to a square."""
        height, width = self.sizes[sample] if self.sizes else mask_HW.shape
        return mask_HW[:height, :width]

    def boundary(self, sample: int) -> NDArray[np.bool_]:
        """Compute the boundary of one object, when first asked for."""
        if sample not in self._boundaries:
            self._boundaries[sample] = metrics.boundary(self.inside(sample, self.truths[sample]) == 1)
        return self._boundaries[sample]

    def first_masks(self, nodes: Sequence[Node]) -> list[NDArray[np.bool_]] | None:
        """The masks that the first clicks of these nodes correct; None: empty ones."""
        masks = (self.starts[node.sample].mask_HW for node in (nodes if self.starts else ()))
        return [mask for mask in masks if mask is not None] or None

    @property
    def device(self) -> torch.device:
        """Where the features are."""
        return self.context.features["embedding"].device

    def frames(self, mask_size: int) -> Frames:
        """The frames of the truths, for logits of that side."""
        return Frames.of([truth.shape for truth in self.truths], mask_size, self.device)

    def stacked(self, height: int, width: int) -> Tensor:
        """The truths as one int8 tensor beside the features; what a smaller one lacks is ignored."""
        stacked = np.full((len(self.truths), height, width), -1, np.int8)
        for i, truth in enumerate(self.truths):
            stacked[i, : truth.shape[0], : truth.shape[1]] = truth
        return to_device(stacked, self.device)
