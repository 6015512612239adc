"""Seeds until decided: seed after seed is added while a difference is not known, and the tables say what was."""

import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from toys import NamedContents, run_toys, write_toy_stage

from samref.stage import Job
from samref_sweep.driver import read
from samref_sweep.errors import SpecError
from samref_sweep.execution.seed_by_seed import SeedBySeed
from samref_sweep.planning.decisions import decided, per_object
from samref_sweep.record import tables
from samref_sweep.store.folder import FolderStore

SWEEP = """
trial:
  model: {backbone: tiny, checkpoint: none}
  train: {data: shapes, steps: 10, warmup_steps: 1}
  evaluate: {data: shapes, max_clicks: 4}
  profile: null
parameters:
  model.refiner: [none, gfr+lfr]
seeds: {up_to: 8, until: {metric: noc_at_90, baseline: {model.refiner: none}, width: 0.2}}
"""


def sweep(tmp_path: Path, old: str = "", new: str = "", *overrides: str):
    assert old in SWEEP
    (tmp_path / "until.yaml").write_text(SWEEP.replace(old, new, 1) if old else SWEEP)
    return read(tmp_path / "until.yaml", overrides)


def runner(noise: float):
    """A runner whose refiner saves one click of two, give or take `noise`, at each of 12 objects."""

    def write(job: Job, report) -> None:
        write_toy_stage(job, report)
        for stage, out in zip(job.stages, job.outs, strict=True):
            if stage.kind == "evaluate":
                chance = np.random.default_rng(int(stage.id[-8:], 16))
                better = stage.config["model"]["refiner"] != "none"
                first = np.clip(np.round((1 if better else 2) + noise * chance.normal(size=1) * np.ones(12)), 1, 4)
                rows = [(s, c, 0.95 if c >= first[s] else 0.5) for s in range(12) for c in range(1, 5)]
                sample, click, iou = map(np.array, zip(*rows, strict=True))
                old = dict(np.load(out / "clicks.npz"))
                old |= {name: np.resize(old[name], len(rows)) for name in old}
                np.savez(out / "clicks.npz", **{**old, "sample": sample, "click": click, "iou": iou.astype(np.float32)})
                (out / "samples.json").write_text(json.dumps([f"s{n}" for n in range(12)]))

    return write


def perform_all(growing: SeedBySeed, store: FolderStore, run) -> int:
    """Do all work as a dispatcher would, and count the seeds that were used."""
    from samref.config import Runtime
    from samref_sweep.execution.unit import perform

    todo = list(growing.plan.works)
    while todo:
        for work in todo:
            assert growing.num_open
            perform(work, store, runtime=Runtime(), report=lambda step, metrics: None, runner=run)
            growing.settle({})
        todo = list(growing.more()) if growing.num_left else []
    return len({point["train.seed"] for point in growing.plan.points})


def test_one_key_of_seeds_can_be_set_alone(tmp_path):
    found = sweep(tmp_path, "", "", "seeds.until.width=0.5", "seeds.up_to=5").until
    assert (found.up_to, found.until.width, found.until.baseline) == (5, 0.5, {"model.refiner": "none"})
    assert sweep(tmp_path, "", "", "seeds=2").until is None
    with pytest.raises(SpecError, match=r"--set seeds\.until\.width=x: seeds\.until\.width is 'x'"):
        sweep(tmp_path, "", "", "seeds.until.width=x")
    with pytest.raises(SpecError, match=r"--set seeds\.until\.width=1: seeds\.until\.metric is .*required"):
        sweep(tmp_path, SWEEP[SWEEP.index("seeds:") :], "", "seeds.until.width=1")


def test_a_clear_difference_ends_after_three_seeds_and_the_tables_say_so(tmp_path, store):
    wanted = sweep(tmp_path)
    growing = SeedBySeed(wanted, NamedContents(), store)
    assert perform_all(growing, store, runner(0.0)) == 3
    tables.write(growing.plan, store, {}, tmp_path / "results", "")
    about = json.loads(pq.read_schema(tmp_path / "results" / "trials.parquet").metadata[b"samref.sweep"])
    assert about["decisions"] == [
        "refiner gfr+lfr against refiner none: noc_at_90 -1.00 (95 %: -1.00 to -1.00), decided after 3 of 8 seeds"
    ]


def test_noise_takes_more_seeds_and_the_next_run_goes_on_from_the_store(tmp_path, store):
    wanted = sweep(tmp_path)
    used = perform_all(SeedBySeed(wanted, NamedContents(), store), store, runner(0.6))
    assert 3 < used <= 8
    again = SeedBySeed(wanted, NamedContents(), store)
    assert (len(again.plan.trials), again.plan.works) == (2 * used, ())


def test_what_is_never_decided_ends_after_all_seeds(tmp_path, store):
    wanted = sweep(tmp_path, ", width: 0.2", "")
    growing = SeedBySeed(wanted, NamedContents(), store)

    numbers = itertools.count()

    def same(job, report):
        runner(0.0)(job, report)
        for stage, out in zip(job.stages, job.outs, strict=True):
            if stage.kind == "evaluate" and stage.config["model"]["refiner"] != "none":  # one click, or four, in turn
                old = dict(np.load(out / "clicks.npz"))
                np.savez(
                    out / "clicks.npz", **{**old, "iou": np.full(48, 0.5 + 0.45 * (next(numbers) % 2), np.float32)}
                )

    assert perform_all(growing, store, same) == 8
    (told,) = decided(growing.plan, store.done(), store)
    assert not told.decided
    assert told.text.endswith("not decided after 8 of 8 seeds")


def test_a_seed_that_repeats_counts_once(tmp_path, store):
    wanted = sweep(tmp_path)
    growing = SeedBySeed(wanted, NamedContents(), store)
    perform_all(growing, store, runner(0.0))
    from samref_sweep.planning.decisions import decisions, values_of

    trials = [growing.plan.trials[0], growing.plan.trials[3]] * 3
    points = [{**growing.plan.points[i], "train.seed": n} for n in range(3) for i in (0, 3)]
    (told,) = decisions(trials, points, wanted.until, values_of(store, "noc_at_90"))
    assert (told.seeds, told.interval, told.decided) == (1, None, False)
    assert told.text.endswith("all seeds give the same, so they decide nothing")


def test_a_failure_ends_the_looking(tmp_path, store):
    from samref_sweep.failures import Failure

    growing = SeedBySeed(sweep(tmp_path), NamedContents(), store)
    assert growing.num_left == 5
    growing.settle({growing.plan.works[0].stages[0].id: Failure("no")})
    assert growing.num_left == 0


def test_a_plan_shows_the_first_seeds(tmp_path, capsys, monkeypatch):
    from samref_sweep.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "until.yaml").write_text(SWEEP)
    assert main(["until.yaml", "--plan"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("until: 6 trials")
    assert "until noc_at_90 is decided" in said


def test_on_ray_seeds_are_added_while_it_runs(tmp_path, store, ray_head):
    wanted = sweep(tmp_path)
    growing = SeedBySeed(wanted, NamedContents(), store)
    run_toys(growing.plan, store, runner(0.6), search=growing, jobs=1)
    assert not growing.num_left
    assert 6 < len(growing.plan.trials) <= 16
    assert all(store.has(trial.stages[-1].id) for trial in growing.plan.trials)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("metric: noc_at_90", "metric: fps", "seeds"),
        ("up_to: 8", "up_to: 2", "seeds"),
        ("{model.refiner: none}, w", "{model.refinr: none}, w", "model.refinr, which is no axis. Did you mean"),
        ("{model.refiner: none}, w", "{model.refiner: gfr}, w", "the axis has none, gfr+lfr"),
        ("trial:", "method: optuna\ntrials: 3\nmetric: noc_at_90\ntrial:", "method: optuna suggests trials by itself"),
    ],
)
def test_what_can_never_be_decided_is_refused_in_one_line(tmp_path, old, new, told):
    with pytest.raises(SpecError) as error:
        sweep(tmp_path, old, new)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_values_are_those_of_each_object():
    ious = [[0.5, 0.9], [0.95], []]
    assert per_object(ious, "noc_at_90", 2).tolist() == [2, 1, 1]
    assert per_object(ious, "miou_at_2", 2).tolist() == [0.9, 0.95, 1.0]
