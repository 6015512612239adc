"""A training's progress, and how it is kept: written aside, then renamed, so that a kill leaves the one before."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypedDict

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


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
    accumulation: int = 1
    """Parts in which a process works its samples of a step; grows where memory runs out."""
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


@dataclass
class State:
    """All that a training changes: what a checkpoint holds."""

    parameters: dict[str, nn.Parameter]
    """The parameters that are trained, by their names in the model."""
    optimizer: torch.optim.Optimizer
    averages: dict[str, Tensor] | None
    """The parameters' exponential moving averages, float32, or None where there are none."""
    progress: Progress

    def average(self, decay: float) -> None:
        """Move the averages, if any, towards the parameters after a step."""
        # Early steps forget faster, or a short training would end near its first weights (as TensorFlow's
        # ExponentialMovingAverage does with num_updates).
        decay = min(decay, (1 + self.progress.step) / (10 + self.progress.step))
        if self.averages:
            newest = [self.parameters[name].detach() for name in self.averages]
            torch._foreach_lerp_(list(self.averages.values()), newest, 1 - decay)


def save(scratch: Path, state: State) -> None:
    """Keep a checkpoint in `scratch`, and then remove those before it."""
    aside, final = scratch / "writing", scratch / f"step-{state.progress.step:09d}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for file, tensors in (("weights", state.parameters), ("averages", state.averages)):
        if tensors is not None:
            kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(kept, aside / f"{file}.safetensors")
    torch.save(state.optimizer.state_dict(), aside / "optimizer.pt")
    (aside / "progress.json").write_text(json.dumps(asdict(state.progress)))
    aside.rename(final)
    for other in scratch.glob("step-*"):
        if other != final:
            shutil.rmtree(other)


def restore(scratch: Path, state: State, device: str) -> None:
    """Load the newest checkpoint of `scratch`; without one, the state stays as it is."""
    found = sorted(scratch.glob("step-*"))
    if not found:
        return
    for file, tensors in (("weights", state.parameters), ("averages", state.averages)):
        if tensors is not None:
            kept = load_file(found[-1] / f"{file}.safetensors", device=device)
            with torch.no_grad():
                for name, tensor in tensors.items():
                    tensor.copy_(kept[name])
    state.optimizer.load_state_dict(torch.load(found[-1] / "optimizer.pt", map_location=device, weights_only=True))
    state.progress = Progress(**json.loads((found[-1] / "progress.json").read_text()))
