"""What stages ask of the cluster, and whether its nodes can serve it. Knows nothing of Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from samref.stage import Kind
from samref_sweep.errors import ResourceError
from samref_sweep.spec.policy import Resources


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
