"""The screen: the plan's text and costs, and what is counted while a sweep runs."""

import json
import re

import pytest
from toys import NamedContents, toy_plan, toy_sweep

from samref_sweep.failures import Failure
from samref_sweep.planning import cost
from samref_sweep.planning.plan import Plan, plan
from samref_sweep.planning.work import Event
from samref_sweep.screen import display as show
from samref_sweep.screen.tally import Tally
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
    stages = list(plan(toy_sweep(thetas=[2.0]), NamedContents(), ()).stages.values())
    told = cost.estimate(stages, store, size_of)
    # Each toy stage took 1.5 s: two images, a whole training, 2 samples × 20 clicks, a profile.
    assert told.seconds == pytest.approx({"embed": 15.0, "train": 3.0, "evaluate": 30.0, "profile": 1.5})
    assert (told.known, told.earlier, told.unknown, told.hardware) == (7, 2 + 2 + 4 + 1, {}, "toy")
    (line,) = [line for line in show.cost_lines(told, {"train"}) if line.startswith("time")]
    assert line.startswith("time: about 0:50 of one device (0.014 hours: embeddings 0:15, trainings 0:03")
    assert line.endswith("from 9 earlier stages on toy")


def test_where_nothing_was_done_no_time_is_told(store: Store) -> None:
    stages = list(toy_plan(store).stages.values())
    told = cost.estimate(stages, store, size_of)
    assert (told.known, dict(told.seconds), dict(told.unknown)) == (0, {}, {"embed": 2, "train": 2, "evaluate": 4,
                                                                            "profile": 1})  # fmt: skip
    assert list(show.cost_lines(told, {"train"}))[-1].startswith("time: unknown")
    assert cost.estimate(stages, None, lambda *_: None).embedding_bytes == 0


@pytest.mark.parametrize("name", ["tiny", "sam_vit_b", "sam2.1_hiera_t", "segnext_vit_b_sax1"])
def test_the_disk_of_embeddings_is_what_the_backbones_features_take(name: str) -> None:
    import torch

    import samref.backbones

    # Without weights, but Hiera, which reads numbers while it is built (sam2 1.1); its smallest has 39 million.
    with torch.device("cpu" if name.startswith("sam2") else "meta"):
        features = samref.backbones.build(name).feature_channels.values()
    values = sum(channels * side * side for channels, side in features)
    assert cost.embedding_bytes({"backbone": name, "embedding_precision": "fp16"}, 3) == 3 * 2 * values


def test_every_backbone_has_a_known_size() -> None:
    import samref.backbones

    for name in samref.backbones.names():
        assert cost.embedding_bytes({"backbone": name, "embedding_precision": "fp32"}, 1) > 0


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
            assert (name, about, steps, told) == (work.id, f"train.gamma={gamma}", "200/500", "loss 0.25")
            assert re.fullmatch(r"\S+/s, 0:00 left", speed)
            assert ("train", "0", "1", "1") in [row[:4] for row in tally.kind_rows()] or gamma == 0.9
        tally.add(Event("done", work))
    assert tally.head().startswith("toy: 4 of 4 trials done")
    assert [row[:5] for row in tally.kind_rows()][1] == ("train", "2", "", "", "")

    tally = Tally(lambda: planned, store)
    for work in planned.works:
        tally.add(Event("started", work))
        tally.add(Event("done", work))
    # The toy's NoC90 is its θ.
    assert re.search(r"best NoC90 1.05 \(train.gamma=\S+  evaluate.theta=1.05\)$", tally.head())


def test_a_failure_is_one_line_with_its_log(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    planned = toy_plan(store)
    work = next(work for work in planned.works if work.kind == "train")
    with show.display(lambda: planned, store, as_json=False) as display:
        display(Event("started", work))
        display(Event("failed", work, failure=Failure("boom", "logs/x.log")))
        display(Event("failed", work, failure=Failure("fell behind", kind="stopped")))
    said = capsys.readouterr().out.splitlines()
    assert said[1] == f"failed  {work.id} train.gamma=0.6: boom (log: logs/x.log)"
    assert said[2] == f"stopped {work.id} train.gamma=0.6: fell behind"
    with show.display(lambda: planned, store, as_json=True) as display:
        display(Event("failed", work, failure=Failure("boom", "logs/x.log")))
    value = json.loads(capsys.readouterr().out)
    assert (value["event"], value["work"], value["reason"], value["log"]) == ("failed", work.id, "boom", "logs/x.log")
