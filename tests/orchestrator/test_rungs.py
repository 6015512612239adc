"""What a training may still spend: rungs of asha, GPU hours, and the first trials of a budget; no Ray."""

from pathlib import Path

from searches import SPACE, SWEEP, sweep
from toys import NamedContents

from samref.stage import Stage
from samref_sweep.execution.halving import Halving
from samref_sweep.execution.spending import Spending
from samref_sweep.planning.plan import plan
from samref_sweep.spec.policy import Budget, Scheduler
from samref_sweep.store.journal import Journal


def trainings(tmp_path: Path, count: int, *overrides: str) -> list[Stage]:
    gammas = ", ".join(str(number / 100) for number in range(count))
    planned = plan(sweep(tmp_path, f"{SWEEP}parameters: {{train.gamma: [{gammas}]}}", *overrides), NamedContents(), ())
    return [stage for stage in planned.stages.values() if stage.kind == "train"]


def test_one_in_three_goes_on_at_each_rung(tmp_path: Path) -> None:
    stages = trainings(tmp_path, 9)
    halving = Halving(Scheduler(), stages, Journal(tmp_path / "rungs.jsonl"))
    assert halving.rungs(stages[0]) == [11, 33]  # the next would be 99 of 100
    losses = [5, 4, 6, 3, 7, 8, 2, 9, 4.5]
    reasons = [halving.judge(s, {"step": 11, "loss": loss}) for s, loss in zip(stages, losses, strict=True)]
    # Best so far, or among the best third (rounded up) of those that came before.
    assert [reason is None for reason in reasons] == [True, True, False, True, False, False, True, False, False]
    assert reasons[2] == (
        "stopped by asha at step 11: its loss, 6, was number 3 of the 3 trainings that came to step 11; "
        "one in 3 goes on"
    )


def test_rungs_survive_the_driver_and_compare_equals_only(tmp_path: Path) -> None:
    stages = trainings(tmp_path, 3)
    journal = Journal(tmp_path / "rungs.jsonl")
    assert Halving(Scheduler(), stages, journal).judge(stages[0], {"step": 11, "loss": 1.0}) is None
    again = Halving(Scheduler(), stages, journal)
    assert again.judge(stages[1], {"step": 12, "loss": 2.0}) is not None
    assert again.judge(stages[0], {"step": 11, "loss": 9.0}) is None  # was judged before
    assert again.judge(stages[2], {"step": 20, "loss": 9.0}) is None  # came from a checkpoint behind the rung
    assert again.judge(stages[2], {"step": 5, "loss": 9.0}) is None
    (other,) = trainings(tmp_path, 1, "train.samples=5")
    assert again.judge(other, {"step": 11, "loss": 9.0}) is None  # of other data


def test_gpu_hours_count_what_runs_and_what_ran() -> None:
    now = 0.0
    spending = Spending(Budget(gpu_hours=1), gpu_seconds=3599, clock=lambda: now)
    assert spending.exceeded() is None
    spending.start(7, gpus=1, devices=2, before=0)
    now = 1.0
    assert spending.exceeded() == (
        "budget.gpu_hours, 1, are used up; the same command with a larger --set budget.gpu_hours=… goes on from here"
    )
    spending.end(7)
    assert spending.gpu_seconds > 3600
    assert Spending(Budget(gpu_hours=1)).exceeded() is None


def test_a_budget_of_trials_runs_the_first_ones(tmp_path: Path) -> None:
    text = f"{SWEEP}{SPACE.replace('{min: 1, max: 2}', '[1, 2]')}"
    planned = plan(sweep(tmp_path, text, "budget.trials=2"), NamedContents(), ())
    assert len(planned.trials) == 4
    assert sum(work.kind == "train" for work in planned.works) == 1
    done = frozenset(stage.id for trial in planned.trials[:2] for stage in trial.stages)
    outcomes = planned.outcomes(done, {})
    assert [outcome.status for outcome in outcomes] == ["done", "done", "not run", "not run"]
    assert outcomes[2].reason == "budget.trials is 2"
