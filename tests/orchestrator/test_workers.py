"""Real Ray Train on one machine: two gloo processes share a training of the tiny model."""

import dataclasses
import itertools
import json
import os
import pickle
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest
from ray.exceptions import RayActorError
from ray.train import WorkerGroupError
from toys import NamedContents

from samref.config import EvaluateConfig, ModelConfig, Runtime, TrainConfig, TrialConfig
from samref.errors import UserError
from samref.run_stage import run_in_group, run_job
from samref.stage import Job, Report
from samref_sweep.errors import ResourceError, WorkerLostError
from samref_sweep.execution.ray.train_group import reason_of
from samref_sweep.execution.ray.tuner import execute
from samref_sweep.execution.requests import resolve, resolve_all
from samref_sweep.execution.unit import perform
from samref_sweep.planning.plan import Plan, plan
from samref_sweep.planning.work import Event
from samref_sweep.spec.policy import Resources
from samref_sweep.spec.sweep import Sweep
from samref_sweep.store.folder import FolderStore
from samref_sweep.store.store import Store

MODEL = ModelConfig(backbone="tiny", refiner="gfr", refiner_width=16, refiner_blocks=1)
TRAIN = TrainConfig(data="shapes", samples=8, steps=10, warmup_steps=2, batch_size=4, gamma=0.6, learning_rate=1e-3)


def planned(store: Store, workers: int, **train: object) -> Plan:
    config = TrialConfig(
        model=MODEL,
        train=TRAIN.model_copy(update=train),
        evaluate=EvaluateConfig(data="shapes", samples=1, max_clicks=1),
        profile=None,
    )
    resources = {kind: Resources(cpu=1, gpu=0) for kind in ("embed", "evaluate", "profile")}
    resources["train"] = Resources(workers=workers, gpu=0)
    return plan(Sweep("two", "", Path("two.yaml"), {}, ({},), (config,), resources), NamedContents(), store.done())


def only_training(store: Store, workers: int, **train: object) -> Plan:
    """A plan whose images are encoded already, here, and which evaluates nothing: what is left is the training."""
    for work in planned(store, workers, **train).works:
        if work.kind == "embed":
            perform(work, store, runtime=Runtime(device="cpu", threads=1), report=lambda step, metrics: None)
    left = planned(store, workers, **train)
    return dataclasses.replace(left, works=tuple(work for work in left.works if work.kind == "train"))


def losses(store: Store, done: Plan) -> list[float]:
    (stage,) = [stage for stage in done.stages.values() if stage.kind == "train"]
    lines = map(json.loads, (store.open(stage.id) / "training.jsonl").read_text().splitlines())
    return [line["value"] for line in lines if line["metric"] == "loss"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The loss curve of one process with accumulation 2."""
    store = FolderStore(tmp_path_factory.mktemp("alone") / "store")
    every = planned(store, 1, accumulation=2)
    for work in every.works:
        perform(work, store, runtime=Runtime(device="cpu", threads=1), report=lambda step, metrics: None)
    return losses(store, every)


def lose_a_process_or_its_loss(job: Job, report: Report) -> None:
    """The first time, one of the two is killed after it saw the checkpoint of a step; the other waits for its sums."""
    if job.stages[0].kind != "train":
        run_job(job, report)
        return
    import ray.train

    killed = job.scratch.parent / "was-killed"
    rank = ray.train.get_context().get_world_rank()

    def count(step: int, metrics: Mapping[str, float]) -> None:
        report(step, metrics)
        if not killed.exists() and step == 6:
            killed.write_text(str(step))
            os.kill(os.getpid(), signal.SIGKILL)
        with (job.scratch.parent / f"steps-of-{rank}").open("a") as file:
            file.write(f"{step}\n")

    often = dataclasses.replace(job.runtime, checkpoint_seconds=0.0)
    run_in_group(dataclasses.replace(job, runtime=often), count)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_head")
def test_two_processes_of_which_one_is_lost_give_the_loss_curve_of_one_with_accumulation(
    store: Store, alone: list[float]
) -> None:
    both = only_training(store, 2)
    events: list[Event] = []
    result = execute(both, store, runtime=Runtime(), on_event=events.append, runner=lose_a_process_or_its_loss)

    assert result.failures == {}
    curve = losses(store, both)
    assert len(curve) == len(alone) == TRAIN.steps
    assert curve == pytest.approx(alone, abs=1e-4)
    assert any(e.kind == "progress" and e.work.kind == "train" and e.metrics["total"] == TRAIN.steps for e in events)
    # The group started again from the checkpoint: no step was made twice.
    made = [int(line) for line in (store.root / "scratch" / "steps-of-0").read_text().split()]
    assert made[:5] == [1, 2, 3, 4, 5]
    assert all(second > first for first, second in itertools.pairwise(made)), made
    assert made[-1] == TRAIN.steps
    assert not [path for path in store.root.glob("scratch/*") if path.is_dir()]


@pytest.mark.slow
def test_what_a_process_raises_is_the_stage_s_reason_whatever_its_peers_say_then(store: Store) -> None:
    diverging = only_training(store, 1, learning_rate=1e30, warmup_learning_rate=1e30)
    with pytest.raises(UserError) as raised:
        perform(diverging.works[0], store, runtime=Runtime(threads=1), report=lambda step, metrics: None)
    sent = pickle.loads(pickle.dumps(raised.value))
    others = {0: RuntimeError("Connection closed by peer"), 1: RayActorError(), 2: sent}
    assert str(reason_of(WorkerGroupError("as Ray Train tells it", others))).startswith("the loss is nan at step ")
    del others[2]
    assert isinstance(reason_of(WorkerGroupError("as Ray Train tells it", others)), WorkerLostError)
    del others[1]
    assert reason_of(WorkerGroupError("as Ray Train tells it", others)) is others[0]


def test_a_batch_that_processes_cannot_share_is_refused_before(store: Store) -> None:
    with pytest.raises(ResourceError, match=r"train.batch_size is 3, which 2 processes \(resources.train\) .* cannot"):
        resolve_all(planned(store, 2, batch_size=3), [{"CPU": 4.0}], store.where)


def test_gpus_are_one_a_process_and_may_be_on_several_nodes() -> None:
    nodes = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 2.0}, {"CPU": 64.0}]
    request = resolve("train", Resources(gpu=4), nodes)
    assert (request.workers, request.gpu, request.cpu, request.at_once) == (4, 1, 4, 1)
    assert resolve("train", Resources(gpu=2), nodes).at_once == 2
    assert resolve("train", Resources(workers=2, cpu=4, gpu=0), nodes[2:]).at_once == 16
    with pytest.raises(ResourceError, match="4 CPU and 1 GPU for each of 5 processes, which the nodes have not"):
        resolve("train", Resources(gpu=5), nodes)
    assert resolve("evaluate", Resources(gpu=2), nodes).workers == 2


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"gpu": 1.5}, "at most 1, or a whole number"),
        ({"gpu": 4, "workers": 2}, "each process of a training has one GPU"),
        ({"cpu": "all", "workers": 2}, "several processes need a number"),
    ],
)
def test_what_processes_cannot_share_is_refused(asked: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Resources.model_validate(asked)
