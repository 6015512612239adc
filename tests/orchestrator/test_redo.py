"""Stages that other code made: that it is said, and what is made anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toys import toy_plan, write_toy_stage

from samref.config import Runtime
from samref.source import code_of
from samref_sweep.execution.unit import perform
from samref_sweep.planning.redo import other_code, superseded
from samref_sweep.store.folder import FolderStore
from samref_sweep.store.notes import Codes, Files
from samref_sweep.store.store import Store


def do_all(store: Store) -> None:
    for work in toy_plan(store).works:
        perform(work, store, runtime=Runtime(), report=lambda step, metrics: None, runner=write_toy_stage)


def made_by_other_code(store: Store, kind: str, *modules: str) -> None:
    """As if these modules had been others when the stages of a kind were made."""
    for stage in toy_plan(store).stages.values():
        if stage.kind == kind:
            store.codes.note(stage.id, {**code_of(stage), **dict.fromkeys(modules, "other")})


def said(store: Store) -> str | None:
    return other_code(toy_plan(store).stages.values(), store.done(), store.codes.all()).text


def test_stages_of_other_code_are_told_with_what_changed_and_what_to_do(store: Store) -> None:
    do_all(store)
    assert said(store) is None
    made_by_other_code(store, "evaluate", "refiner/gfr.py")
    assert said(store) == (
        "4 stages were made by other code (refiner/gfr.py changed since); they are reused: `--redo evaluate` makes "
        "them anew"
    )
    made_by_other_code(store, "profile", "profile.py", "clicks.py", "threads.py", "no/longer.py")
    text = said(store)
    assert text is not None
    assert text.startswith("5 stages were made by other code (clicks.py, profile.py, refiner/gfr.py and 1 more changed")
    assert text.endswith("`--redo changed` makes them anew")
    # A module that is gone, or never counted, is no reason by itself: who imported it was changed, too.
    made_by_other_code(store, "evaluate")
    made_by_other_code(store, "profile", "no/longer.py")
    assert said(store) is None


def test_of_stages_from_before_notes_were_taken_nothing_is_said(store: Store, tmp_path: Path) -> None:
    do_all(store)
    store.codes = Codes(Files(tmp_path / "none"))
    assert said(store) is None


def test_what_reads_a_stage_that_is_redone_is_redone_too(store: Store) -> None:
    do_all(store)
    planned = toy_plan(store)
    stages, done = planned.stages.values(), store.done()

    def kinds(*redo: str, changed: tuple[str, ...] = ()) -> list[str]:
        anew = planned.anew(superseded(stages, done, redo, changed))
        return sorted(work.kind for work in anew.works for _ in work.stages)

    assert kinds("evaluate") == ["evaluate"] * 4
    assert kinds("train") == ["evaluate"] * 4 + ["train"] * 2
    assert kinds("embed") == ["embed"] * 2 + ["evaluate"] * 4 + ["train"] * 2
    assert kinds("profile") == ["profile"]
    (first, _) = [stage.id for stage in stages if stage.kind == "train"]
    assert kinds("changed", changed=(first,)) == ["evaluate"] * 2 + ["train"]
    assert kinds("changed") == []


def test_the_old_output_stays_until_the_new_one_is_there(store: Store) -> None:
    do_all(store)
    made_by_other_code(store, "evaluate", "refiner/gfr.py")
    first, *others = [stage.id for stage in toy_plan(store).stages.values() if stage.kind == "evaluate"]
    mark = {"from": "the other code"}
    (store.folder(first) / "mark.json").write_text(json.dumps(mark))
    store.supersede([first, *others])
    assert not store.has(first)
    kept = store.root / "replaced" / first / "mark.json"
    assert json.loads(kept.read_text()) == mark  # a run that is killed now has lost nothing
    FolderStore(store.root).clean(0)
    assert kept.exists()
    do_all(store)
    assert store.has(first)
    assert not (store.folder(first) / "mark.json").exists()
    assert not list((store.root / "replaced").iterdir())
    assert said(store) is None


def test_the_newest_note_counts(tmp_path: Path) -> None:
    codes = Codes(Files(tmp_path))
    one, two = {"a.py": "1"}, {"a.py": "2"}
    for code in (one, two, one):
        codes.note("train-1", code)
    assert codes.all() == {"train-1": one}
    codes.note("train-2", two)
    assert codes.all() == {"train-1": one, "train-2": two}


def test_unknown_kinds_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    from samref_sweep.cli import main

    with pytest.raises(SystemExit):
        main(["x.yaml", "--redo", "evaluation"])
    assert "choose from embed, train, evaluate, profile, changed" in capsys.readouterr().err.replace("'", "")


def test_the_commands_say_it_and_redo_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from samref_sweep.cli import main, trial_main

    monkeypatch.chdir(tmp_path)
    Path("one.yaml").write_text(
        "trial:\n"
        "  model: {backbone: tiny, checkpoint: none, refiner: none}\n"
        "  evaluate: {data: shapes, samples: 2, max_clicks: 2}\n"
        "  profile: null\n"
    )
    sentence = (
        "1 stage was made by other code (backbones/sam.py changed since); it is reused: `--redo evaluate` makes it anew"
    )
    assert trial_main(["one.yaml", "--device", "cpu"]) == 0
    assert main(["one.yaml", "--plan"]) == 0
    assert "other code" not in capsys.readouterr().out

    store = FolderStore(tmp_path / "runs")
    (stage_id,) = (name for name in store.done() if name.startswith("evaluate"))
    code = store.codes.all()[stage_id]
    assert store.summary(stage_id).code == code
    store.codes.note(stage_id, {**code, "backbones/sam.py": "other"})
    assert main(["one.yaml", "--plan"]) == 0
    out = capsys.readouterr().out
    assert f"note: {sentence}" in out
    assert "1 evaluation: 1 done, 0 to do" in out
    assert main(["one.yaml", "--plan", "--redo", "changed"]) == 0
    out = capsys.readouterr().out
    assert "1 evaluation: 0 done, 1 to do" in out
    assert "1 embedding: 1 done, 0 to do" in out
    assert "other code" not in out

    before = store.dated()
    assert trial_main(["one.yaml", "--device", "cpu", "--redo", "evaluate"]) == 0
    assert {name for name, when in store.dated().items() if before[name] != when} == {stage_id}
    assert main(["one.yaml", "--plan"]) == 0
    assert "other code" not in capsys.readouterr().out
