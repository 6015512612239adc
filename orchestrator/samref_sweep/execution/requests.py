"""What stages ask of the cluster, and whether its nodes can serve it. Knows nothing of Ray."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from samref.stage import Kind
from samref_sweep.errors import ResourceError
from samref_sweep.planning.plan import Plan
from samref_sweep.planning.work import KINDS
from samref_sweep.spec.policy import Resources
from samref_sweep.store.opening import is_uri

SHARED: tuple[Kind, ...] = ("embed", "evaluate")
"""The kinds of stages that are worked in shards (`samref.shards`)."""
Nodes = Sequence[Mapping[str, float]]
"""Each node's resources, in Ray's words: `CPU` and `GPU`."""


@dataclass(frozen=True)
class Request:
    """What one unit of work of a kind takes, in numbers."""

    cpu: float
    """CPUs of each process."""
    gpu: float
    """GPUs of each process."""
    workers: int = 1
    """Processes. Those of a training start together; an embedding or an evaluation starts with one."""
    auto: bool = False
    """Whether `workers` follows from what is idle when the work starts."""
    at_once: int = 1
    """How many such units of work the cluster can hold at a time."""
    time_limit: float | None = None
    """Seconds after which its process exits."""


def resolve_all(plan: Plan, nodes: Nodes, where: str, *, growing: bool = False) -> dict[Kind, Request]:
    """What each kind of work takes: of all that the plan or a search may start, and of all that may be made anew.

    A kind that is only needed should a finished output be damaged, and that these nodes cannot serve, is left out.
    `growing` says that a search will add work, of any kind. Raises ResourceError: the nodes cannot serve work that is
    to do, or its processes cannot share a folder or a batch.
    """

    def request(kind: Kind) -> Request:
        found = resolve(kind, plan.sweep.resources[kind], nodes)
        if found.workers > 1 and kind not in SHARED and is_uri(where) and len(nodes) > 1:
            raise ResourceError(
                f"resources.{kind} asks for {found.workers} processes, which must see one folder; {where} gives each "
                "node its own: choose a folder that all nodes share with --store"
            )
        keep = plan.sweep.resources["embed"].keep
        if keep == "store" or kind not in ("train", "evaluate"):
            return found
        if found.workers > 1 and (growing or any(work.here for work in plan.works if work.kind == kind)):
            raise ResourceError(
                f"resources.{kind} asks for {found.workers} processes, and resources.embed.keep is {keep}: each node "
                "would make the embeddings for itself; let it be store, or ask for one process"
            )
        return replace(found, auto=False)

    wanted = set(KINDS) if growing else {work.kind for work in plan.works}
    requests = {kind: request(kind) for kind in KINDS if kind in wanted}
    for kind in {stage.kind for stage in plan.stages.values()} - wanted:
        with contextlib.suppress(ResourceError):
            requests[kind] = request(kind)
    for work in plan.works:
        if work.kind == "train" and (workers := requests["train"].workers) > 1:
            config = work.stages[0].train
            if config.batch_size % (workers * config.accumulation):
                raise ResourceError(
                    f"train.batch_size is {config.batch_size}, which {workers} processes (resources.train) with "
                    f"train.accumulation {config.accumulation} cannot share evenly"
                )
    return requests


def resolve(kind: Kind, asked: Resources, nodes: Nodes) -> Request:
    """The numbers behind `auto` and `all` on these nodes.

    Raises ResourceError: the nodes cannot serve it, even when nothing else runs.
    """
    workers = asked.num_workers
    if kind == "profile" and workers > 1:
        raise ResourceError(f"resources.profile asks for {workers} processes or GPUs; a profile measures one")
    # What a training asks for is of all its processes; an embedding's or evaluation's workers each take as much.
    share = workers if kind == "train" or (asked.gpu != "auto" and asked.gpu > 1) else 1
    gpu = float(any(node.get("GPU", 0) >= 1 for node in nodes)) if asked.gpu == "auto" else asked.gpu / share
    able = [node for node in nodes if node.get("GPU", 0) >= gpu]
    cpus = max((node.get("CPU", 0) for node in able), default=0)
    if asked.cpu == "all":
        cpu = cpus
    elif asked.cpu == "auto":
        cpu = max((max(1.0, node.get("CPU", 0) * gpu // node["GPU"]) for node in able if gpu), default=1.0)
    else:
        cpu = asked.cpu / share
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
    at_once = holds // workers if kind == "train" else holds
    several = len(nodes) > 1 or sum(node.get("GPU", 0) for node in nodes) > 1 or 0 < gpu < 1
    auto = several and kind in SHARED and asked.workers == "auto" and workers == 1 and asked.cpu != "all"
    return Request(cpu, gpu, workers, auto, at_once, asked.time_limit)
