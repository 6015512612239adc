"""What stages ask of the cluster, and whether its nodes can serve it. Knows nothing of Ray."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from samref.trial import Kind
from samref_sweep.names import SpecError


class ResourceError(SpecError):
    """A stage asks for more than any node has; one line."""


def seconds(value: Any) -> Any:
    """The seconds of a time as sweep files have it: a number, or a text such as 90s, 30m or 2h."""
    if value is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", str(value))
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"{value!r} is not a time; write seconds, or for example 90s, 30m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}[match[2]]


class Resources(BaseModel):
    """What one stage of a kind asks of the cluster."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    cpu: Annotated[float, Field(gt=0)] | Literal["auto", "all"] = "auto"
    """CPUs; `auto`: one a process, or with a GPU its share of the machine's; `all`: a whole machine, so that it runs
    alone."""
    gpu: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    """GPUs: one, a fraction of one, or for a training several, which it uses data-parallel; `auto`: one where the
    cluster has any."""
    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Processes of one training, each with its share of `cpu`, `gpu` and every batch; `auto`: one a GPU."""
    time_limit: Annotated[float | None, BeforeValidator(seconds)] = None
    """What longer runs is ended as hanging: seconds, or a text such as `90s`, `30m` or `2h`; null: no limit."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        whole = self.gpu == "auto" or self.gpu <= 1 or self.gpu == int(self.gpu)
        if not whole:
            raise ValueError(f"gpu is {self.gpu}; it should be at most 1, or a whole number")
        if self.workers != "auto" and self.gpu != "auto" and self.gpu > 1 and self.workers != self.gpu:
            raise ValueError(f"workers is {self.workers} and gpu {self.gpu:g}; each process of a training has one GPU")
        if self.cpu == "all" and self.num_workers > 1:
            raise ValueError("cpu is all, which is a machine; several processes need a number, or auto")
        return self

    @property
    def num_workers(self) -> int:
        """Processes, `auto` settled."""
        if self.workers != "auto":
            return self.workers
        return 1 if self.gpu == "auto" else max(1, int(self.gpu))


@dataclass(frozen=True)
class Request:
    """What one unit of work takes, in numbers."""

    cpu: float
    """CPUs of each process."""
    gpu: float
    """GPUs of each process."""
    workers: int = 1
    """Processes."""
    at_once: int = 1
    """How many such units of work the cluster can hold at a time."""
    time_limit: float | None = None
    """Seconds after which its process exits."""


def resolve(kind: Kind, asked: Resources, nodes: Sequence[Mapping[str, float]]) -> Request:
    """The numbers behind `auto` and `all` on these nodes.

    Args:
        kind: the stages'.
        asked: what the sweep asks for them.
        nodes: each node's resources, in Ray's words: `CPU` and `GPU`.

    Raises:
        ResourceError: the nodes cannot serve it, even when nothing else runs.
    """
    workers = asked.num_workers
    if kind != "train" and workers > 1:
        raise ResourceError(
            f"resources.{kind} asks for {workers} processes or GPUs; only a training can share its work"
        )
    gpu = float(any(node.get("GPU", 0) >= 1 for node in nodes)) if asked.gpu == "auto" else asked.gpu / workers
    able = [node for node in nodes if node.get("GPU", 0) >= gpu]
    cpus = max((node.get("CPU", 0) for node in able), default=0)
    if asked.cpu == "all":
        cpu = cpus
    elif asked.cpu == "auto":
        cpu = max((max(1.0, node.get("CPU", 0) * gpu // node["GPU"]) for node in able if gpu), default=1.0)
    else:
        cpu = asked.cpu / workers
    holds = 0
    if able and cpus >= max(cpu, 1):
        holds = sum(int(min(node.get("CPU", 0) // cpu, node["GPU"] // gpu if gpu else 1e9)) for node in able)
    if holds < workers:
        has = "; ".join(f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU" for node in nodes) or "no nodes"
        wanted = f"{cpu:g} CPU and {gpu:g} GPU" + (f" for each of {workers} processes" if workers > 1 else "")
        raise ResourceError(
            f"resources.{kind} asks for {wanted}, which {'the nodes have not' if workers > 1 else 'no node has'} "
            f"(nodes: {has}); set resources.{kind} in the sweep file lower"
        )
    return Request(cpu=cpu, gpu=gpu, workers=workers, at_once=holds // workers, time_limit=asked.time_limit)
