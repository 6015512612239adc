"""One stage over several workers: who gets which shard, what is lost with a worker, what it costs; and on real Ray."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError
from sharing import SharedToys
from toys import run_toys, toy_plan, toy_sweep

from samref.stage import Job
from samref.trial import NamesAsFingerprints
from samref_sweep.errors import ResourceError
from samref_sweep.execution.board import SILENT_SECONDS, Board
from samref_sweep.execution.dispatch import Dispatcher
from samref_sweep.execution.requests import Request, resolve, resolve_all
from samref_sweep.execution.spending import Spending
from samref_sweep.planning.plan import Plan, plan
from samref_sweep.spec.policy import Budget, Resources
from samref_sweep.store.folder import FolderStore


def test_a_board_gives_each_shard_to_one_and_again_what_a_lost_one_had() -> None:
    board = Board({0: 8, 2: 8, 3: 5})
    assert [board.take(worker) for worker in ("a", "b", "a")] == [0, 2, 3]
    assert board.take("b") is None
    board.finish("a", 0)
    board.tell("a", 10, {"clicks": 30})
    board.tell("b", 4, {"clicks": 7})
    assert board.standing() == (14, {"clicks": 37, "workers": 2}, 0, 2)
    board.lose("a")
    assert board.standing() == (12, {"clicks": 7, "workers": 1}, 1, 2)
    assert board.take("a") is None
    assert board.take("b") == 3
    board.finish("a", 3)  # its link was cut, and is there again
    board.finish("b", 3)
    board.finish("b", 2)
    assert board.standing()[2:] == (0, 0)
    assert board.standing().done == 4 + 8 + 5


def test_a_shard_that_a_lost_worker_finished_after_all_is_given_to_nobody() -> None:
    board = Board({0: 1, 1: 1})
    assert board.take("a") == 0
    board.lose("a")
    board.finish("a", 0)
    assert [board.take("b"), board.take("b")] == [1, None]


def test_a_process_that_is_not_heard_of_holds_up_nobody_who_has_nothing_else_to_do() -> None:
    now = [0.0]
    board = Board({0: 8, 1: 8, 2: 8}, clock=lambda: now[0])
    assert [board.take("cut off"), board.take("slow"), board.take("leader")] == [0, 1, 2]
    now[0] = SILENT_SECONDS
    board.tell("slow", 1, {})
    board.tell("cut off", 1, {})
    board.finish("leader", 2)
    assert (board.standing().free, board.take("leader")) == (0, None)
    now[0] = 2 * SILENT_SECONDS + 1
    board.tell("slow", 2, {})
    assert (board.standing().free, board.take("leader"), board.take("leader")) == (1, 0, None)
    board.tell("leader", 16, {})
    board.finish("leader", 0)
    board.finish("cut off", 0)  # it is there again
    board.tell("cut off", 8, {})
    board.finish("slow", 1)
    assert board.standing() == (24, {"workers": 0}, 0, 0)


def test_a_charge_follows_the_number_of_workers() -> None:
    now = [0.0]
    spending = Spending(Budget(gpu_hours=1, trial_hours=0.5), clock=lambda: now[0])
    spending.start(1, 0.5, 1, before=100)
    now[0] = 100
    spending.resize(1, 3)
    now[0] = 900
    assert spending.exceeded_by_trial(1)  # 100 + 100 + 3 × 800 s
    assert spending.exceeded() is None  # half a GPU each
    spending.resize(1, 2)
    now[0] = 1000
    assert spending.end(1) == 1000
    assert spending.gpu_seconds == 0.5 * (100 + 3 * 800 + 2 * 100)


NODES = [{"CPU": 8.0, "GPU": 4.0}, {"CPU": 8.0, "GPU": 4.0}]


def test_workers_of_an_evaluation_each_have_its_resources() -> None:
    small = resolve("evaluate", Resources(workers=8, gpu=0.25, cpu=1), NODES)
    assert (small.workers, small.gpu, small.cpu, small.at_once, small.auto) == (8, 0.25, 1, 16, False)
    assert resolve("embed", Resources(gpu=4), NODES) == Request(cpu=2, gpu=1, workers=4, at_once=8)
    assert resolve("embed", Resources(), NODES).auto
    assert not resolve("embed", Resources(), [{"CPU": 64.0}]).auto  # of one machine's CPUs an encoder takes all alone
    assert not resolve("train", Resources(), NODES).auto
    one = [{"CPU": 8.0, "GPU": 1.0}]
    assert not resolve("evaluate", Resources(), one).auto
    quarter = resolve("evaluate", Resources(gpu=0.25), one)
    assert (quarter.auto, quarter.at_once, quarter.cpu) == (True, 4, 2)
    with pytest.raises(
        ResourceError, match="4 CPU and 1 GPU for each of 9 processes, which the nodes have not"
    ) as told:
        resolve("embed", Resources(workers=9, cpu=4), [{"CPU": 32.0, "GPU": 8.0}])
    assert "\n" not in str(told.value)
    with pytest.raises(ResourceError, match=r"resources.profile asks for 2 processes or GPUs; a profile measures one"):
        resolve("profile", Resources(workers=2), NODES)


def sharing_plan(store: FolderStore, workers: int, **sweep: object) -> Plan:
    toy = toy_sweep(**sweep)  # type: ignore[arg-type]
    resources = {**toy.resources, "evaluate": Resources(cpu=1, gpu=0, workers=workers)}
    return plan(replace(toy, resources=resources), NamesAsFingerprints(), store.done())


def test_auto_is_a_share_of_what_would_be_idle(store: FolderStore) -> None:
    planned = toy_plan(store, gammas=(0.6, 0.7, 0.8), thetas=(1.1,))
    for stage in planned.stages.values():
        if stage.kind in ("embed", "train", "profile"):
            with store.claim([stage.id]) as claim, claim.workspace(stage.id) as folder:
                (folder / "summary.json").write_text("{}")
    left = toy_plan(store, gammas=(0.6, 0.7, 0.8), thetas=(1.1,))
    sweep = replace(left.sweep, resources={**left.sweep.resources, "evaluate": Resources(cpu=1, gpu=1)})
    requests = resolve_all(replace(left, sweep=sweep), NODES, store.where)
    for auto, jobs, expected in ((True, None, [2, 3, 3]), (True, 4, [1, 1, 2]), (False, None, [1, 1, 1])):
        asked = {kind: replace(each, auto=auto and kind == "evaluate") for kind, each in requests.items()}
        dispatcher = Dispatcher(left, store, asked, on_event=lambda event: None, stop=lambda number: None, jobs=jobs)
        assert [order.request.workers for _ in range(3) if (order := dispatcher.next())] == expected


def test_on_object_storage_shards_may_be_shared_and_a_training_s_folder_may_not(store: FolderStore) -> None:
    planned = toy_plan(store)
    for kind in ("evaluate", "train"):
        two = Resources(cpu=1, gpu=0, workers=2)
        asking = replace(planned, sweep=replace(planned.sweep, resources={**planned.sweep.resources, kind: two}))
        assert resolve_all(asking, NODES, store.where)[kind].workers == 2
        if kind == "evaluate":
            assert resolve_all(asking, NODES, "s3://bucket/runs")[kind].workers == 2
            continue
        with pytest.raises(
            ResourceError, match="train asks for 2 processes, which must see one folder; s3://bucket/runs gives each"
        ):
            resolve_all(asking, NODES, "s3://bucket/runs")


def began(store: FolderStore) -> list[tuple[int, str]]:
    lines = (store.root / "scratch" / "ledger").read_text().splitlines()
    return [(int(number), process) for number, process in map(str.split, lines)]


def rows(store: FolderStore, planned: Plan) -> set[str]:
    return {
        (store.open(stage.id) / "rows").read_text() for stage in planned.stages.values() if stage.kind == "evaluate"
    }


ALL = "".join(f"{row}\n" for row in range(12))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_head")
def test_two_workers_share_an_evaluation_and_a_killed_one_costs_the_shard_in_its_hand(
    store: FolderStore, capfd: pytest.CaptureFixture[str]
) -> None:
    planned = sharing_plan(store, 2, gammas=(0.6,))
    ending, events = run_toys(planned, store, SharedToys(seconds=0.4, kill=True))
    assert ending.failures == {}
    assert rows(store, planned) == {ALL}
    times = Counter(number for number, _ in began(store))
    assert sorted(times) == list(range(6))
    assert sorted(times.values()) == [1, 1, 1, 1, 1, 2]  # the one that was killed with its worker
    assert len({process for _, process in began(store)}) >= 2
    progress = [event.metrics for event in events if event.kind == "progress" and event.work.kind == "evaluate"]
    assert {metrics["total"] for metrics in progress} == {12}
    assert not list(store.root.glob("scratch/evaluate-*"))
    assert "(raylet)" not in capfd.readouterr().out


class CutOff(SharedToys):
    """The first of the other workers cannot reach the board, and tells so by its end."""

    def help(self, job: Job, *how: Any) -> None:
        """Work shards of a job that another process runs."""
        waited_for = job.scratch.parent / "killed"  # by who leads, before its second shard
        if not waited_for.exists():
            return super().help(job, *how)
        waited_for.unlink()
        raise ActorUnavailableError("its link is cut", None)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_head")
def test_a_worker_that_does_not_reach_the_board_is_lost_and_no_failure_of_the_stage(store: FolderStore) -> None:
    planned = sharing_plan(store, 2, gammas=(0.6,))
    ending, _ = run_toys(planned, store, CutOff(kill=True))
    assert ending.failures == {}
    assert rows(store, planned) == {ALL}
    assert not (store.root / "scratch" / "killed").exists()  # the second worker came, and was cut off


@pytest.mark.slow
@pytest.mark.usefixtures("ray_head")
def test_what_an_idle_worker_holds_is_let_go_for_a_stage_that_wants_it(store: FolderStore) -> None:
    planned = sharing_plan(store, 2, gammas=(0.6, 0.7))
    ending, _ = run_toys(planned, store, SharedToys(seconds=0.2, kill=True, but_first=True))
    assert ending.failures == {}
    assert len({process for _, process in began(store)}) >= 2
    assert not (store.root / "scratch" / "killed").exists()  # the second worker came, and was killed
