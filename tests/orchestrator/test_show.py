"""The screen: the plan's text and costs, and what is counted while a sweep runs."""

import json
import re
from collections.abc import Iterable
from dataclasses import replace

import pytest
from toys import NamedContents, toy_plan, toy_sweep

from samref.config import ModelConfig
from samref_sweep.failures import Failure
from samref_sweep.planning import cost
from samref_sweep.planning.configurations import configurations
from samref_sweep.planning.plan import Outcome, Plan, plan
from samref_sweep.planning.work import Event
from samref_sweep.screen import display as show
from samref_sweep.screen.ranking import Ranking, ranking, result_table
from samref_sweep.screen.tally import Tally, took
from samref_sweep.spec.settings import short_names
from samref_sweep.store.folder import FolderStore
from samref_sweep.store.store import Store

NOTHING = cost.Cost(0, {}, 0, {}, 0, None)


def size_of(name: str, split: object, samples: int | None) -> tuple[int, int]:
    return (10, 20)


def test_the_plan_says_what_is_shared_and_lists_twenty() -> None:
    planned = plan(toy_sweep([0.6, 0.9], [1 + number / 100 for number in range(15)]), NamedContents(), ())
    lines = show.plan_text(planned, NOTHING, ["a note"]).splitlines()
    assert lines[0] == "toy: 30 trials"
    assert "      2 trainings instead of 30 (15 × shared): 0 done, 2 to do" in lines
    assert sum(line.startswith("  trial-") for line in lines) == 20
    assert lines[-2:] == ["  … and 10 more (--plan --json lists all)", "  note: a note"]


def test_time_is_told_from_earlier_stages_of_the_kind_and_in_proportion(finished: tuple[Plan, Store]) -> None:
    planned, store = finished
    for stage_id, stage in planned.stages.items():
        if stage.kind == "embed":
            (store.folder(stage_id) / "index.json").write_text(json.dumps({"images": ["a", "b"]}))
    works = plan(toy_sweep(thetas=[2.0]), NamedContents(), ()).works
    told = cost.estimate(works, store, size_of)
    # Each toy stage took 1.5 s: two images, a whole training, 2 samples × 20 clicks, a profile.
    assert told.seconds == pytest.approx({"embed": 15.0, "train": 3.0, "evaluate": 30.0, "profile": 1.5})
    assert (told.known, told.earlier, told.unknown, told.hardware) == (7, 2 + 2 + 4 + 1, {}, "toy")
    (line,) = [line for line in show.cost_lines(told, {"train"}) if line.startswith("time")]
    assert line.startswith("time: about 0:50 of one device (embeddings 0:15, trainings 0:03")
    assert line.endswith("from 9 earlier stages on toy")


def test_where_nothing_was_done_no_time_is_told(store: Store) -> None:
    works = toy_plan(store).works
    told = cost.estimate(works, store, size_of)
    assert (told.known, dict(told.seconds), dict(told.unknown)) == (0, {}, {"embed": 2, "train": 2, "evaluate": 4,
                                                                            "profile": 1})  # fmt: skip
    assert list(show.cost_lines(told, {"train"}))[-1].startswith("time: unknown")
    assert cost.estimate(works, None, lambda *_: None).embedding_bytes == 0


@pytest.mark.parametrize("name", ["tiny", "sam_vit_b", "sam2.1_hiera_t", "segnext_vit_b_sax1"])
def test_the_disk_of_embeddings_is_what_the_backbones_features_take(name: str) -> None:
    import torch

    import samref.backbones

    # Without weights, but Hiera, which reads numbers while it is built (sam2 1.1); its smallest has 39 million.
    with torch.device("cpu" if name.startswith("sam2") else "meta"):
        features = samref.backbones.build(name).feature_channels.values()
    values = sum(channels * side * side for channels, side in features)
    assert cost.embedding_bytes(ModelConfig(backbone=name), 3) == 3 * 2 * values


def test_the_disk_of_a_plug_in_s_embeddings_is_not_known_and_that_is_said(store: Store) -> None:
    planned = toy_plan(store)
    for stage in planned.stages.values():
        if stage.kind == "embed":
            stage.config["model"] |= {"backbone": "./nets.py:build"}
    told = cost.estimate(planned.works, None, size_of)
    assert (told.embedding_bytes, told.unsized_images) == (0, 20)
    first, *_ = show.cost_lines(told, {"embed"})
    assert first == (
        "embeddings to come take what a plug-in's features of 20 images take (not known) of disk; with "
        "resources.embed.keep: never none"
    )


def test_every_backbone_has_a_known_size() -> None:
    import samref.backbones

    for name in samref.backbones.names():
        assert cost.embedding_bytes(ModelConfig(backbone=name, embedding_precision="fp32"), 1) > 0


def test_progress_counts_trials_kinds_rates_and_the_best(finished: tuple[Plan, Store]) -> None:
    planned, store = finished
    tally = Tally(lambda: planned, FolderStore(store.root.parent / "empty"))
    assert tally.head().startswith("toy: 0 of 4 trials done · 0:00")
    for work in planned.works:
        tally.add(Event("started", work))
        if work.kind == "train":
            tally.add(Event("progress", work, {"step": 100, "total": 500, "loss": 0.5}))
            tally.add(Event("progress", work, {"step": 200, "total": 500, "loss": 0.25}))
            gamma = work.stages[0].config["train"]["gamma"]
            ((name, about, steps, speed, told, _),) = tally.running_rows()
            assert (name, about, steps, told) == (work.id, f"gamma={gamma}", "200/500", "loss 0.25")
            assert re.fullmatch(r"\S+/s, 0:00 left", speed)
            assert ("train", "0", "1", "1") in [row[:4] for row in tally.kind_rows()] or gamma == 0.9
        tally.add(Event("done", work))
    assert tally.head().startswith("toy: 4 of 4 trials done")
    assert [row[:5] for row in tally.kind_rows()][1] == ("train", "2", "", "", "")

    tally = Tally(lambda: planned, store)
    for work in planned.works:
        tally.add(Event("started", work))
        tally.add(Event("done", work))
    assert "best" not in tally.head(), "random weights are never the best"


def test_a_failure_is_one_line_with_its_log(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    planned = toy_plan(store)
    work = next(work for work in planned.works if work.kind == "train")
    with show.display(lambda: planned, store, as_json=False) as display:
        display(Event("started", work))
        display(Event("failed", work, failure=Failure("boom", "logs/x.log")))
        display(Event("failed", work, failure=Failure("fell behind", kind="stopped")))
    said = capsys.readouterr().out.splitlines()
    assert said[1] == f"failed  {work.id} gamma=0.6: boom (log: logs/x.log)"
    assert said[2] == f"stopped {work.id} gamma=0.6: fell behind"
    with show.display(lambda: planned, store, as_json=True) as display:
        display(Event("failed", work, failure=Failure("boom", "logs/x.log")))
    value = json.loads(capsys.readouterr().out)
    assert (value["event"], value["work"], value["reason"], value["log"]) == ("failed", work.id, "boom", "logs/x.log")


def seeded_plan(done: Iterable[str] = ()) -> Plan:
    """Two θ with two seeds each, of a model whose weights are not random."""
    sweep = toy_sweep([0.6], [1.05, 1.5])
    points = [{**point, "train.seed": seed} for point in sweep.points for seed in (0, 1)]
    model = sweep.configs[0].model.model_copy(update={"checkpoint": "auto"})
    configs = [
        config.model_copy(update={"model": model, "train": config.train.model_copy(update={"seed": seed})})
        for config in sweep.configs if config.train for seed in (0, 1)
    ]  # fmt: skip
    axes = {**sweep.axes, "train.seed": (0, 1)}
    return plan(replace(sweep, axes=axes, points=tuple(points), configs=tuple(configs)), NamedContents(), done)


NOC = (3.0, 5.0, 1.0, 9.0)
"""Of the four trials: the third has the luckiest seed, and the worse mean."""


def test_the_end_tells_means_over_seeds_and_never_a_single_seed() -> None:
    planned = seeded_plan()
    by_trial = {trial.id: {"noc_at_90": noc, "fps": 2.0} for trial, noc in zip(planned.trials, NOC, strict=True)}
    lost = planned.trials[3].id
    outcomes = [Outcome("done")] * 3 + [Outcome("failed", "boom")]
    ranked = Ranking(planned, outcomes, lambda trial: by_trial[trial.id])
    assert ranked.best() == "best NoC90: 4.00 ± 1.41 with gamma=0.6 theta=1.05, n = 2"
    assert [column.header for column in ranked.table().columns] == ["gamma", "theta", "NoC90", "NoC95", "n", ""]
    assert [list(column.cells) for column in ranked.table().columns][1:3] == [
        ["1.05", "1.5"],
        ["4.00 ± 1.41", "5.00 ± 5.66"],
    ]
    first, second = ranked.values()
    assert first["values"] == {"train.gamma": 0.6, "evaluate.theta": 1.05}
    assert first["metrics"]["noc_at_90"] == {"mean": 4.0, "std": pytest.approx(2**0.5), "n": 2}
    assert second["trials"] == [trial.id for trial in planned.trials[2:]]

    alike = Ranking(planned, outcomes, lambda trial: {"noc_at_90": 20.0})
    assert alike.best() == "best NoC90: 20.00 ± 0.00, alike in 2 configurations"

    # A mean that lacks a seed is not the best while another is whole.
    del by_trial[lost]
    ranked = Ranking(planned, outcomes, lambda trial: by_trial.get(trial.id, {}))
    assert ranked.best().startswith("best NoC90: 4.00")
    assert [list(column.cells)[1] for column in ranked.table().columns][2:] == ["1.00", "", "1 of 2", "1 failed"]


def test_the_end_is_read_from_the_store(finished: tuple[Plan, Store], capsys: pytest.CaptureFixture[str]) -> None:
    planned, store = finished
    result_table(ranking(planned, planned.outcomes(store.done(), {}), store))
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert said[:2] == [["gamma", "theta", "NoC90", "NoC95", "n"], ["0.6", "1.05", "1.05", "1"]]


def test_a_profile_that_trials_share_counts_once() -> None:
    planned = seeded_plan()
    (first, _) = configurations(planned)
    made = first.summary("fps", lambda trial: {"fps": 2.0})
    assert made is not None
    assert (made.mean, made.std, made.n, made.planned) == (2.0, None, 1, 1)


def test_what_starts_is_said_until_it_has(store: Store) -> None:
    planned = toy_plan(store)
    tally = Tally(lambda: planned, store, "Ray starts (about 15 s)")
    assert tally.head().endswith("· Ray starts (about 15 s)")
    tally.add(Event("started", planned.works[0]))
    assert "Ray" not in tally.head()


def test_an_estimate_that_is_exceeded_is_a_question_mark(store: Store) -> None:
    planned = toy_plan(store)
    tally = Tally(lambda: planned, store)
    train = next(work for work in planned.works if work.kind == "train")
    tally.add(Event("started", train))
    running = tally.running[train.id]
    tally.add(Event("progress", train, {"step": 100, "total": 500}))
    tally.add(Event("progress", train, {"step": 200, "total": 500}))
    running.first, running.last = (running.since, 100), (running.since + 1, 200)
    running.since -= 60
    running.first, running.last = (running.since, 100), (running.since + 1, 200)  # three seconds more, 59 ago
    assert running.cells()[1] == "100/s, ? left"


@pytest.mark.parametrize(("seconds", "text"), [(0.44, "0.4 s"), (9.96, "10.0 s"), (270, "4:30"), (3723, "1:02:03")])
def test_times_are_what_people_read(seconds: float, text: str) -> None:
    assert took(seconds) == text


def test_a_plan_with_nothing_to_do_says_so_in_one_line(finished: tuple[Plan, Store]) -> None:
    planned, store = finished
    lines = show.plan_text(plan(planned.sweep, NamedContents(), store.done()), NOTHING).splitlines()
    assert lines[-1] == "  all 4 trials are done"
    assert not any("trial-" in line for line in lines)


def test_axes_whose_last_word_is_shared_keep_their_names() -> None:
    axes = ["train.gamma", "train.seed", "model.seed", "evaluate.theta"]
    assert list(short_names(axes).values()) == ["gamma", "train.seed", "model.seed", "theta"]
