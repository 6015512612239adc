"""A training in several processes: Ray Train's workers, started from within a Tune trial (written for Ray 2.60).

The Tune trial itself reserves nothing; its workers reserve theirs as one group, on one node or on several. Resuming,
progress and outputs are the training's own (samref.parallel): Ray Train starts the processes, joins them in a process
group, and notices when one is lost.
"""

import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.queue import Empty, Queue

from samref.errors import UserError
from samref.run_stage import run_in_group
from samref.stage import Job, Report, Stopped
from samref_sweep.errors import WorkerLostError
from samref_sweep.execution.unit import Runner, device_memory_given_back, logged

POLL_SECONDS = 0.2
END_SECONDS = 60.0
"""What the workers have for a step and a checkpoint where the process that leads them fails."""
STOP = "stop"
"""A file in the training's scratch folder, by which its workers are told to end."""


@dataclass(frozen=True)
class TrainGroup:
    """Runs one training in several processes that share its work; a `Runner`."""

    size: int
    cpu: float
    """CPUs of each process."""
    gpu: float
    """GPUs of each process."""
    log: Path
    """File to which all append what they print."""
    runner: Runner = run_in_group
    """Called in each process, alike."""

    def __call__(self, job: Job, report: Report) -> None:
        """Run a training on all workers; they must see the same folders.

        Raises:
            WorkerLostError: one was killed.
            Exception: what a worker raised.
        """
        progress = Queue(actor_options={"num_cpus": 0})
        trainer = TorchTrainer(
            _worker,
            train_loop_config={"group": self, "progress": progress, "job": job},
            torch_config=TorchConfig(backend="nccl" if self.gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=self.size,
                use_gpu=bool(self.gpu),
                resources_per_worker={"CPU": self.cpu, **({"GPU": self.gpu} if self.gpu else {})},
            ),
            run_config=RunConfig(
                # Ray Train would go on from a run of the same name; the training's own checkpoint does.
                name=secrets.token_hex(6),
                storage_path=str(job.scratch / "ray-train"),
                failure_config=FailureConfig(max_failures=0),
            ),
        )
        ended = threading.Event()
        failed: list[BaseException] = []

        def fit() -> None:
            try:
                trainer.fit()
            except BaseException as error:  # raised again below, in the thread that may report to Tune
                failed.append(error)
            finally:
                ended.set()

        (job.scratch / STOP).unlink(missing_ok=True)
        thread = threading.Thread(target=fit, name="ray-train", daemon=True)
        thread.start()
        try:
            while not (ended.is_set() and progress.empty()):
                try:
                    report(*progress.get(timeout=POLL_SECONDS))
                except Empty:
                    continue
                except Stopped:  # the workers end by themselves, after a checkpoint
                    (job.scratch / STOP).touch()
        except BaseException:  # nor may they go on beside those of another attempt
            (job.scratch / STOP).touch()
            thread.join(END_SECONDS)
            raise
        thread.join()
        progress.shutdown()
        if failed:
            raise reason_of(failed[0])


def _worker(config: dict[str, Any]) -> None:
    """What each process of the group does."""
    group: TrainGroup = config["group"]
    progress: Queue = config["progress"]
    job: Job = config["job"]

    def report(step: int, metrics: Mapping[str, float]) -> None:
        progress.put_nowait((step, dict(metrics)))
        if (job.scratch / STOP).exists():
            raise Stopped

    job = replace(job, runtime=replace(job.runtime, threads=max(1, int(group.cpu))))
    with logged(group.log), device_memory_given_back():
        group.runner(job, report)


def reason_of(error: BaseException) -> BaseException:
    """What a worker raised, without what Ray Train wrapped around it."""
    if not isinstance(error, WorkerGroupError):
        return error
    # A process that failed takes its peers with it, whose broken connections tell nothing. So our own words come
    # first, then Ray's, which are that it found a process dead.
    causes = list(error.worker_failures.values())
    for cause in causes:
        if isinstance(cause, UserError):
            return cause
    for cause in causes:
        if type(cause).__module__.startswith("ray."):
            return WorkerLostError(" ".join(str(cause).split())[:500])
    return causes[0] if causes else error
