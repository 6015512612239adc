"""One embedding or evaluation over several workers: shards for Ray tasks, led from within a Tune trial (Ray 2.60).

The trial's own process works shards too, on what Tune reserved for it. The others are tasks that ask for as much each:
they come as the cluster has room, and whatever else waits for room comes as well, so a stage begins at once and gets
faster. Who works what stands on a board (`samref_sweep.execution.board`); what is finished is in the stage's scratch
folder (`samref.shards`). A task that is lost costs the shards that it had in hand.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from samref.shards import Shards, Work
from samref.stage import Job, Report
from samref_sweep.errors import StoreError
from samref_sweep.execution.board import Board, Standing
from samref_sweep.execution.ray.presence import node_here
from samref_sweep.execution.unit import Sharing, logged
from samref_sweep.repeating import every
from samref_sweep.store.opening import is_uri, open_store

LOOK_SECONDS = 0.5
LEADER = "leader"
ANYWHERE = PlacementGroupSchedulingStrategy(placement_group=None)  # type: ignore[arg-type]
"""Not within what Tune reserved for the trial, where Ray puts whatever a trial starts unless it is told."""
REPLACED = 3
"""Tasks that are started anew for each that was asked for; a cluster that loses more goes on with fewer."""


@dataclass(frozen=True)
class ShardGroup:
    """Runs one stage by several workers; a `Runner`."""

    size: int
    """How many workers at most, the leading one included."""
    cpu: float
    """CPUs of each."""
    gpu: float
    """GPUs of each."""
    where: str
    """The store, as `open_store` takes it."""
    needs: Mapping[str, str]
    """Role → id of the stage whose output is read; each node opens it for itself."""
    log: str
    """Name of the log file of the unit of work, on each node."""
    runner: Sharing

    def __call__(self, job: Job, report: Report) -> None:
        """Run a job, of which other nodes see the store and the data. Raises Exception: what a worker raised."""
        self.runner(job, report, lambda shards, work, told: _Leader(self, job, shards, work, told).lead())


@dataclass
class _Leader:
    group: ShardGroup
    job: Job
    shards: Shards
    work: Work
    report: Report
    board: Any = None  # the actor
    _tasks: dict[Any, str] = field(default_factory=dict)  # what Ray gives for a task → its worker's name
    _started: int = 0
    _looked: float = 0.0

    def lead(self) -> None:
        """Have all missing shards worked; those that nobody has taken here too."""
        sizes = {number: len(self.shards.rows(number)) for number in self.shards.missing()}
        # On this node, so that no other's loss is the board's.
        here = NodeAffinitySchedulingStrategy(node_here(), soft=False)
        board: Any = ray.remote(num_cpus=0)(Board)
        self.board = board.options(scheduling_strategy=here).remote(sizes)
        self.shards.finished = lambda folder: self.board.finish.remote(LEADER, int(folder.name))
        try:
            for _ in range(min(self.group.size, len(sizes)) - 1):
                self._start()
            while (standing := self._standing()).left:
                if standing.free:
                    self.work(iter(lambda: ray.get(self.board.take.remote(LEADER)), None), self._told)
                else:
                    time.sleep(LOOK_SECONDS)
                    self._look()
            open_store(self.group.where, patient=True).shards(self.job.stages[0].id).fetch()
            if missing := self.shards.missing():
                raise StoreError(f"{self.shards.folder}: another node finished shard {missing[0]}, which is not here")
        finally:
            for task in self._tasks:
                ray.cancel(task, force=True)
            ray.kill(self.board)

    def _standing(self) -> Standing:
        standing: Standing = ray.get(self.board.standing.remote())
        return standing

    def _told(self, done: int, metrics: Mapping[str, float]) -> None:
        """What this process reports while it works shards."""
        self.board.tell.remote(LEADER, done, metrics)
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self._look()

    def _look(self) -> None:
        """Report how far all are, and replace the tasks that were lost; raises what one of them raised."""
        self._looked = time.monotonic()
        standing = self._standing()
        self.report(standing.done, standing.metrics)
        ended, _ = ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=0) if self._tasks else ([], [])
        for task in ended:
            worker = self._tasks.pop(task)
            try:
                ray.get(task)
            except RayError as error:  # of a link that was cut Ray tells in the task, too
                if isinstance(error, RayTaskError) and not isinstance(error.cause, RayError):
                    raise error.cause from None
                ray.get(self.board.lose.remote(worker))
                if standing.left and self._started < self.group.size * REPLACED:
                    self._start()

    def _start(self) -> None:
        self._started += 1
        name = f"worker {self._started}"
        task = ray.remote(max_retries=0, scheduling_strategy=ANYWHERE)(_help)
        asked = task.options(num_cpus=self.group.cpu, num_gpus=self.group.gpu)
        self._tasks[asked.remote(self.group, self.job, self.board, name, node_here())] = name


def _help(group: ShardGroup, job: Job, board: Any, name: str, leaders: str) -> None:
    """What each of the other workers does: shards of a job that `leaders`, a node, joins, until there are no more."""
    if not is_uri(group.where) and not job.scratch.is_dir():
        address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        raise StoreError(f"{group.where}: the node {address} does not see this folder")
    store = open_store(group.where, patient=True)
    place = store.shards(job.stages[0].id)
    inputs = {role: store.open(need) for role, need in group.needs.items()}
    latest: tuple[int, Mapping[str, float]] = 0, {}

    def report(done: int, metrics: Mapping[str, float]) -> None:
        nonlocal latest
        latest = done, metrics

    def finished(folder: Path) -> None:
        if node_here() == leaders or place.hand_over(folder):
            ray.get(board.finish.remote(name, int(folder.name)))

    job = replace(job, inputs=inputs, scratch=place.scratch, runtime=replace(job.runtime, far=store.far))
    # From a thread: who loads a model, or uploads a shard, is slow and not cut off.
    with logged(store.node.logs / group.log), every(LOOK_SECONDS, lambda: board.tell.remote(name, *latest), "tells"):
        group.runner.help(job, report, iter(lambda: ray.get(board.take.remote(name)), None), finished)
