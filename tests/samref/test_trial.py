"""Stage ids: what shares work, what does not, and that they stay what they are."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samref.config import TrialConfig
from samref.stage import Stage, canonical
from samref.trial import NamesAsFingerprints, build

GOLDEN = Path(__file__).parents[1] / "golden" / "ids.json"


BASE = {"steps": 100, "warmup_steps": 10, "modules": ["encoder", "decoder"]}


CASES = {
    "defaults": {"train": {}},
    "no training": {},
    "two phases": {"model": {"backbone": "tiny"}, "train": {"modules": ["refiner"], "init": BASE}},
    "infinite theta": {"train": {"theta": math.inf}, "evaluate": {"theta": math.inf}},
    "unfrozen": {"model": {"backbone": "sam_vit_b", "freeze_backbone": False}, "train": {"gamma": 0.9}},
}


class Contents(NamesAsFingerprints):
    """Contents that are not their names, where a test says so."""

    def __init__(self, data="", checkpoint=""):
        self._data, self._checkpoint = data, checkpoint

    def data(self, name, split, samples):
        return self._data or super().data(name, split, samples)

    def checkpoint(self, model):
        return self._checkpoint or super().checkpoint(model)


def trial(fingerprints=None, **settings):
    return build(TrialConfig.model_validate(settings), fingerprints or NamesAsFingerprints())


def ids(**settings):
    planned = trial(**settings)
    return {kind: planned.stage(kind).id if planned.stage(kind) else None for kind in ("train", "evaluate", "profile")}


def changed(first, second):
    return {kind for kind in first if first[kind] != second[kind]}


def test_ids_are_what_they_were():
    """A change here makes every store's work be done again: raise VERSION instead if only outputs changed.

    A setting that came later is `Added` (CONTRIBUTING, Settings).
    """
    found = {name: [trial(**case).id, *(stage.id for stage in trial(**case).stages)] for name, case in CASES.items()}
    assert found == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize(
    ("settings", "reruns"),
    [
        ({"evaluate": {"theta": 1.2}}, {"evaluate"}),
        ({"evaluate": {"clicker": "interformer"}}, {"evaluate"}),
        ({"evaluate": {"seed": 1}}, set()),  # the default clicker draws nothing
        ({"train": {"gamma": 0.9}}, {"train", "evaluate"}),
        ({"train": {"seed": 1}}, {"train", "evaluate"}),
        ({"model": {"freeze_backbone": False}}, {"train", "evaluate"}),
        ({"model": {"backbone": "sam_vit_b"}}, {"train", "evaluate", "profile"}),
        ({"model": {"refiner_blocks": 5}}, {"train", "evaluate", "profile"}),
        ({"profile": {"repeats": 9}}, {"profile"}),
    ],
)
def test_the_first_word_of_a_setting_says_what_it_reruns(settings, reruns):
    assert changed(ids(train={}), ids(**{"train": {}, **settings})) == reruns


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"click_noise_px": 2}, "click_noise_px is 2, and clicker is ritm, which has no noise; set clicker: jitter"),
        ({"click_slice": [0, 1], "clicker": "uniform"}, "and clicker is uniform, which has no slices"),
        ({"click_slice": [0.5, 0.5], "clicker": "distance"}, r"click_slice is \[0.5, 0.5\]; it should rise"),
        ({"click_slice": [0.5, 1.1], "clicker": "distance"}, "it should rise within 0 to 1"),
    ],
)
def test_noise_and_slices_are_of_the_clickers_that_have_them(settings, message):
    with pytest.raises(ValueError, match=message):
        trial(evaluate=settings)


def test_every_trial_is_its_own_row_even_where_all_its_work_is_shared():
    first, second = (trial(model={"refiner": "none"}, evaluate={"theta": theta}) for theta in (1.1, 1.2))
    assert first.stages == second.stages  # no selector: θ changes nothing
    assert first.id != second.id


def test_a_training_of_nothing_is_what_it_starts_from():
    base = {"modules": ["decoder"], "steps": 100, "warmup_steps": 10}
    alone = trial(model={"refiner": "none"}, train=base)
    on_top = trial(model={"refiner": "none"}, train={"modules": ["refiner"], "init": base})
    assert alone.stage("train").id == on_top.stage("train").id
    assert trial(train={"steps": 0, "warmup_steps": 0}).stage("train") is None


def test_the_refiners_settings_do_not_touch_the_decoders_training():
    first, second = (
        trial(model={"refiner_blocks": blocks}, train={"modules": ["refiner"], "init": {"modules": ["decoder"]}})
        for blocks in (1, 5)
    )
    init, outer = (stage.id for stage in first.stages if stage.kind == "train")
    assert init in {stage.id for stage in second.stages}
    assert outer not in {stage.id for stage in second.stages}


def test_embeddings_belong_to_the_encoder_that_made_them():
    """Frozen ones are shared by all; after an encoder's training they are its own, and all θ and γ share them."""

    def embeddings(**settings):
        return {stage.id for stage in trial(**settings).stages if stage.kind == "embed"}

    frozen = embeddings(train={})
    assert frozen == embeddings(train={"gamma": 0.9, "seed": 4})
    unfrozen = embeddings(model={"freeze_backbone": False}, train={})
    assert len(unfrozen) == 1  # of the evaluation's images: the training needs none
    assert not unfrozen & frozen
    two = embeddings(train={"modules": ["refiner"], "init": BASE})
    assert two == embeddings(train={"modules": ["refiner"], "gamma": 0.9, "init": BASE})


def test_ids_hold_contents_and_not_names():
    same = {"evaluate": {"data": "folder:/here/polyps"}}, {"evaluate": {"data": "folder:elsewhere"}}
    first, second = (trial(Contents(data="abc"), **settings) for settings in same)
    assert first.id == second.id
    assert [stage.id for stage in first.stages] == [stage.id for stage in second.stages]
    assert trial(Contents(data="abd"), **same[0]).id != first.id
    other = trial(Contents(checkpoint="other"))
    assert not {stage.id for stage in other.stages if stage.kind != "profile"} & {s.id for s in trial().stages}
    for stage in first.stages:
        assert "/here" not in canonical([stage.key, stage.needs])


def test_needs_stand_before_what_needs_them():
    for case in CASES.values():
        seen = set()
        for stage in trial(**case).stages:
            assert set(stage.needs.values()) <= seen
            seen.add(stage.id)


def test_a_stage_survives_json():
    for name in ("two phases", "infinite theta"):
        for stage in trial(**CASES[name]).stages:
            again = Stage.from_json(json.loads(json.dumps(stage.to_json(), allow_nan=False)))
            assert again.id == stage.id
            assert stage.kind != "train" or again.train == stage.train


@given(st.dictionaries(st.text(), st.integers(-1000, 1000) | st.booleans() | st.none() | st.text(), max_size=5))
def test_canonical_ignores_order_and_knows_that_one_is_one(value):
    turned = dict(reversed(value.items()))
    floats = {key: float(item) if type(item) is int else item for key, item in turned.items()}
    assert canonical(value) == canonical(turned) == canonical(floats)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        ({"a": [1, {"b": float("nan")}]}, ValueError, "a.1.b is nan, which is no finite number"),
        (-math.inf, ValueError, "the value is -inf"),
        ({"a": {1, 2}}, TypeError, "a is {1, 2}; an id cannot hold a set"),
        ({"a": (n for n in "ab")}, TypeError, "an id cannot hold a generator"),
        ({"a": Path("b")}, TypeError, "an id cannot hold a PosixPath"),
        ({"a": np.float64(1)}, TypeError, "an id cannot hold a float64"),
        ({"a": {1: 2}}, TypeError, "a: a name is 1; an id cannot hold a int"),
    ],
)
def test_what_has_no_canonical_form_is_refused_with_its_place(value, error, text):
    with pytest.raises(error, match=re.escape(text)):
        canonical(value)
