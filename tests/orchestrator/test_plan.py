"""The plan: what trials share, and that only what is missing is done."""

import resource
from pathlib import Path

from toys import NamedContents, toy_sweep, write_toy_stage

from samref.config import Runtime, TrialConfig
from samref.stage import canonical
from samref.trial import NamesAsFingerprints, build
from samref_sweep.execution.queue import Queue
from samref_sweep.execution.unit import perform
from samref_sweep.failures import Failure
from samref_sweep.planning.plan import Plan, plan
from samref_sweep.planning.work import TOGETHER, units_of_work
from samref_sweep.store.store import Store


def make(done: frozenset[str] = frozenset(), **sweep: object) -> Plan:
    return plan(toy_sweep(**sweep), NamedContents(), done)  # type: ignore[arg-type]


def kinds(planned: Plan) -> list[tuple[str, int]]:
    return [(work.kind, len(work.stages)) for work in planned.works]


def test_trials_share_stages_and_theta_shares_one_unit_of_work() -> None:
    planned = make(gammas=(0.6, 0.9), thetas=(1.05, 1.1, 1.2))
    counts = planned.counts()
    assert len(planned.trials) == 6
    assert (counts["train"].asked, counts["train"].total) == (6, 2)
    assert (counts["embed"].asked, counts["embed"].total) == (12, 2)
    assert sorted(kinds(planned)) == [
        ("embed", 1), ("embed", 1), ("evaluate", 3), ("evaluate", 3), ("profile", 1), ("train", 1), ("train", 1),
    ]  # fmt: skip


def test_peoples_first_clicks_share_one_unit_of_work_and_drawn_clicks_do_not() -> None:
    shared = [{"first_clicks": "a.csv"}, {"first_clicks": "b.csv"}]
    for settings, expected in [*((each, [3]) for each in shared), ({"clicker": "uniform"}, [1, 1, 1])]:
        configs = [TrialConfig.model_validate({"evaluate": {**settings, "seed": seed}}) for seed in range(3)]
        stages = [build(config, NamesAsFingerprints()).stage("evaluate") for config in configs]
        assert [len(work.stages) for work in units_of_work((stage for stage in stages if stage), "store")] == expected


def test_what_runs_in_one_go_is_done_with_a_few_open_files(store: Store) -> None:
    planned = plan(toy_sweep(gammas=(0.6,), thetas=[1 + step / 1000 for step in range(100)]), NamedContents(), ())
    evaluations = [len(work.stages) for work in planned.works if work.kind == "evaluate"]
    assert evaluations == [TOGETHER, 100 - TOGETHER]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len([*Path("/proc/self/fd").iterdir()]) + 150, hard))
    try:
        for work in planned.works:
            perform(work, store, runtime=Runtime(), report=lambda step, metrics: None, runner=write_toy_stage)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert store.done() == planned.stages.keys()


def test_work_stands_after_what_it_needs() -> None:
    seen: set[str] = set()
    for work in make().works:
        assert set(work.needs.values()) <= seen
        seen |= {stage.id for stage in work.stages}


def test_one_more_theta_is_one_more_evaluation_of_each_training() -> None:
    before = make(thetas=(1.05, 1.1))
    after = make(frozenset(before.stages), thetas=(1.05, 1.1, 1.2))
    assert kinds(after) == [("evaluate", 1), ("evaluate", 1)]


def test_a_finished_trial_needs_nothing_rebuilt() -> None:
    every = make()
    done = frozenset(name for name in every.stages if name.startswith(("evaluate", "profile")))
    assert make(done).works == ()


def test_a_missing_evaluation_brings_back_only_what_it_needs() -> None:
    every = make(gammas=(0.6, 0.9), thetas=(1.1,))
    lost = every.trials[1].stage("evaluate")
    assert lost is not None
    done = frozenset(every.stages) - {lost.id, lost.needs["embeddings"]}
    assert kinds(make(done, gammas=(0.6, 0.9), thetas=(1.1,))) == [("embed", 1), ("evaluate", 1)]


def test_equal_trials_are_one() -> None:
    assert len(make(gammas=(0.6, 0.6), thetas=(1, 1.0)).trials) == 1


def test_outcomes_name_the_stage_that_failed_and_only_what_needs_it_fails() -> None:
    planned = make(gammas=(0.6, 0.9), thetas=(1.1,))
    first, second = planned.trials
    train = first.stage("train")
    assert train is not None
    done = frozenset(stage.id for stage in second.stages)
    outcomes = planned.outcomes(done, {train.id: Failure("boom", "x.log")})
    assert [outcome.status for outcome in outcomes] == ["failed", "done"]
    assert outcomes[0].reason == "train: boom (log: x.log)"
    assert [outcome.status for outcome in planned.outcomes(frozenset(), {})] == ["not run", "not run"]


def test_the_queue_keeps_the_order_and_never_starts_what_lacks_something() -> None:
    planned = make(gammas=(0.6, 0.9), thetas=(1.1,))
    queue = Queue(planned.works, ())
    done: set[str] = set()
    order = []
    while not queue.exhausted:
        taken = queue.take()
        assert taken is not None
        number, work = taken
        assert set(work.needs.values()) <= done
        order.append(work.kind)
        failed = work.kind == "train" and canonical(work.stages[0].key["gamma"]) == "0.6"
        ids = () if failed else tuple(stage.id for stage in work.stages)
        done.update(ids)
        queue.finish(number, ids)
    assert sorted(order) == ["embed", "embed", "evaluate", "profile", "train", "train"]


def test_ten_thousand_trials_are_planned() -> None:
    gammas = [number / 100 for number in range(100)]
    thetas = [1 + number / 100 for number in range(100)]
    sweep = toy_sweep(gammas, thetas)
    planned = plan(sweep, NamedContents(), ())
    assert (len(planned.trials), len(planned.works)) == (10_000, 303)
    # How long it takes: benchmarks/plan.py.


def test_a_plan_is_the_same_in_another_folder() -> None:
    assert make().trials == plan(toy_sweep(), NamedContents(), ()).trials
    assert Path("toy.yaml") == make().sweep.file
