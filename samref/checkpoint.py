"""A training's progress, and how it is kept: written aside, then renamed, so that a kill leaves the one before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypedDict

import torch
from safetensors.torch import load_file, save_file
from torch import nn


class CurvePoint(TypedDict):
    """One value of a training curve: the mean over the steps since the point before."""

    step: int
    metric: str
    value: float


@dataclass
class Progress:
    """How far a training is, and its curves so far."""

    step: int = 0
    """Optimiser steps made."""
    sums: dict[str, float] = field(default_factory=dict)
    """Each metric summed over the steps since the last point."""
    count: int = 0
    curve: list[CurvePoint] = field(default_factory=list)

    def add(self, metrics: Mapping[str, float]) -> None:
        """One step is done."""
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1
        self.step += 1

    def record(self) -> dict[str, float]:
        """Close a point of each curve and return it."""
        means = {name: value / self.count for name, value in self.sums.items()}
        self.curve += [CurvePoint(step=self.step, metric=name, value=value) for name, value in means.items()]
        self.sums, self.count = {}, 0
        return means

    def last(self, metric: str) -> float:
        """The metric's newest point."""
        return next(point["value"] for point in reversed(self.curve) if point["metric"] == metric)


def save(
    scratch: Path,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    """Keep a checkpoint in `scratch`, and then remove those before it."""
    aside, final = scratch / "writing", scratch / f"step-{progress.step:09d}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    save_file(
        {name: parameter.detach().cpu() for name, parameter in parameters.items()},
        aside / "weights.safetensors",
    )
    torch.save(optimizer.state_dict(), aside / "optimizer.pt")
    (aside / "progress.json").write_text(json.dumps(asdict(progress)))
    aside.rename(final)
    for other in scratch.glob("step-*"):
        if other != final:
            shutil.rmtree(other)


def restore(
    scratch: Path, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, device: str
) -> Progress:
    """Load the newest checkpoint of `scratch` into parameters and optimiser; without one, start at step 0."""
    found = sorted(scratch.glob("step-*"))
    if not found:
        return Progress()
    kept = load_file(found[-1] / "weights.safetensors", device=device)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(kept[name])
    optimizer.load_state_dict(torch.load(found[-1] / "optimizer.pt", map_location=device, weights_only=True))
    return Progress(**json.loads((found[-1] / "progress.json").read_text()))
