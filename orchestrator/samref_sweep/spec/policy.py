"""How a sweep is to run, as its file says: resources, retries, budget, and the early stopping of trainings."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from samref_sweep.failures import FailureKind
from samref_sweep.spec.settings import Keys

Positive = Annotated[float, Field(gt=0)]
Keep = Literal["store", "local", "never"]


class Budget(Keys):
    """Bounds of a sweep. When one is reached, running stages end in order, and a larger one goes on from there."""

    gpu_hours: Positive | None = None
    """GPU-hours of all the sweep's stages, those of earlier runs included."""
    hours: Positive | None = None
    """Hours of one run of the command, after which the same command goes on."""
    trial_hours: Positive | None = None
    """Device-hours of one trial: of its stages, shared ones included, without what lost attempts took. When they are
    used up its running stage ends in order, and all other trials go on."""
    embeddings_gb: Positive | None = None
    """Disk that embeddings still to be made may take, in 10⁹ bytes; a sweep that needs more is refused before it runs,
    as is one that needs more than is free."""
    trials: Annotated[int, Field(ge=1)] | None = None
    """Only the first so many trials, those done before included."""


def seconds(value: Any) -> Any:
    """The seconds of a time as sweep files have it: a number, or a text such as 90s, 30m or 2h."""
    if value is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", str(value))
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"{value!r} is not a time; write seconds, or for example 90s, 30m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}[match[2]]


class Resources(Keys):
    """What one stage of a kind asks of the cluster."""

    cpu: Annotated[float, Field(gt=0)] | Literal["auto", "all"] = "auto"
    """CPUs, of an embedding or evaluation those of each worker; `auto`: one a process, or with a GPU its share of the
    machine's; `all`: a whole machine, so that it runs alone."""
    gpu: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    """GPUs: one, a fraction of one (of each worker), or several, which a training uses data-parallel and others by a
    worker each; `auto`: one where the cluster has any."""
    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Processes that share one stage: of a training, each with its share of `cpu`, `gpu` and every batch; of an
    embedding or evaluation, each with as much as the others, which come as the cluster has room. `auto`: a training's
    one a GPU; else one, and where there are several nodes or GPUs, or `gpu` is a fraction, as many as would be idle
    when the stage starts."""
    keep: Keep = "store"
    """Where an embedding is kept, of other kinds `store`: `local`, on the disk of each node that reads it
    (`$SAMREF_CACHE`), made there by the first stage that does; `never`, made there by each stage that reads it, and
    gone with that stage's end; with either by one worker, on what the reader asks for. Numbers and ids do not depend on
    it."""
    time_limit: Annotated[float | None, BeforeValidator(seconds)] = None
    """A stage that runs longer is ended as hanging: seconds, or a text such as `90s`, `30m` or `2h`; null: no limit."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        whole = self.gpu == "auto" or self.gpu <= 1 or self.gpu == int(self.gpu)
        if not whole:
            raise ValueError(f"gpu is {self.gpu}; it should be at most 1, or a whole number")
        if self.workers != "auto" and self.gpu != "auto" and self.gpu > 1 and self.workers != self.gpu:
            raise ValueError(f"workers is {self.workers} and gpu {self.gpu:g}; each process of a training has one GPU")
        if self.cpu == "all" and self.num_workers > 1:
            raise ValueError("cpu is all, which is a machine; several processes need a number, or auto")
        if self.keep != "store" and self.num_workers > 1:
            raise ValueError(f"keep is {self.keep}, so that who reads an embedding makes it, and no other workers do")
        return self

    @property
    def num_workers(self) -> int:
        """Processes, `auto` settled."""
        if self.workers != "auto":
            return self.workers
        return 1 if self.gpu == "auto" else max(1, int(self.gpu))


Attempts = Annotated[int, Field(ge=0, le=100)]


FIRST_LOOK = 3
"""Seeds before the first look at what they say: two say too little of how much seeds differ."""


class Until(Keys):
    """What is to be known before seeds end."""

    metric: str = Field(pattern=r"^(noc_at_(8[5-9]|9[0-9]|[1-7][0-9])|miou_at_([1-9]|[1-9][0-9]))$")
    """Whose difference: `noc_at_PERCENT` or `miou_at_CLICK`."""
    baseline: dict[str, Any] = Field(min_length=1)
    """What every configuration is compared with: settings of axes, such as `{model.refiner: none}`."""
    width: Positive | None = None
    """A difference is known once its interval excludes zero, or is this narrow, in the metric's unit."""
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    """The probability with which all intervals of one difference hold it together, however often they are looked at."""


class SeedsUntil(Keys):
    """Repetitions that end when every difference is known (samref.sequential)."""

    up_to: int = Field(ge=FIRST_LOOK, le=1000)
    """At most so many seeds, from 0; the first look is after three."""
    until: Until
    """What is to be known."""


class Retry(Keys):
    """How often a stage is started again in the same run, for each kind of failure."""

    node_lost: Attempts = 3
    """A stage's process was killed or its node went away; a training goes on from its checkpoint. Where a provider
    announces that it takes the node back (a preemption), the attempt does not count."""
    out_of_memory: Attempts = 1
    """The machine's or the GPU's memory was full, perhaps of other stages."""
    machine: Attempts = 1
    """A limit of the machine was reached (open files, threads, processes, shared memory), perhaps by other stages; or
    a package could not be imported."""
    error: Attempts = 0
    """The stage raised an error."""
    time_limit: Attempts = 0
    """A stage ran into `resources.KIND.time_limit`."""

    def bound(self, kind: FailureKind) -> int:
        """How many failures of a kind are followed by another attempt; none where the disk is full or broken."""
        return 0 if kind in ("storage", "stopped") else int(getattr(self, kind))


class Scheduler(Keys):
    """Which trainings are stopped early."""

    name: Literal["asha"] = "asha"
    """The rule: asynchronous successive halving."""
    metric: str = "loss"
    """What is compared, of what trainings report; less is better."""
    reduction: int = Field(3, ge=2)
    """One in so many goes on at each rung; each rung, up to half of the training, has so many times the steps of the
    one before."""
    grace_steps: int | None = Field(None, ge=1)
    """The first rung; null: the training's steps divided by the square of `reduction`, which makes two rungs."""


def _scheduler(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


SchedulerEntry = Annotated[Scheduler, BeforeValidator(_scheduler, json_schema_input_type=Literal["asha"] | Scheduler)]
