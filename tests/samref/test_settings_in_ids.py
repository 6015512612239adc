"""Every setting there is counts in an id and reaches its code, and one that is added later changes no id."""

import copy
import json
from pathlib import Path
from types import UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

import pytest

from samref import backbones
from samref import stage as stage_module
from samref.config import ModelConfig, ProfileConfig, TrainConfig, TrialConfig
from samref.part import Added, Part
from samref.protocol import protocol
from samref.stage import Stage
from samref.trial import NamesAsFingerprints, build

BASE = {"steps": 100, "warmup_steps": 10, "modules": ["encoder", "decoder"]}


def trial(fingerprints=None, shared=None, **settings):
    return build(TrialConfig.model_validate(settings), fingerprints or NamesAsFingerprints(), shared)


# In this trial everything counts; in one with (nearly) the defaults, all but IDLE, each with its reason.
EVERYTHING = {
    "model": {"checkpoint": "none", "freeze_backbone": False},
    "train": {"init": {"init": {"modules": ["encoder", "refiner"]}, "modules": ["encoder", "refiner"]}},
    "evaluate": {"clicker": "interformer"},
}


IDLE = {
    "model.seed": "the official weights are not drawn",
    "evaluate.seed": "the clicker ritm draws nothing",
}


# What a number or a list of them may be, where its type does not say.
CHOSEN = {"evaluate.curve": (1.0, 1.5), "evaluate.click_slice": (0.5, 1.0), "evaluate.click_noise_px": 2.0}


# The settings of an evaluation that are no part of its protocol.
COMPARED = {
    "evaluate.samples": "`objects` and `contents` say which they are",
    "evaluate.theta": "it is what is compared",
    "evaluate.curve": "these are other θ",
    "evaluate.seed": "means are over seeds",
    "evaluate.photographs": "they change no number",
}


# Settings that another one must allow.
ALLOWED = {
    "evaluate.click_slice": {"evaluate.clicker": "distance"},
    "evaluate.click_noise_px": {"evaluate.clicker": "jitter"},
}


def other_value(annotation, constraints, value):
    """A valid value of a field that is not the one it has."""
    options = get_args(annotation) if get_origin(annotation) in (UnionType, Union) else (annotation,)
    kind = next(option for option in options if option is not type(None))
    if get_origin(kind) is Annotated:
        kind, *_ = get_args(kind)
    if get_origin(kind) is Literal:
        return next(option for option in get_args(kind) if option != value)
    if get_origin(kind) is tuple:
        return value[:-1] if len(value) > 1 else (*value, other_value(get_args(kind)[0], (), value[0]))
    if kind is bool:
        return not value
    if kind is int:
        step = constraints.get("multiple_of", 1)
        return max(constraints.get("ge", 0), step) if value is None else value + (step if step > 1 else value or 1)
    if kind is float:
        return value / 2 if value else 0.125
    if kind is str:
        return f"{value}-other"
    if get_origin(kind) is dict:
        return {**value, "other": 1}
    raise AssertionError(f"no other value is known for a {kind}: teach other_value one")


def settings(part, above=""):
    """Every setting of a trial: dotted name, and another valid value."""
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if isinstance(value, Part):
            yield from settings(value, f"{above}{name}.")
        elif name not in {"train", "init", "profile"}:
            marks = {key: limit for mark in field.metadata for key, limit in vars_of(mark).items()}
            yield f"{above}{name}", CHOSEN.get(f"{above}{name}") or other_value(field.annotation, marks, value)


def vars_of(mark):
    names = ("ge", "gt", "le", "lt", "multiple_of")
    return {name: getattr(mark, name) for name in names if getattr(mark, name, None) is not None}


def with_setting(settings, name, value):
    """Nested settings with one of them, by its dotted name, set to a value."""
    changed = part = copy.deepcopy(settings)
    *above, last = name.split(".")
    for key in above:
        part = part.setdefault(key, {})
    part[last] = value
    return changed


class Official(NamesAsFingerprints):
    """Every checkpoint is a file."""

    def checkpoint(self, model):
        return model.checkpoint


def allowed(settings, name):
    """The settings, with those that a setting needs to be another."""
    for other, allowing in ALLOWED.get(name, {}).items():
        settings = with_setting(settings, other, allowing)
    return settings


def differing(settings, name, value, fingerprints=None):
    """Stages of a trial that another value of a setting made, and whether the trial's own id is another."""
    settings = allowed(settings, name)
    shared = {}  # as in a plan: what two trials have in common is made once
    first, second = (trial(fingerprints, shared, **each) for each in (settings, with_setting(settings, name, value)))
    assert second == trial(fingerprints, **with_setting(settings, name, value)), f"{name} is forgotten by trial.build"
    return [stage for stage in second.stages if stage not in first.stages], first.id != second.id


def test_every_setting_counts_in_the_id_of_a_stage_and_reaches_its_code():
    found = list(settings(TrialConfig.model_validate(EVERYTHING)))
    assert len(found) > 80
    for name, value in found:
        stages, other_trial = differing(EVERYTHING, name, value)
        assert stages, f"{name} is in no stage's key; see CONTRIBUTING, Settings"
        assert other_trial, name
        part, _, last = name.rpartition(".")
        ran_with = [stage.config.get(part.split(".")[0], {}).get(last) for stage in stages]
        if last in ("data", "samples"):
            ran_with += [stage.config.get("data", {}).get("name" if last == "data" else last) for stage in stages]
        # A file's path is settled where the trial is planned: workers have working folders of their own.
        told = str(Path(value).absolute()) if last == "checkpoint" else value
        # Which modules are trained is told by `modules`, also where model.freeze_backbone adds one.
        assert told in ran_with or last in ("freeze_backbone", "modules"), (
            f"{name} is hashed, and does not reach the code"
        )


def test_with_the_defaults_too_but_for_those_that_change_nothing_there():
    defaults = {"model": {"freeze_backbone": False}, "train": {}}  # else train.augment is refused
    for name, value in settings(TrialConfig.model_validate(defaults)):
        stages, other_trial = differing(defaults, name, value, Official())
        assert bool(stages) == (name not in IDLE), name
        assert other_trial, name


def test_every_setting_of_an_evaluation_is_in_its_protocol_but_those_that_are_compared():
    """Else two rows would stand side by side as if they had been made alike."""

    def made(settings):
        config = TrialConfig.model_validate(settings)
        return protocol(config.model, config.evaluate, contents="abc", objects=345)

    for name, value in settings(TrialConfig()):
        if name.startswith("evaluate."):
            base = allowed({}, name)
            told = made(base) != made(with_setting(base, name, value))
            assert told == (name not in COMPARED), f"{name}: see CONTRIBUTING, Settings"


def test_a_setting_outside_the_key_cannot_reach_the_code():
    stage = trial(train={}).stage("evaluate")
    assert "embedding_precision" not in stage.config["model"]
    told = with_setting(stage.to_json(), "config.model.multimask", "always")
    again = Stage.from_json(with_setting(told, "config.evaluate.data", "elsewhere"))
    assert again.id == stage.id
    assert again.config["model"]["multimask"] == "never"
    assert again.config["evaluate"]["data"] == "elsewhere"  # a name, whose contents the key holds


def test_a_summary_of_an_old_store_is_read():
    """As it was written before what runs was derived from the key: `config` holds whole parts."""
    stage = trial(train={}).stage("embed")
    model = ModelConfig(patch_size_px=512).model_dump()
    old = {**stage.to_json(), "config": {"model": model, "data": stage.config["data"], "resize": "stretch"}}
    assert Stage.from_json(json.loads(json.dumps(old))).config == stage.config


def test_a_revised_backbone_changes_its_own_stages_alone():
    """SegNext's code computes other numbers than it did: its key says so, and what runs it is not told."""
    for name in backbones.names():
        stages = trial(model={"backbone": name, "refiner": "none"}, train={"modules": ["decoder"]}).stages
        revision = 2 if name.startswith("segnext") else None
        assert [stage.key.get("backbone_revision") for stage in stages] == [revision] * len(stages)
        assert not any("backbone_revision" in part for stage in stages for part in stage.config.values())
        for stage in stages:
            assert Stage.from_json(json.loads(json.dumps(stage.to_json()))).id == stage.id


class NewModel(ModelConfig):
    """The model of a later version."""

    wings: Annotated[int, Added(as_before=0)] = 2
    """A new setting whose default is not what was before."""


class NewTraining(TrainConfig):
    """The training of a later version."""

    mixup: Annotated[float | None, Added(as_before=None)] = None
    init: "NewTraining | None" = None


class NewTrial(TrialConfig):
    """A trial of a later version."""

    model: NewModel = NewModel()
    train: NewTraining | None = None
    export: Annotated[ProfileConfig | None, Added(as_before=None)] = None


@pytest.fixture
def before(monkeypatch):
    """A trial of today; afterwards the version has the new settings, with what their developer adds to the tables."""
    today = trial(model={}, train={"init": BASE})
    monkeypatch.setitem(
        stage_module.MODEL_SETTINGS, "train", {**stage_module.MODEL_SETTINGS["train"], "wings": "wings"}
    )
    monkeypatch.setitem(stage_module.PARTS, "train", NewTraining)
    monkeypatch.setattr(stage_module, "ModelConfig", NewModel)
    return today


def test_an_added_setting_changes_no_id_while_it_means_what_was_before(before):
    names, old = NamesAsFingerprints(), before
    model, init = NewModel(wings=0), NewTraining(**BASE)
    same = build(NewTrial(model=model, train=NewTraining(init=init)), names)
    assert same.id == old.id
    assert [stage.id for stage in same.stages] == [stage.id for stage in old.stages]
    # What a stage without it runs with is what was before, not the default of today.
    assert same.stage("train").config["model"]["wings"] == 0
    assert same.stage("train").config["train"]["mixup"] is None

    for changes in ({"model": NewModel()}, {"train": NewTraining(init=init, mixup=0.5)}):
        other = build(NewTrial(**{"model": model, "train": NewTraining(init=init), **changes}), names)
        assert other.id != old.id
        assert other.stage("train").id != old.stage("train").id
    assert other.stage("train").config["train"]["mixup"] == 0.5
    inner = build(NewTrial(model=model, train=NewTraining(init=NewTraining(**BASE, mixup=0.5))), names)
    assert inner.id != old.id
    new_part = build(NewTrial(model=model, train=NewTraining(init=init), export=ProfileConfig()), names)
    assert new_part.id != old.id
